"""A corpus under pseudonyms: no way back from what is renamed."""

from __future__ import annotations

import json

import polars as pl
from evaluation_material import corpus_frame, corpus_row

from capo_core.pseudonyms import name_pseudonyms
from capo_core.release.renaming import rename_annotators
from capo_core.validity import measure_validity

KEY = bytes(range(32))


def test_nothing_of_a_renamed_corpus_names_its_people_or_its_file() -> None:
    metadata = json.dumps(
        {"judgments": [{"annotator": "Ann1", "makes_sense": False}], "annotator": {"Age": 41}, "idk": ["Ann2"]}
    )
    rows = [corpus_row("i1", who, "neutral", "why not") | {"metadata": metadata} for who in ("Ann1", "Ann2")]
    corpus = corpus_frame(rows)
    renamed = rename_annotators(corpus, name_pseudonyms(["Ann1", "Ann2"], "c", KEY))
    assert renamed["annotator_id"].is_sorted()
    written = renamed.write_json()
    for trace in ("Ann1", "Ann2", "41", "made.csv"):
        assert trace not in written
    # The verdicts stay, because pairs may be chosen by them: 0 of 1 says it makes sense.
    assert measure_validity(renamed["metadata"], "s", "i")["validity"].to_list() == [0.0]


def test_metadata_of_other_forms_is_left_out() -> None:
    rows = [corpus_row("i1", "a", "neutral", "x") | {"metadata": text} for text in ("{}", '["a"]', '{"judgments": 3}')]
    renamed = rename_annotators(corpus_frame(rows), {"a": "b"})
    assert renamed["metadata"].unique().to_list() == ["{}"]
    assert renamed.select("source_file", "source_id", "source_line").unique().rows() == [("", "", 0)]
    assert renamed.schema["source_line"] == pl.Int64
