"""Macro-F1 against arithmetic, against scikit-learn, and its resamples and permutations against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from evaluation_material import QUICK
from sklearn.metrics import f1_score

from capo_core.evaluation.class_scores import MacroF1Scores, indicate_labels, macro_f1
from capo_core.evaluation.scores import Draws, Resampling, ScoreName, mean_scores
from capo_core.statistics.significance import Resamples

NAMES = ("a", "b", "c")
NAME = ScoreName("sft", "sampled", "macro_f1")


def scores(answers: list, targets: list, seeds: tuple[int, ...] = (1,)) -> MacroF1Scores:
    """Return scores of answers by seed, annotator and item; "-" is unreadable, " " no response, "ab" two labels."""
    said = np.array([[list(series) for series in by_seed] for by_seed in answers], dtype=object)
    given = np.empty((len(targets), len(targets[0])), dtype=object)
    for annotator, item in np.ndindex(*given.shape):
        given[annotator, item] = tuple(targets[annotator][item])
    cells = (said != " ") & np.array([bool(one) for one in given.flat]).reshape(given.shape)
    return MacroF1Scores(NAME, seeds, indicate_labels(said, NAMES), indicate_labels(given, NAMES), cells)


def value(one: MacroF1Scores) -> np.ndarray:
    return one.estimate(Resampling(one.cells.shape[2], QUICK).whole(one.n_slices))[0]


def test_macro_f1_by_hand() -> None:
    # Person a a b b, answers a b b b. a: TP 1, FN 1, FP 0: F1 2/3. b: TP 2, FP 1, FN 0: 4/5. Mean 11/15.
    assert value(scores([["abbb"]], [["a", "a", "b", "b"]])) == pytest.approx([11 / 15])


def test_label_the_person_never_gave_is_no_class_but_costs_the_one_it_missed() -> None:
    # Person a a b, answers a c b. a: TP 1, FN 1: 2/3. b: 1. c is not averaged over. Mean 5/6.
    assert value(scores([["acb"]], [["a", "a", "b"]])) == pytest.approx([5 / 6])


def test_unreadable_answer_misses_the_class_and_claims_none() -> None:
    # Person a a b, answers a - b: as above, a: 2/3, b: 1.
    assert value(scores([["a-b"]], [["a", "a", "b"]])) == pytest.approx([5 / 6])


def test_missing_response_and_missing_target_do_not_count() -> None:
    assert value(scores([["a b"]], [["a", "a", ""]])) == pytest.approx([1.0])


def test_either_of_two_labels_is_right_and_a_miss_is_shared_between_them() -> None:
    # Person {a, b}, a: answers b, a. b: TP 1; a: TP 1. Both 1.
    assert value(scores([["ba"]], [["ab", "a"]])) == pytest.approx([1.0])
    # Answers c, a: a: TP 1, FN 1/2: 2 / 2.5 = .8. b: FN 1/2: 0. Mean .4.
    assert value(scores([["ca"]], [["ab", "a"]])) == pytest.approx([0.4])


def test_annotator_without_targets_is_not_measured() -> None:
    assert np.isnan(value(scores([["ab", "ab"]], [["a", "b"], ["", ""]]))).tolist() == [False, True]


def test_seeds_are_averaged_not_pooled() -> None:
    # Seed 1 all right: 1. Seed 2 answers b b to a b: a 0, b 2/3: 1/3. Mean 2/3 (pooled: a 2/3, b 4/5).
    assert value(scores([["ab"], ["bb"]], [["a", "b"]], seeds=(1, 2))) == pytest.approx([2 / 3])


def test_equals_scikit_learn_over_the_classes_of_the_person() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, said = rng.choice(list("ab"), 12).tolist(), rng.choice(list(NAMES), 12).tolist()
        expected = f1_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
        assert value(scores([["".join(said)]], [truth])) == pytest.approx([expected], abs=1e-12)


def test_resample_equals_the_sample_with_its_items_repeated() -> None:
    targets, answers = ["a", "b", "a", "c"], "abca"
    counts = np.array([[2, 0, 1, 1], [0, 0, 3, 1], [1, 1, 1, 1]])
    whole = Resampling(4, QUICK).whole(1)
    draws = Draws(Resamples(counts, np.ones((3, 1), dtype=int)), whole.groups)
    estimates = scores([[answers]], [targets]).estimate(draws)[:, 0]
    for estimate, row in zip(estimates, counts, strict=True):
        items = np.repeat(np.arange(4), row)
        truth, said = [targets[i] for i in items], [answers[i] for i in items]
        expected = f1_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
        assert estimate == pytest.approx(expected, abs=1e-12)


def test_undefined_without_a_class() -> None:
    assert np.isnan(macro_f1(np.zeros(3), np.array([0.0, 2.0, 0.0]), np.zeros(3)))


def test_swapping_equals_all_ways_of_swapping() -> None:
    # Two annotators, six items: 64 ways to swap the methods' answers item by item. p is the share as extreme.
    rng = np.random.default_rng(5)
    targets = [rng.choice(list(NAMES), 6).tolist() for _ in range(2)]
    ours = [["".join(t[:5]) + "a" for t in targets]]
    theirs = [["".join(rng.choice(list(NAMES), 6)) for _ in range(2)]]

    def difference(swapped: tuple[bool, ...]) -> float:
        sides = []
        for first, second in ((ours, theirs), (theirs, ours)):
            mixed = [
                "".join(s[i] if swapped[i] else f[i] for i in range(6))
                for f, s in zip(first[0], second[0], strict=True)
            ]
            sides.append(value(scores([mixed], targets)).mean())
        return sides[0] - sides[1]

    observed = difference((False,) * 6)
    exact = np.mean([abs(difference(way)) >= abs(observed) - 1e-12 for way in product((False, True), repeat=6)])
    p = scores(ours, targets).swap_p_value(scores(theirs, targets), Resampling(6, QUICK))
    assert 0.02 < exact < 0.5
    assert p == pytest.approx(exact, abs=0.015)  # three standard errors of 9,999 draws at p = .5


def test_equal_methods_differ_by_chance_only() -> None:
    one = scores([["abcabc"]], [list("abbacc")])
    assert one.swap_p_value(one, Resampling(6, QUICK)) == 1.0


def test_perfect_method_differs_from_one_that_is_always_wrong() -> None:
    targets = list("abc" * 10)
    right, wrong = scores([["abc" * 10]], [targets]), scores([["bca" * 10]], [targets])
    assert right.swap_p_value(wrong, Resampling(30, QUICK)) == pytest.approx(1e-4)  # 1 / (1 + 9999)


def test_nothing_measured_has_no_p_value() -> None:
    one = scores([["ab"]], [["", ""]])
    assert np.isnan(one.swap_p_value(one, Resampling(2, QUICK)))


def test_other_kinds_of_score_cannot_be_compared() -> None:
    one = scores([["ab"]], [["a", "b"]])
    with pytest.raises(TypeError, match="cannot compare MacroF1Scores with ItemScores"):
        one.swap_p_value(mean_scores(NAME, (1,), np.ones((1, 1, 2))), Resampling(2, QUICK))  # pyright: ignore[reportArgumentType]


def test_seeds_and_cells_can_be_chosen() -> None:
    one = scores([["ab"], ["bb"]], [["a", "b"]], seeds=(1, 2))
    assert value(one.at_seeds((2,))) == pytest.approx([1 / 3])
    assert value(one.at_seeds((2,)).only(np.array([[[False, True]]]))) == pytest.approx([1.0])


def test_what_no_seed_enters_stands_at_every_seed() -> None:
    one = scores([["bb"]], [["a", "b"]], seeds=())
    assert one.at_seeds((1, 2)).cells.shape == (2, 1, 2)
    with pytest.raises(ValueError, match="2 slices without seeds"):
        scores([["bb"], ["ab"]], [["a", "b"]], seeds=()).at_seeds((1,))
