"""The two figures of the attribution of groups of explanations, by seed and in resamples."""

from __future__ import annotations

import numpy as np
import pytest

from capo_core.evaluation.group_scores import ACCURACY, PROBABILITY, Attributions, GroupScores
from capo_core.evaluation.scores import ItemScores, Resampling, ScoreName
from schemas.config import EvaluationConfig

NAN = float("nan")


def resampling(n_items: int, *, n_groups: int = 40, n_bootstrap: int = 200, seed: int = 3) -> Resampling:
    return Resampling(n_items, EvaluationConfig(n_groups=n_groups, n_bootstrap=n_bootstrap, seed=seed))


def scores(log_probabilities: np.ndarray, metric: str = ACCURACY, size: int = 1, method: str = "sft") -> GroupScores:
    name = ScoreName(method, "sampled", metric, "raw", size, "ngrams")
    return GroupScores(name, tuple(range(len(log_probabilities))), Attributions(log_probabilities))


def with_probabilities(correct: list[float]) -> np.ndarray:
    """Return [1, 2, I, 2] log-probabilities in which both annotators' item i is his own with probability correct_i."""
    p = np.array(correct)
    cells = np.empty((1, 2, len(p), 2))
    cells[0, 0, :, 0], cells[0, 0, :, 1] = np.log(p), np.log(1 - p)
    cells[0, 1, :, 1], cells[0, 1, :, 0] = np.log(p), np.log(1 - p)
    return cells


def test_single_explanations_are_averaged_without_drawing() -> None:
    # Right where p > .5: two of three; probability (.9 + .6 + .3) / 3 = .6.
    cells = with_probabilities([0.9, 0.6, 0.3])
    whole = resampling(3).whole(1)
    assert scores(cells).estimate(whole)[0] == pytest.approx([2 / 3, 2 / 3])
    assert scores(cells, PROBABILITY).estimate(whole)[0] == pytest.approx([0.6, 0.6])


def test_groups_of_all_items_have_one_outcome() -> None:
    # Odds 9, 3/2 and 3/7 multiply to 81/14: probability 81/95.
    cells = with_probabilities([0.9, 0.6, 0.3])
    whole = resampling(3).whole(1)
    assert scores(cells, size=3).estimate(whole)[0] == pytest.approx([1.0, 1.0])
    assert scores(cells, PROBABILITY, size=3).estimate(whole)[0] == pytest.approx([81 / 95] * 2, rel=1e-5)


def test_certain_mistakes_have_probability_zero_not_an_overflow() -> None:
    cells = np.full((1, 2, 20, 2), -1e-9)
    cells[0, 0, :, 0] = -27.6
    estimate = scores(cells, PROBABILITY, size=20).estimate(resampling(20).whole(1))
    assert estimate[0, 0] == pytest.approx(0.0, abs=1e-12)


def test_series_with_too_few_explanations_have_no_figure() -> None:
    cells = with_probabilities([0.9, 0.9, 0.9])
    cells[0, 1, 1:] = NAN
    one = scores(cells, size=2)
    assert one.measured().sum(axis=2).tolist() == [[3, 0]]
    estimate = one.estimate(resampling(3).whole(1))[0]
    assert estimate[0] == 1.0
    assert np.isnan(estimate[1])


def test_seeds_weigh_as_often_as_they_were_drawn() -> None:
    cells = np.concatenate([with_probabilities([0.9] * 4), with_probabilities([0.1] * 4)])  # seed 0 right, seed 1 wrong
    draws = resampling(4).bootstrap(2)
    shares = draws.resamples.seed_counts[:, 0] / 2
    assert scores(cells).estimate(draws)[:, 0] == pytest.approx(shares)


def test_restricting_to_what_is_there_changes_nothing_and_computes_nothing_anew() -> None:
    one = scores(with_probabilities([0.9, 0.6, 0.3]))
    assert one.at_seeds((0,)).only(one.present()).attributions is one.attributions
    fewer = one.only(np.array([True, False, True])[None, None, :] & one.present())
    assert fewer.present().sum() == 4
    assert fewer.estimate(resampling(3).whole(1))[0] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("metric", [ACCURACY, PROBABILITY])
@pytest.mark.parametrize("size", [1, 5])
def test_swapping_finds_a_clear_difference_and_none_between_equals(metric: str, size: int) -> None:
    rng = np.random.default_rng(0)
    good, bad = (with_probabilities(list(np.clip(rng.normal(mean, 0.1, 30), 0.02, 0.98))) for mean in (0.8, 0.3))
    first, second = scores(good, metric, size, "capo"), scores(bad, metric, size)
    assert first.swap_p_value(second, resampling(30)) == pytest.approx(1 / 201)
    assert first.swap_p_value(scores(good.copy(), metric, size), resampling(30)) == 1.0


def test_single_explanations_are_swapped_as_item_averages_are() -> None:
    # For k = 1 accuracy is a mean over items, so that both tests ask the same; they draw different swaps.
    rng = np.random.default_rng(4)
    cells = [np.log(rng.dirichlet([1.0, 1.0], size=(1, 2, 25))) for _ in range(2)]
    of_groups = scores(cells[0]).swap_p_value(scores(cells[1]), resampling(25, n_bootstrap=4000))
    right = [(c.argmax(axis=3) == np.arange(2)[:, None]).astype(float) for c in cells]
    of_items = [ItemScores(ScoreName("sft", None, "x"), (0,), part, np.ones_like(part)) for part in right]
    assert of_groups == pytest.approx(of_items[0].swap_p_value(of_items[1], resampling(25)), abs=0.04)


def test_scores_of_another_kind_or_size_are_refused() -> None:
    one = scores(with_probabilities([0.9, 0.6, 0.3]))
    with pytest.raises(TypeError, match="cannot compare"):
        one.swap_p_value(scores(with_probabilities([0.9, 0.6, 0.3]), size=2), resampling(3))
    averages = ItemScores(one.name, (0,), np.ones((1, 2, 3)), np.ones((1, 2, 3)))
    with pytest.raises(TypeError, match="cannot compare ItemScores with GroupScores"):
        averages.swap_p_value(one, resampling(3))  # type: ignore[arg-type]


def test_slices_that_belong_to_no_seed_cannot_be_taken_for_a_seed() -> None:
    values = np.zeros((2, 1, 3))
    one = ItemScores(ScoreName("human", None, "x"), (), values[:1], np.ones((1, 1, 3)))
    assert one.at_seeds((4, 5)).numerators.shape == (2, 1, 3)
    with pytest.raises(ValueError, match="2 slices that belong to no seed"):
        ItemScores(one.name, (), values, values).at_seeds((4,))
