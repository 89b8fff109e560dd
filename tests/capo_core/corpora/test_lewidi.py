"""LeWiDi-2025 files: one JSON object by item id, explanations as a bare list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_material import NLI, SCORES
from real_data import PARAPHRASE_FILE, real_file

from capo_core.corpora import read_corpus
from capo_core.corpora.lewidi import read_annotators
from capo_core.errors import CorpusError, InputFileError


def record(annotations: dict, explanations: object, annotators: str | None = None, **changes: object) -> dict:
    base = {
        "annotation task": "nli",
        "text": {"context": "Rain fell.", "statement": "It was wet."},
        "annotations": annotations,
        "soft_label": {"neutral": 1.0},
        "split": "train",
        "other_info": {"explanations": explanations, "note": "kept"},
    }
    if annotators is not None:
        base["annotators"] = annotators
    return {**base, **changes}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_explanations_align_by_annotator_then_label_in_alphabetical_order(tmp_path: Path) -> None:
    annotations = {"Ann2": "neutral,entailment", "Ann1": "contradiction"}
    path = write(tmp_path / "l.json", {"5": record(annotations, ["2e", "2n", "1c"], "Ann2,Ann2,Ann1")})

    result = read_corpus([path], "lewidi", NLI)

    assert result.annotations.select("annotator_id", "label", "explanation", "source_line", "source_id").rows() == [
        ("Ann1", "contradiction", "1c", 1, "5"),
        ("Ann2", "entailment", "2e", 1, "5"),
        ("Ann2", "neutral", "2n", 1, "5"),
    ]
    assert result.counts["two_label_slots"] == 1
    metadata = json.loads(result.annotations["metadata"][0])
    assert metadata["split"] == "train"
    assert metadata["note"] == "kept"
    assert "explanations" not in metadata


@pytest.mark.parametrize(
    ("annotations", "explanations", "annotators"),
    [
        ({"Ann1": "neutral", "Ann2": "neutral"}, ["a"], None),
        ({"Ann1": "neutral,entailment"}, ["a"], None),
        ({"Ann1": "neutral", "Ann2": "neutral"}, ["a", "b"], "Ann2,Ann1"),
        ({"Ann1": "neutral", "Ann2": "neutral"}, ["a", "b"], "Ann1,Ann3"),
    ],
)
def test_record_whose_explanations_cannot_be_assigned_is_quarantined_whole(
    tmp_path: Path, annotations: dict, explanations: list, annotators: str | None
) -> None:
    good = record({"Ann1": "neutral"}, ["fine"])
    path = write(tmp_path / "l.json", {"1": record(annotations, explanations, annotators), "2": good})

    result = read_corpus([path], "lewidi", NLI)

    assert result.quarantine.select("reason", "source_line", "source_id").rows() == [
        ("misaligned_explanations", 1, "1")
    ]
    assert json.loads(result.quarantine["record"][0])["annotations"] == annotations
    assert result.annotations["explanation"].to_list() == ["fine"]


def test_annotators_listed_once_each_are_no_misalignment(tmp_path: Path) -> None:
    path = write(tmp_path / "l.json", {"1": record({"Ann1": "entailment,neutral"}, ["e", "n"], "Ann1")})

    assert read_corpus([path], "lewidi", NLI).counts["rows_accepted"] == 2


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("text", "malformed_row"),
        ({"text": {"context": "a"}}, "missing_text"),
        ({"text": {"context": "a", "statement": ""}}, "missing_text"),
        ({"annotations": ["neutral"]}, "malformed_row"),
        ({"other_info": {}}, "malformed_row"),
        ({"other_info": None}, "malformed_row"),
    ],
)
def test_unreadable_record_is_one_quarantined_row(tmp_path: Path, changed: object, reason: str) -> None:
    good = record({"Ann1": "neutral"}, ["fine"])
    path = write(tmp_path / "l.json", {"1": {**good, **changed} if isinstance(changed, dict) else changed, "2": good})

    result = read_corpus([path], "lewidi", NLI)

    assert result.quarantine["reason"].to_list() == [reason]
    assert (result.counts["rows_in"], result.counts["rows_accepted"]) == (2, 1)


def test_blank_labels_are_quarantined_and_the_leak_of_two_label_slots_is_counted(tmp_path: Path) -> None:
    labelled = record({"Ann1": "neutral"}, ["fine"])
    unlabelled = record({"Ann1": "", "Ann2": ""}, ["a", "b", "c"], "Ann1,Ann2,Ann2")
    result = read_corpus([write(tmp_path / "l.json", {"1": labelled, "2": unlabelled})], "lewidi", NLI)

    assert result.quarantine.select("annotator_id", "reason").rows() == [
        ("Ann1", "missing_label"),
        ("Ann2", "missing_label"),
        ("Ann2", "missing_label"),
    ]
    assert result.counts["blank_labels"] == 3
    assert result.counts["unlabelled_items"] == 1
    assert result.counts["unlabelled_items_showing_two_label_slots"] == 1


def test_id_that_stands_twice_is_quarantined_not_overwritten(tmp_path: Path) -> None:
    first = json.dumps(record({"Ann1": "neutral"}, ["first"]))
    second = json.dumps(record({"Ann1": "entailment"}, ["second"], text={"context": "c", "statement": "s"}))
    path = write(tmp_path / "l.json", f'{{"7": {first}, "7": {second}}}')

    result = read_corpus([path], "lewidi", NLI)

    assert result.annotations["explanation"].to_list() == ["first"]
    assert result.quarantine.select("reason", "source_line", "source_id").rows() == [("duplicate_key", 2, "7")]
    assert json.loads(result.quarantine["record"][0])["other_info"]["explanations"] == ["second"]
    assert result.counts["source_ids_repeated"] == 1


def test_annotator_standing_twice_in_a_record_is_quarantined_with_both_labels(tmp_path: Path) -> None:
    good = record({"Ann1": "neutral"}, ["fine"])
    twice = json.dumps(good).replace('{"Ann1": "neutral"}', '{"Ann1": "neutral", "Ann1": "entailment"}')
    path = write(tmp_path / "l.json", f'{{"1": {twice}, "2": {json.dumps(good)}}}')

    result = read_corpus([path], "lewidi", NLI)

    assert result.quarantine["reason"].to_list() == ["malformed_row"]
    assert "an annotator stands twice" in result.quarantine["detail"][0]
    assert json.loads(result.quarantine["record"][0])["annotations"] == [["Ann1", "neutral"], ["Ann1", "entailment"]]


def test_one_id_for_two_text_pairs_stays_two_items(tmp_path: Path) -> None:
    one = write(tmp_path / "train.json", {"7": record({"Ann1": "neutral"}, ["a"])})
    other = {"context": "Rain fell.", "statement": "It was dry."}
    two = write(tmp_path / "dev.json", {"7": record({"Ann1": "contradiction"}, ["b"], text=other)})

    result = read_corpus([one, two], "lewidi", NLI)

    assert result.counts["items"] == 2
    assert result.counts["source_ids_standing_for_distinct_texts"] == 1
    assert result.annotations["context_id"].n_unique() == 1


def test_score_out_of_bounds_is_quarantined(tmp_path: Path) -> None:
    text = {"Question2": "Why b?", "Question1": "Why a?"}
    path = write(tmp_path / "l.json", {"1": record({"Ann1": "-5", "Ann2": "6"}, ["a", " b"], text=text)})

    result = read_corpus([path], "lewidi", SCORES)

    assert result.quarantine["reason"].to_list() == ["score_out_of_bounds"]
    assert "-5 to 5" in result.quarantine["detail"][0]
    assert result.annotations.select("text_a", "text_b").rows() == [("Why a?", "Why b?")]  # by name, not by order


def test_invalid_json_is_an_error_with_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path / "l.json", '{\n  "1": {},\n}')
    with pytest.raises(InputFileError, match=r"l\.json, line 3, column 1: not valid JSON .*correct the file there"):
        read_corpus([path], "lewidi", NLI)
    path = write(tmp_path / "lines.json", '{"1": {}}\n{"2": {}}')
    with pytest.raises(InputFileError, match=r"JSON Lines, set corpus\.format"):
        read_corpus([path], "lewidi", NLI)
    (tmp_path / "latin.json").write_bytes(b'{\n"caf\xe9": {}}')
    with pytest.raises(InputFileError, match=r"latin\.json, line 2: byte 0xe9 is not UTF-8"):
        read_corpus([tmp_path / "latin.json"], "lewidi", NLI)
    path = write(tmp_path / "list.json", "[]")
    with pytest.raises(InputFileError, match="holds a list, an object of items"):
        read_corpus([path], "lewidi", NLI)


def test_object_without_items_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no annotations at all"):
        read_corpus([write(tmp_path / "l.json", {})], "lewidi", NLI)


def test_trailing_commas_of_annotator_metadata_are_repaired_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "meta.json", '{"Ann1": {"Age": "26, ]", "Note": ",}",},\n "Ann2": {"Age": "30"\n,}, }')

    annotators, n_repaired = read_annotators(path)

    assert annotators == {"Ann1": {"Age": "26, ]", "Note": ",}"}, "Ann2": {"Age": "30"}}  # texts are left alone
    assert n_repaired == 3


@pytest.mark.parametrize("content", ['{"Ann1": {"Age" "26"}}', '{"Ann1": {},,}', "{'Ann1': {}}", "[]", '{"Ann1": 5}'])
def test_any_other_fault_of_annotator_metadata_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputFileError, match=r"meta\.json"):
        read_annotators(write(tmp_path / "meta.json", content))


def test_annotator_metadata_goes_to_the_annotations_and_gaps_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "l.json", {"1": record({"Ann1": "neutral", "Ann2": "neutral"}, ["a", "b"])})
    meta = write(tmp_path / "meta.json", '{"Ann1": {"Age": "26",}}')

    result = read_corpus([path], "lewidi", NLI, meta)

    metadata = [json.loads(text) for text in result.annotations["metadata"]]
    assert metadata[0]["annotator"] == {"Age": "26"}
    assert "annotator" not in metadata[1]
    assert result.counts["annotators_without_metadata"] == 1
    assert result.counts["repaired_trailing_commas_in_annotator_metadata"] == 1


def test_published_paraphrase_files_are_read_with_their_stray_white_space() -> None:
    paths = [real_file(PARAPHRASE_FILE), real_file("Paraphrase_test_clear.json")]
    result = read_corpus(paths, "lewidi", SCORES, real_file("Paraphrase_annotators_meta.json"))

    assert result.counts["rows_in"] == 1800  # (400 + 50 items) × 4 annotators
    assert result.counts["rows_accepted"] == 1600
    assert result.counts["quarantined_missing_label"] == result.counts["blank_labels"] == 200
    assert result.counts["explanations_with_stray_white_space"] == 551
    assert result.counts["explanations_opening_with_white_space.Ann2"] > 390
    assert result.counts["repaired_trailing_commas_in_annotator_metadata"] == 4


def test_published_test_file_alone_is_refused_because_its_labels_are_blank() -> None:
    with pytest.raises(CorpusError, match=r"none of 200 rows can be used \(missing_label 200\)"):
        read_corpus([real_file("Paraphrase_test_clear.json")], "lewidi", SCORES)
