"""The rules an annotation must meet, whatever file it came from."""

from __future__ import annotations

import dataclasses
import json

import polars as pl
import pytest
from evaluation_material import NLI, ONE_LABEL, SCORES

from capo_core.errors import CorpusError
from capo_core.quality import (
    Candidate,
    Problem,
    add_context_ids,
    check_candidates,
    count_explanations_in_train,
    is_blank,
    match_label,
    require_annotators,
    to_json,
)
from capo_core.text import text_id
from schemas.config import TaskSpec
from schemas.frames import ANNOTATIONS, QUARANTINE

GOOD = Candidate(
    source_file="a.csv",
    source_line=2,
    source_id="i1",
    text_a="It rains.",
    text_b="It is wet.",
    annotator_id="ann",
    label="neutral",
    explanation="Roofs exist.",
    metadata={"genre": "weather"},
    record={"any": "thing"},
)


def candidate(**changes: object) -> Candidate:
    return dataclasses.replace(GOOD, **changes)  # pyright: ignore[reportArgumentType]


def only_reason(*candidates: Candidate, task: TaskSpec = ONE_LABEL) -> str:
    """Return the reason of the single refused row."""
    _, quarantine = check_candidates(candidates, task)
    assert quarantine.height == 1
    return quarantine["reason"][0]


def test_good_row_keeps_its_text_as_written_and_gets_its_identity_from_both_texts() -> None:
    annotations, quarantine = check_candidates([candidate(label=" Neutral ", explanation=" Roofs exist.\n")], ONE_LABEL)

    row = annotations.row(0, named=True)
    assert row["item_id"] == text_id("It rains.", "It is wet.")
    assert row["label"] == "neutral"  # the task's spelling
    assert row["explanation"] == " Roofs exist.\n"
    assert (row["source_file"], row["source_line"], row["source_id"]) == ("a.csv", 2, "i1")
    assert json.loads(row["metadata"]) == {"genre": "weather"}
    assert quarantine.is_empty()
    assert dict(annotations.schema) == ANNOTATIONS
    assert dict(quarantine.schema) == QUARANTINE


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"text_a": None}, "text_a", "missing_text"),
        ({"text_b": " \u200b "}, "text_b", "missing_text"),
        ({"annotator_id": ""}, "annotator_id", "missing_annotator"),
        ({"label": None}, "label", "missing_label"),
        ({"label": float("nan")}, "label", "missing_label"),
        ({"label": "maybe"}, "label", "unknown_label"),
        ({"label": True}, "label", "malformed_row"),
        ({"explanation": "  "}, "explanation", "empty_explanation"),
        ({"explanation": ["a"]}, "explanation", "malformed_row"),
        ({"text_a": 5}, "text_a", "malformed_row"),
        ({"explanation": "half \ud83d character"}, "explanation", "not_utf8"),
        ({"problem": Problem("row", "malformed_row", "seen by the reader")}, "row", "malformed_row"),
    ],
)
def test_bad_field_quarantines_the_row_with_place_and_reason(changes: dict, field: str, reason: str) -> None:
    annotations, quarantine = check_candidates([candidate(**changes)], ONE_LABEL)

    assert annotations.is_empty()
    row = quarantine.row(0, named=True)
    assert (row["field"], row["reason"]) == (field, reason)
    assert (row["source_file"], row["source_line"]) == ("a.csv", 2)
    assert json.loads(row["record"]) == {"any": "thing"}
    assert row["detail"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [("-5", "-5"), ("+3", "3"), ("−4", "-4"), (" 0 ", "0"), ("-0", "0"), ("3.0", "3"), ("5", "5")],
)
def test_score_is_read_whatever_its_sign_looks_like(label: str, expected: str) -> None:
    assert match_label(label, SCORES) == expected


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("6", "score_out_of_bounds"),
        ("-6", "score_out_of_bounds"),
        ("2.5", "score_not_integer"),
        ("four", "score_not_integer"),
        ("1e0", "score_not_integer"),
        ("--1", "score_not_integer"),
    ],
)
def test_score_that_is_no_integer_or_out_of_bounds_names_what_is_allowed(label: str, reason: str) -> None:
    problem = match_label(label, SCORES)

    assert isinstance(problem, Problem)
    assert problem.reason == reason
    assert "-5 to 5" in problem.detail


def test_integer_scores_arriving_as_numbers_are_scores() -> None:
    rows = [candidate(label=3, annotator_id=7), candidate(label=-2.0, annotator_id=8.0)]
    annotations, _ = check_candidates(rows, SCORES)

    assert annotations.select("annotator_id", "label").rows() == [("7", "3"), ("8", "-2")]


def test_unknown_label_message_lists_the_labels() -> None:
    problem = match_label("perhaps", ONE_LABEL)

    assert isinstance(problem, Problem)
    assert "'perhaps'" in problem.detail
    assert "entailment, neutral, contradiction" in problem.detail


def test_same_item_annotator_and_label_again_is_a_duplicate_and_the_first_stays() -> None:
    again = candidate(source_line=9, text_a=" It  rains. ", explanation="Other words.")
    annotations, quarantine = check_candidates([GOOD, again], NLI)

    assert annotations["explanation"].to_list() == ["Roofs exist."]
    assert quarantine["reason"].to_list() == ["duplicate_annotation"]
    assert "a.csv, line or record 2" in quarantine["detail"][0]


def test_refused_row_does_not_make_the_next_one_a_duplicate() -> None:
    annotations, quarantine = check_candidates([candidate(explanation=""), GOOD], ONE_LABEL)

    assert annotations.height == 1
    assert quarantine["reason"].to_list() == ["empty_explanation"]


def test_second_label_is_refused_unless_the_task_allows_several() -> None:
    second = candidate(label="entailment")

    assert only_reason(GOOD, second, task=ONE_LABEL) == "second_label"
    annotations, quarantine = check_candidates([GOOD, second], NLI)
    assert annotations["label"].to_list() == ["entailment", "neutral"]
    assert quarantine.is_empty()


def test_annotations_do_not_depend_on_row_order() -> None:
    rows = [candidate(annotator_id=who, text_b=text) for who in ("b", "a") for text in ("y", "x")]
    forward, _ = check_candidates(rows, ONE_LABEL)
    backward, _ = check_candidates(rows[::-1], ONE_LABEL)

    assert forward.equals(backward)
    assert forward.select("item_id", "annotator_id").rows() == sorted(forward.select("item_id", "annotator_id").rows())


def test_items_sharing_a_text_in_any_position_share_a_context() -> None:
    # 1: p-q and 2: q-r share q across positions; 3: "r "-s joins them through r; 4: x-y stands alone.
    items = {"1": ("p", "q"), "2": ("q", "r"), "3": ("r ", "s"), "4": ("x", "y")}
    frame = pl.DataFrame([{"item_id": i, "text_a": a, "text_b": b} for i, (a, b) in items.items()])

    contexts = add_context_ids(frame)

    assert dict(contexts.select("item_id", "context_id").rows()) == {"1": "1", "2": "1", "3": "1", "4": "4"}


def test_rows_of_one_item_carry_one_spelling_of_its_texts() -> None:
    rows = [candidate(annotator_id="a", text_a="It  rains."), candidate(annotator_id="b", text_a="It rains.")]
    annotations, _ = check_candidates(rows, ONE_LABEL)

    assert annotations["item_id"].n_unique() == 1
    assert annotations["text_a"].to_list() == ["It  rains."] * 2  # two spaces sort before "r"


def test_one_annotator_only_is_an_error_that_names_him() -> None:
    annotations, _ = check_candidates([GOOD], ONE_LABEL)

    with pytest.raises(CorpusError, match=r"1 annotator\(s\) \(ann\); at least 2"):
        require_annotators(annotations)
    both, _ = check_candidates([GOOD, candidate(annotator_id="other")], ONE_LABEL)
    require_annotators(both)


def test_test_explanations_standing_in_train_are_counted() -> None:
    corpus = pl.DataFrame(
        {
            "explanation": ["same  meaning", "unlike", "Same meaning", "same meaning ", "unlike"],
            "split": ["train", "validation", "test", "test", "test"],
        }
    )
    # Only "same meaning " equals a train explanation: "Same" differs in case, "unlike" stands in validation only.
    assert count_explanations_in_train(corpus) == 1


def test_json_of_odd_values_stays_valid() -> None:
    assert json.loads(to_json({"b": float("nan"), "a": [float("inf"), "\ud83d"]})) == {
        "b": "nan",
        "a": ["inf", "\ud83d"],
    }


@pytest.mark.parametrize(("text", "blank"), [("", True), ("\u200b\u00a0\n", True), (".", False), ("\ud83d", False)])
def test_text_that_shows_nothing_is_blank(text: str, blank: bool) -> None:
    assert is_blank(text) is blank
