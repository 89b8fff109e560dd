from __future__ import annotations

import numpy as np
import pytest

from capo_core.human_validation.crossed_test import compare_crossed


def test_units_that_differ_alone_make_the_error() -> None:
    # Unit means 1, 0; rater means 1/2, 1/2; nothing left over. V = V_u = (1/2) / 2 = 1/4, one degree of freedom.
    # t = (1/2) / (1/2) = 1; Student's t with 1 degree is Cauchy: p = 2 (1/2 - arctan(1) / pi) = 1/2.
    found = compare_crossed(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert (found.difference, found.standard_error, found.freedom) == (0.5, 0.5, 1.0)
    assert found.p_value == pytest.approx(0.5)
    # Cohen's d_z: the unit means' standard deviation is sqrt(1/2).
    assert found.effect_size == pytest.approx(0.5 / np.sqrt(0.5))
    assert (found.n_units, found.n_raters) == (2, 2)


def test_raters_add_their_own_error() -> None:
    # Unit means 3/2, 1/2 and rater means 3/2, 1/2, additive: V = 1/4 + 1/4, freedom (1/2)² / (1/16 + 1/16) = 2,
    # t = 1 / sqrt(1/2) = sqrt(2); for 2 degrees p = 1 - t / sqrt(2 + t²) = 1 - sqrt(1/2).
    found = compare_crossed(np.array([[2.0, 1.0], [1.0, 0.0]]))
    assert found.standard_error == pytest.approx(np.sqrt(0.5))
    assert found.freedom == pytest.approx(2.0)
    assert found.p_value == pytest.approx(1 - np.sqrt(0.5))
    # The quantile of t with 2 degrees at .975 is .95 sqrt(2 / (1 - .95²)) = 4.3027.
    low, high = found.interval(0.95)
    assert (low, high) == (
        pytest.approx(1 - 4.3027 * np.sqrt(0.5), abs=1e-4),
        pytest.approx(1 + 4.3027 * np.sqrt(0.5), abs=1e-4),
    )


def test_what_is_no_more_than_noise_is_not_counted_twice() -> None:
    # Unit and rater means 1/2, 0; residuals ±1/4: V_e = (4/16) / 1 / 4 = 1/16 = V_u = V_r, so V = 1/16, one degree.
    found = compare_crossed(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert (found.difference, found.standard_error, found.freedom) == (0.25, 0.25, 1.0)


def test_a_single_rater_leaves_the_t_test_over_units() -> None:
    # Mean 1/3, variance 1/3, error sqrt(1/9); t = 1 with 2 degrees: p = 1 - 1 / sqrt(3).
    found = compare_crossed(np.array([[1.0, 0.0, 0.0]]))
    assert found.freedom == 2
    assert found.p_value == pytest.approx(1 - 1 / np.sqrt(3))


def test_cells_may_be_missing() -> None:
    found = compare_crossed(np.array([[1.0, 0.0, np.nan], [1.0, np.nan, np.nan]]))
    # Unit means 1 and 0; the third unit and nobody else is left out.
    assert (found.difference, found.n_units, found.n_raters) == (0.5, 2, 2)
    assert np.isfinite(found.p_value)


@pytest.mark.parametrize("differences", [np.full((2, 3), np.nan), np.zeros((0, 0)), np.array([[1.0], [0.0]])])
def test_fewer_than_two_units_are_no_test(differences: np.ndarray) -> None:
    assert np.isnan(compare_crossed(differences).p_value)


def test_no_difference_at_all_is_certain_and_no_spread_is_undefined() -> None:
    assert compare_crossed(np.zeros((3, 4))).p_value == 1.0
    assert np.isnan(compare_crossed(np.ones((3, 4))).p_value)


def simulate(
    rng: np.random.Generator, n: int, n_raters: int, n_units: int, *, preference: float, rater_spread: float
) -> np.ndarray:
    """Return paired differences of simulated raters, [n, R, U]: right answers to one method less those to the other.

    On the logit scale raters differ in skill (SD .5), every text in how well it can be placed (SD 1), raters in how
    much they prefer the first method, and the preference is what the first method has over the second.
    """
    skill = rng.normal(0, 0.5, (n, n_raters, 1))
    taste = rng.normal(preference, rater_spread, (n, n_raters, 1)) if rater_spread else preference
    placed = [rng.normal(0, 1, (n, 1, n_units)) for _ in range(2)]
    answers = [
        rng.random((n, n_raters, n_units)) < 1 / (1 + np.exp(-(skill + text + shift)))
        for text, shift in zip(placed, (taste, 0.0), strict=True)
    ]
    return answers[0].astype(float) - answers[1]


@pytest.mark.parametrize(
    ("n_raters", "n_units", "rater_spread"), [(1, 16, 0.0), (3, 48, 0.4), (5, 24, 0.0), (8, 32, 0.0), (8, 48, 0.4)]
)
def test_without_a_preference_five_percent_come_out_significant(
    n_raters: int, n_units: int, rater_spread: float
) -> None:
    rng = np.random.default_rng(n_raters)
    differences = simulate(rng, 1000, n_raters, n_units, preference=0.0, rater_spread=rater_spread)
    share = (compare_crossed(differences).p_value < 0.05).mean()
    assert 0.03 <= share <= 0.07


def test_few_raters_and_tasks_make_the_test_conservative_not_liberal() -> None:
    differences = simulate(np.random.default_rng(2), 1000, 3, 16, preference=0.0, rater_spread=0.0)
    assert 0.01 <= (compare_crossed(differences).p_value < 0.05).mean() <= 0.05


def test_a_planted_preference_is_recovered() -> None:
    rng = np.random.default_rng(7)
    differences = simulate(rng, 1000, 5, 48, preference=1.0, rater_spread=0.2)
    # The true difference: mean over many texts, raters and answers drawn apart.
    truth = simulate(np.random.default_rng(8), 200, 50, 500, preference=1.0, rater_spread=0.2).mean()
    found = compare_crossed(differences)
    low, high = found.interval(0.95)
    assert found.difference.mean() == pytest.approx(truth, abs=0.01)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.98
    assert (found.p_value < 0.05).mean() > 0.75


def test_missing_answers_keep_the_level() -> None:
    rng = np.random.default_rng(3)
    differences = simulate(rng, 1000, 5, 24, preference=0.0, rater_spread=0.0)
    differences[rng.random(differences.shape) < 0.25] = np.nan
    assert 0.03 <= (compare_crossed(differences).p_value < 0.05).mean() <= 0.07
