"""What people agreed to, read from their data, and who is left out of what for want of it.

A scope is stated as `consent` in an annotation's metadata or in the annotator's own: a list, or words between commas,
of analysis, modelling, release; `none` refuses all. Uses build on each other: a model is measured by analysing the
person's words, and a release states a risk that analysis measured, so both need consent to analysis as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import polars as pl

from capo_core.errors import CorpusError
from schemas.people import Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)
NEEDED: dict[Scope, tuple[Scope, ...]] = {
    "analysis": ("analysis",),
    "modelling": ("analysis", "modelling"),
    "release": ("analysis", "release"),
}
"""Scopes that each use needs."""

Consent = Mapping[str, frozenset[str] | None]
"""Scopes of each annotator; None where none are stated."""


def read_consent(corpus: pl.DataFrame, annotators: Iterable[str] | None = None) -> dict[str, frozenset[str] | None]:
    """Return the scopes that each annotator consents to, None where none are stated.

    A person who states several things in several rows consents to what all of them name.

    Args:
        corpus: annotator_id, metadata.
        annotators: whom to look for; None: everybody in the corpus, sorted.

    Raises:
        CorpusError: if a scope is none of `SCOPES`; names the annotator and the value.
    """
    stated = dict(corpus.group_by("annotator_id").agg(pl.col("metadata").unique()).iter_rows())
    found: dict[str, frozenset[str] | None] = {}
    for annotator in sorted(stated) if annotators is None else annotators:
        texts = stated.get(annotator, [])
        scopes = [scope for text in texts if (scope := _read_scopes(json.loads(text), annotator)) is not None]
        found[annotator] = frozenset.intersection(*scopes) if scopes else None
    return found


def find_objections(consent: Consent, use: Scope, *, require_consent: bool) -> dict[str, str]:
    """Return who is left out of a use, and why.

    Args:
        consent: of everybody concerned.
        use: what their words are wanted for.
        require_consent: whether people who state no scope are left out too.
    """
    objections = {}
    for annotator, scopes in consent.items():
        missing = [scope for scope in NEEDED[use] if scopes is not None and scope not in scopes]
        if missing:
            objections[annotator] = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not consented to"
        elif scopes is None and require_consent:
            objections[annotator] = "no scope is stated, and must be (corpus.require_consent)"
    return objections


def _read_scopes(metadata: Mapping[str, Any], annotator: str) -> frozenset[str] | None:
    about = metadata.get("annotator")
    stated = metadata.get("consent", about.get("consent") if isinstance(about, Mapping) else None)
    if stated is None or not str(stated).strip():
        return None
    parts = stated if isinstance(stated, list) else str(stated).replace(";", ",").replace(" ", ",").split(",")
    scopes = {str(part).strip().casefold() for part in parts if str(part).strip()} - {"none"}
    if unknown := sorted(scopes - set(SCOPES)):
        raise CorpusError(
            f"annotator {annotator}: consent {unknown[0]!r} is none of {', '.join(SCOPES)}, none; correct the data"
        )
    return frozenset(scopes)
