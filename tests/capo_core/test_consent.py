"""Consent: what people state, what each use needs, and who is left out of it."""

from __future__ import annotations

import json

import polars as pl
import pytest

from capo_core.consent import find_objections, read_consent
from capo_core.errors import CorpusError


def test_consent_is_what_all_rows_of_a_person_name() -> None:
    def row(who: str, **metadata: object) -> dict[str, str]:
        return {"annotator_id": who, "metadata": json.dumps(metadata)}

    rows = [
        row("ann", consent="analysis, modelling"), row("ann", consent="modelling"), row("bob", genre="news"),
        row("cyd", annotator={"consent": ["analysis"]}), row("dov", consent="none"),
    ]  # fmt: skip
    assert read_consent(pl.DataFrame(rows), ("ann", "bob", "cyd", "dov")) == {
        "ann": frozenset({"modelling"}), "bob": None, "cyd": frozenset({"analysis"}), "dov": frozenset(),
    }  # fmt: skip
    with pytest.raises(CorpusError, match="annotator eve: consent 'all' is none of analysis, modelling, release, none"):
        read_consent(pl.DataFrame([row("eve", consent="all")]), ["eve"])


def test_every_use_needs_analysis_and_its_own_scope() -> None:
    everything = frozenset({"analysis", "modelling", "release"})
    consent = {scope: everything - {scope} for scope in sorted(everything)} | {"silent": None, "all": everything}
    assert find_objections(consent, "analysis", require_consent=False) == {"analysis": "analysis is not consented to"}
    assert list(find_objections(consent, "modelling", require_consent=False)) == ["analysis", "modelling"]
    assert list(find_objections(consent, "release", require_consent=False)) == ["analysis", "release"]
    nothing = find_objections({"ann": frozenset()}, "release", require_consent=False)
    assert nothing == {"ann": "analysis and release are not consented to"}


def test_silence_objects_where_consent_is_required() -> None:
    consent = {"ann": None, "bob": frozenset({"analysis"})}
    assert find_objections(consent, "analysis", require_consent=False) == {}
    assert find_objections(consent, "analysis", require_consent=True) == {
        "ann": "no scope is stated, and must be (corpus.require_consent)"
    }
