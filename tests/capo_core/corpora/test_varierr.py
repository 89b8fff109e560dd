"""VariErr NLI files: JSON Lines with explanations under their labels."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from evaluation_material import NLI
from real_data import VARIERR_FILE, real_file

from capo_core.corpora import read_corpus
from capo_core.corpora.varierr import annotator_name
from capo_core.errors import CorpusError, InputFileError


def entry(annotator: object, reason: object, n_judgements: int = 4, **more: object) -> dict:
    judgements = [{"annotator": k, "makes_sense": k != 1} for k in range(n_judgements)]
    return {"annotator": annotator, "id": f"x-{annotator}", "judgments": judgements, "reason": reason, **more}


def record(source_id: str = "17n", **changes: object) -> dict:
    base = {
        "id": source_id,
        "context": "Rain fell.",
        "statement": "It was wet.",
        "entailment": [entry(0, "Rain wets.", self_corrected=True, label_correction=False)],
        "neutral": [entry(0, "Perhaps roofs.", 3), entry(3, "unclear", 2, label_correction=True)],
        "contradiction": [],
        "idk": [1, 2],
        "label_count_round_1": {"contradiction": None, "entailment": 1.0, "neutral": 2.0},
        "label_count_round_2": {"contradiction": None, "entailment": None, "neutral": None},
        "label_set_round_1": ["entailment", "neutral"],
        "label_set_round_2": [],
        "error_labels": ["entailment"],
    }
    return {**base, **changes}


def write(path: Path, *lines: dict | str | bytes) -> Path:
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def test_annotations_carry_label_explanation_line_and_renamed_annotators(tmp_path: Path) -> None:
    result = read_corpus([write(tmp_path / "v.json", "", record())], "varierr", NLI)

    rows = result.annotations.select("annotator_id", "label", "explanation", "source_line", "source_id").rows()
    assert rows == [
        ("Ann1", "entailment", "Rain wets.", 2, "17n"),
        ("Ann1", "neutral", "Perhaps roofs.", 2, "17n"),
        ("Ann4", "neutral", "unclear", 2, "17n"),
    ]
    metadata = json.loads(result.annotations["metadata"][0])
    assert metadata["self_corrected"] is True
    assert metadata["idk"] == ["Ann2", "Ann3"]
    assert metadata["judgments"][1] == {"annotator": "Ann2", "makes_sense": False}
    assert metadata["error_labels"] == ["entailment"]
    assert metadata["label_count_round_2"]["neutral"] is None  # absent counts stay null


def test_every_quirk_of_a_record_is_counted(tmp_path: Path) -> None:
    counts = read_corpus([write(tmp_path / "v.json", record())], "varierr", NLI).counts

    expected = {
        "rows_in": 3,
        "rows_accepted": 3,
        "rows_quarantined": 0,
        "records": 1,
        "idk_marks": 2,
        "items_with_idk": 1,
        "two_label_slots": 1,  # annotator 0: entailment and neutral
        "judgements": 9,  # 4 + 3 + 2
        "judgements_false": 3,  # judge 1 of each
        "explanations_with_fewer_than_four_judgements": 2,
        "self_corrected": 1,
        "label_correction": 1,
        "empty_first_round_label_sets": 0,
        "empty_second_round_label_sets": 1,
        "null_label_counts": 4,  # 1 of round 1, 3 of round 2
        "error_labels": 1,
        "explanations_ending_with_full_stop": 2,
        "explanations_ending_with_full_stop.Ann1": 2,
        "explanations_ending_with_full_stop.Ann4": 0,
    }
    assert {name: counts[name] for name in expected} == expected


def test_lines_that_cannot_be_read_are_quarantined_and_the_others_go_on(tmp_path: Path) -> None:
    broken = '{"id": "1e", "context": '
    path = write(
        tmp_path / "v.json",
        broken,
        record(),
        b'{"id": "caf\xe9"}',
        "[1]",
        '{"id": "a", "id": "b"}',
        '{"idk": NaN}',
        "[" * 5000 + "]" * 5000,  # deeper than the stack
        "[" * 200 + "]" * 200,
        {"id": "9e", "context": " ", "statement": "s"},
    )
    result = read_corpus([path], "varierr", NLI)

    assert result.quarantine.select("source_line", "reason").rows() == [
        (1, "invalid_json"),
        (3, "not_utf8"),
        (4, "malformed_row"),
        (5, "duplicate_key"),
        (6, "invalid_json"),
        (7, "invalid_json"),
        (8, "invalid_json"),
        (9, "missing_text"),
    ]
    assert json.loads(result.quarantine["record"][0]) == {"line": broken}
    assert result.counts["rows_in"] == 11  # 3 annotations of the good record + 8 unreadable lines
    assert result.counts["rows_accepted"] == 3
    assert result.counts["quarantined_invalid_json"] == 4


def test_explanations_that_are_none_are_quarantined_row_by_row(tmp_path: Path) -> None:
    odd = record(entailment=[entry(0, ""), entry(None, "x"), "text", entry(2, "good")], neutral="none")
    unknown = record("18e", statement="Other.", entailment=[], neutral=[], perhaps=[entry(1, "hm")])
    result = read_corpus([write(tmp_path / "v.json", odd, unknown)], "varierr", NLI)

    assert result.quarantine["reason"].to_list() == [
        "empty_explanation",
        "missing_annotator",
        "malformed_row",
        "malformed_row",
        "unknown_label",
    ]
    assert result.annotations["explanation"].to_list() == ["good"]


def test_duplicate_annotation_is_quarantined_across_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.json", record()), write(tmp_path / "b.json", record("99e"))]
    result = read_corpus(paths, "varierr", NLI)

    assert result.counts["quarantined_duplicate_annotation"] == 3
    assert result.annotations["source_file"].unique().to_list() == ["a.json"]
    assert result.counts["texts_under_several_source_ids"] == 1


def test_ids_that_collide_without_their_letter_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "v.json", record("17n"), record("17e", statement="Another."), record("18c", statement="Z."))

    counts = read_corpus([path], "varierr", NLI).counts
    assert counts["source_ids_equal_without_last_letter"] == 1  # 17n and 17e are both 17
    assert counts["items"] == 3
    assert counts["contexts"] == 1  # the context is the same


def test_item_without_any_annotation_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "v.json", record(), record("18e", statement="B.", entailment=[], neutral=[]))

    assert read_corpus([path], "varierr", NLI).counts["items_without_annotations"] == 1


@pytest.mark.parametrize(
    ("stated", "name"), [(0, "Ann1"), ("3", "Ann4"), ("Ann2", "Ann2"), (-1, -1), (True, True), (None, None)]
)
def test_annotator_numbers_become_the_names_of_the_shared_task(stated: object, name: object) -> None:
    assert annotator_name(stated) == name


def test_missing_empty_and_misnamed_files_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.json: no such file; check corpus\.paths"):
        read_corpus([tmp_path / "gone.json"], "varierr", NLI)
    with pytest.raises(InputFileError, match="is a folder"):
        read_corpus([tmp_path], "varierr", NLI)
    (tmp_path / "empty.json").write_bytes(b"\xef\xbb\xbf \n")
    with pytest.raises(InputFileError, match=r"empty\.json: is empty"):
        read_corpus([tmp_path / "empty.json"], "varierr", NLI)
    (tmp_path / "wide.json").write_text("{}", encoding="utf-16")
    with pytest.raises(InputFileError, match="is UTF-16; save it as UTF-8"):
        read_corpus([tmp_path / "wide.json"], "varierr", NLI)


def test_no_usable_row_is_an_error_that_sums_up_the_reasons(tmp_path: Path) -> None:
    path = write(tmp_path / "v.json", "{", "{", {"context": "c"})

    with pytest.raises(CorpusError, match=r"none of 3 rows can be used \(invalid_json 2, missing_text 1\).*line or"):
        read_corpus([path], "varierr", NLI)


def test_published_file_is_accepted_whole_and_its_quirks_are_found() -> None:
    result = read_corpus([real_file(VARIERR_FILE)], "varierr", NLI)

    # The published set has 500 items; wherever only a part is at hand the figures are at most these.
    at_most = {
        "records": 500,
        "idk_marks": 136,
        "items_with_idk": 101,
        "two_label_slots": 77,
        "judgements": 7574,
        "judgements_false": 1250,
        "explanations_with_fewer_than_four_judgements": 137,
        "self_corrected": 221,
        "label_correction": 44,
        "empty_second_round_label_sets": 2,
    }
    assert all(0 < result.counts[name] <= n for name, n in at_most.items())
    assert result.counts["rows_accepted"] == result.counts["rows_in"]
    assert result.counts["items"] == result.counts["records"] > result.counts["contexts"]


def test_both_published_forms_name_the_same_people() -> None:
    own = read_corpus([real_file(VARIERR_FILE)], "varierr", NLI).annotations
    shared_task = read_corpus([real_file("VariErrNLI_train.json")], "lewidi", NLI).annotations

    keys = ["item_id", "annotator_id", "label"]
    both_items = own.select("item_id").unique().join(shared_task.select("item_id").unique(), on="item_id")
    left, right = (frame.join(both_items, on="item_id", how="semi") for frame in (own, shared_task))
    assert both_items.height > 300
    # On items present in both forms: the same annotators, labels and, to the character, explanations.
    columns = [*keys, "text_a", "text_b", "explanation"]
    assert left.select(columns).equals(right.select(columns))
    assert left.select(pl.col("annotator_id").unique().sort()).to_series().to_list() == ["Ann1", "Ann2", "Ann3", "Ann4"]
