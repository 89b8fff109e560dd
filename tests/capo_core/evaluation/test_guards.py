"""Copying, diversity and degeneration against counts made by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from evaluation_material import QUICK, corpus_frame, corpus_row, generation, generations_frame

from capo_core.evaluation.guards import copied_run_scorer, is_degenerate, score_guards, similarity_to_any
from capo_core.evaluation.scores import ItemScores, Resampling
from capo_core.evaluation.targets import read_held_out, read_responses

TRAINING = {"ana": ("They have the same meaning.", "One asks why"), "ben": ("nothing in common here",)}


def corpus(*held_out: tuple[str, str, str]) -> pl.DataFrame:
    """Return a corpus with these (item, annotator, explanation) as test annotations."""
    rows = [
        corpus_row(f"r{i}", name, "neutral", text) for name, texts in TRAINING.items() for i, text in enumerate(texts)
    ]
    return corpus_frame(rows + [corpus_row(i, name, "neutral", text, "test") for i, name, text in held_out])


PEOPLE = (("x", "ana", "They have the same meaning"), ("y", "ana", "Two cats, two dogs"), ("x", "ben", "all"))


def guard(rows: list[dict], people: tuple[tuple[str, str, str], ...] = PEOPLE) -> dict[tuple[str, str], ItemScores]:
    generations = generations_frame(rows)
    held_out = read_held_out(corpus(*people), generations)
    scores = score_guards(read_responses(generations, held_out), held_out)
    return {(one.name.method, one.name.metric): one for one in scores}


def value(scores: ItemScores, annotator: int = 0) -> float:
    n_items = scores.numerators.shape[2]
    return float(scores.estimate(Resampling(n_items, QUICK).whole(scores.n_slices))[0, annotator])


def answer(*texts: str | None, annotator: str = "ana", seed: int = 1) -> list[dict]:
    return [generation("sft", annotator, i, explanation=t, seed=seed) for i, t in zip("xy", texts, strict=False)]


def test_copied_run_is_the_share_of_the_longest_run_in_one_training_text() -> None:
    # "the same meaning" 3 of 5 words; "they have" 2 of 4 ("have one" joins two texts and does not count).
    scores = guard(answer("but the same, MEANING maybe", "They have one problem"))
    assert value(scores["sft", "longest_copied_run"]) == pytest.approx((3 / 5 + 2 / 4) / 2)


def test_only_the_targets_own_training_text_counts_as_copied() -> None:
    scores = guard([*answer("nothing in common"), *answer("nothing in common", annotator="ben")])
    assert value(scores["sft", "longest_copied_run"], 0) == 0
    assert value(scores["sft", "longest_copied_run"], 1) == 1


def test_people_are_measured_against_their_own_training_text() -> None:
    # ana: 5 of 5 words, none of "two cats two dogs"; the first is a near-duplicate but for a full stop.
    scores = guard(answer("x", "y"))
    assert value(scores["human", "longest_copied_run"]) == pytest.approx(0.5)
    assert value(scores["human", "near_duplicate_rate"]) == pytest.approx(0.5)
    assert scores["human", "near_duplicate_rate"].seeds == ()
    # ana's words: they have the same meaning two cats two dogs: 8 of 9 distinct; pairs: 4 + 3, all distinct.
    assert value(scores["human", "distinct_1"]) == pytest.approx(8 / 9)
    assert value(scores["human", "distinct_2"]) == 1


def test_similarity_is_that_of_the_longest_common_subsequence() -> None:
    # "abcd" and "abed": a, b, d in common: 2·3 / 8. Case, punctuation and white space aside "A-B" is "a b".
    assert similarity_to_any(["abcd", "A-B"], ["xy", "abed", "a b."]) == pytest.approx([0.75, 1.0])


def test_near_duplicates_start_at_nine_tenths() -> None:
    # "one asks why" has 12 characters, "one asks why n" 14: 24 / 26 = .92; "one asks why not" 16: 24 / 28 = .86.
    scores = guard(answer("One asks why n", "One asks why not"))
    assert value(scores["sft", "near_duplicate_rate"]) == pytest.approx(0.5)


def test_distinct_n_counts_over_all_items_of_a_person_and_seed() -> None:
    # Seed 1: a a b / a c: words a a b a c, 3 distinct of 5; pairs aa ab ac, 3 of 3. Seed 2: d / d: 1 of 2; no pairs.
    scores = guard([*answer("a a b", "a c"), *answer("d", "d", seed=2)])
    assert value(scores["sft", "distinct_1"]) == pytest.approx((3 + 1) / (5 + 2))
    assert value(scores["sft", "distinct_2"]) == pytest.approx(3 / 3)
    # a stands three times, twice in the first item: 2/3 + 1 (b) and 1/3 + 1 (c).
    assert scores["sft", "distinct_1"].numerators[0, 0] == pytest.approx([5 / 3, 4 / 3])


def test_empty_responses_are_counted_and_enter_nothing_else() -> None:
    scores = guard([*answer(None, "One asks"), *answer("...", annotator="ben")])
    assert value(scores["sft", "empty_rate"], 0) == pytest.approx(0.5)
    assert value(scores["sft", "empty_rate"], 1) == 1  # no word in it
    assert value(scores["sft", "longest_copied_run"], 0) == 1
    for metric in ("longest_copied_run", "near_duplicate_rate", "distinct_1"):
        assert np.isnan(value(scores["sft", metric], 1))
    assert value(scores["sft", "degenerate_rate"], 1) == 1
    assert value(scores["human", "empty_rate"], 1) == 0


def test_what_was_not_asked_is_not_empty() -> None:
    scores = guard(answer("a", "b"))
    assert np.isnan(value(scores["sft", "empty_rate"], 1))  # nothing imitates ben


def test_a_persons_several_explanations_of_an_item_are_averaged() -> None:
    people = (*PEOPLE, ("y", "ana", "One asks"))  # y: 0 and 1, x: 1
    assert value(guard(answer("a", "b"), people)["human", "longest_copied_run"]) == pytest.approx((1 + 0.5) / 2)


def test_without_training_text_copying_is_not_measured() -> None:
    assert np.isnan(copied_run_scorer([])("a b"))
    people = (*PEOPLE, ("x", "cem", "all"))
    scores = guard(answer("a", "b", annotator="cem"), people)
    assert np.isnan(value(scores["sft", "longest_copied_run"], 2))
    assert np.isnan(value(scores["sft", "near_duplicate_rate"], 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no no no", True),  # 3 of 3
        ("no, no", False),  # twice only
        ("the same the same the same topic", True),  # the same: 3 · 2 of 7
        ("the cat and the dog and the cow", False),  # the: 3 of 8; and the: twice
        ("a a a b c d", False),  # 3 of 6 is not more than half
        ("a a a b c", True),  # 3 of 5
        ("1 2 3 !?", True),  # no letter
        ("", True),
        ("It says the women do not work.", False),
        ("x y x y x", True),  # x: 3 of 5
    ],
)
def test_degenerate_text_repeats_itself_or_has_no_letters(text: str, expected: bool) -> None:
    assert is_degenerate(text) is expected


def test_overlapping_repetitions_count_once() -> None:
    # Among "a a a a b c d e f" the pair "a a" stands twice without overlap: below three. The word a: 4 of 9.
    assert not is_degenerate("a a a a b c d e f")
