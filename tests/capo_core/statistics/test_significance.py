"""Bootstrap intervals and paired permutation tests, against arithmetic and in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from capo_core.statistics.significance import (
    Resamples,
    bootstrap_interval,
    bootstrap_p_value,
    draw_resamples,
    draw_swaps,
    effect_size,
    hierarchical_ratios,
    mean_of_defined,
    mean_over_seeds,
    p_value_of_null_draws,
    paired_permutation_test,
    percentile_interval,
    resample_counts,
    seeds_and_items_p_value,
    whole_sample,
)

NAN = float("nan")


def test_every_resample_draws_as_many_units_as_there_are() -> None:
    counts = resample_counts(7, 50, np.random.default_rng(0))
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == 0).any()  # with replacement: some unit is left out of some resample


def test_resamples_of_items_do_not_depend_on_the_number_of_seeds() -> None:
    one, three = draw_resamples(10, 1, 20, seed=5), draw_resamples(10, 3, 20, seed=5)
    assert (one.item_counts == three.item_counts).all()
    assert (one.seed_counts == 1).all()
    assert (three.seed_counts.sum(axis=1) == 3).all()


def test_ratio_weighs_items_and_seeds_by_how_often_they_were_drawn() -> None:
    # One annotator, seeds s0 (values 1, 0) and s1 (values 0, 1), item weights 2, 1, seed weights 2, 0:
    # only s0 counts: (2·1 + 1·0) / (2 + 1) = 2/3.
    values = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    resamples = Resamples(item_counts=np.array([[2, 1]]), seed_counts=np.array([[2, 0]]))
    assert hierarchical_ratios(values, np.ones_like(values), resamples) == pytest.approx(np.array([[2 / 3]]))


def test_ratio_of_sums_is_not_the_mean_of_ratios() -> None:
    # (2 + 3) / (1 + 4) = 1, while the ratios are 2 and 3/4.
    numerators, denominators = np.array([[[2.0, 3.0]]]), np.array([[[1.0, 4.0]]])
    assert hierarchical_ratios(numerators, denominators, whole_sample(2, 1))[0, 0] == pytest.approx(1.0)


def test_annotator_without_values_has_no_ratio() -> None:
    values = np.array([[[1.0, 1.0], [0.0, 0.0]]])
    ratios = hierarchical_ratios(values, np.array([[[1.0, 1.0], [0.0, 0.0]]]), whole_sample(2, 1))
    assert ratios[0, 0] == 1.0
    assert np.isnan(ratios[0, 1])


def test_mean_over_seeds_weighs_those_with_a_value_by_how_often_they_were_drawn() -> None:
    # Seed 1 drawn once, seed 2 twice, seed 3 never. First annotator (4 + 2 · 1) / 3 = 2; of the second seed 1 has
    # nothing, so 5; the third has a value for the undrawn seed only.
    by_seed = np.array([[[4.0, NAN, NAN], [1.0, 5.0, NAN], [9.0, 9.0, 9.0]]])
    resamples = Resamples(np.ones((1, 4), dtype=int), np.array([[1, 2, 0]]))
    assert mean_over_seeds(by_seed, resamples)[0] == pytest.approx([2.0, 5.0, NAN], nan_ok=True)


def test_swaps_leave_the_observed_first_and_change_half_of_the_places_after_it() -> None:
    swaps = draw_swaps(50, 400, np.random.default_rng(0))
    assert swaps.shape == (401, 50)
    assert not swaps[0].any()
    assert swaps[1:].mean() == pytest.approx(0.5, abs=0.02)  # sd √(.25 / 20 000) = .0035


def test_percentile_interval_cuts_both_tails() -> None:
    # 0 … 100: 90% leaves 5 on either side.
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_percentile_interval_leaves_out_undefined_resamples_up_to_half() -> None:
    assert percentile_interval(np.array([1.0, 1.0, NAN, NAN]), 0.95) == (1.0, 1.0)
    assert np.isnan(percentile_interval(np.array([1.0, NAN, NAN]), 0.95)).all()
    assert np.isnan(percentile_interval(np.array([]), 0.95)).all()


def test_interval_of_a_constant_has_no_width() -> None:
    assert bootstrap_interval(np.full(9, 0.4), seed=1) == pytest.approx((0.4, 0.4))


def test_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    # 200 zeros and 200 ones: sd of the mean = 0.5 / √400 = 0.025, so 95% is 0.5 ± 1.96 · 0.025 = 0.5 ± 0.049.
    low, high = bootstrap_interval(np.repeat([0.0, 1.0], 200), n_bootstrap=4000, seed=1)
    assert low == pytest.approx(0.451, abs=0.004)
    assert high == pytest.approx(0.549, abs=0.004)


def test_interval_ignores_missing_values_and_is_undefined_without_any() -> None:
    assert bootstrap_interval(np.array([2.0, NAN, 2.0]), seed=1) == (2.0, 2.0)
    assert np.isnan(bootstrap_interval(np.array([NAN]), seed=1)).all()


def test_seeds_that_disagree_widen_the_interval() -> None:
    # Seed 0 always 0, seed 1 always 1. Of two drawn seeds the mean is 0, .5 or 1 with probability 1/4, 1/2, 1/4:
    # the 95% interval is [0, 1], though no item varies.
    values = np.stack([np.zeros((1, 6)), np.ones((1, 6))])
    replicates = hierarchical_ratios(values, np.ones_like(values), draw_resamples(6, 2, 2000, seed=3))[:, 0]
    assert percentile_interval(replicates, 0.95) == (0.0, 1.0)
    assert np.mean(replicates == 0.5) == pytest.approx(0.5, abs=0.05)


def test_repeating_the_same_outcome_under_more_seeds_adds_no_certainty_about_items() -> None:
    # Three identical seeds hold one item's worth of information per item, not three.
    items = np.random.default_rng(0).random((1, 1, 12))
    one = hierarchical_ratios(items, np.ones_like(items), draw_resamples(12, 1, 300, seed=2))
    three = np.repeat(items, 3, axis=0)
    assert hierarchical_ratios(three, np.ones_like(three), draw_resamples(12, 3, 300, seed=2)) == pytest.approx(one)


def test_mean_is_over_the_parts_the_first_replicate_has() -> None:
    # Part 2 is not measured at all: mean of the others. In the second replicate part 1 is undefined: no mean.
    replicates = np.array([[1.0, 3.0, NAN], [1.0, NAN, NAN], [2.0, 6.0, 9.0]])
    means = mean_of_defined(replicates)
    assert means[[0, 2]] == pytest.approx([2.0, 4.0])
    assert np.isnan(means[1])


@pytest.mark.parametrize(
    ("contributions", "expected"),
    [
        # 8 sign patterns; only + + + and - - - reach |sum| = 3: 2/8.
        ([1.0, 1.0, 1.0], 0.25),
        # sums 4, 2, -2, -4: two of four reach 4.
        ([3.0, 1.0], 0.5),
        # the observed sum is 0, every pattern reaches it.
        ([1.0, -1.0], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        # one item: its sign could as well be the other.
        ([5.0], 1.0),
        # five items of one sign: 2/32.
        ([0.1, 0.2, 0.3, 0.4, 0.5], 2 / 32),
    ],
)
def test_permutation_p_value_counts_sign_patterns(contributions: list[float], expected: float) -> None:
    assert paired_permutation_test(np.array(contributions), seed=0) == pytest.approx(expected)


def test_permutation_p_value_is_undefined_without_items() -> None:
    assert np.isnan(paired_permutation_test(np.array([]), seed=0))


def test_p_value_of_drawn_permutations_counts_the_observed_one() -> None:
    # |3| and |-2| are at least |2|, |1| is not: (1 + 2) / (1 + 3).
    assert p_value_of_null_draws(2.0, np.array([3.0, -2.0, 1.0])) == pytest.approx(0.75)
    assert p_value_of_null_draws(2.0, np.array([NAN, 0.0])) == pytest.approx(0.5)
    assert np.isnan(p_value_of_null_draws(NAN, np.array([1.0])))


def test_bootstrap_p_value_doubles_the_share_beyond_zero() -> None:
    # One of four at or below 0: 2 (1 + 1) / (1 + 4).
    assert bootstrap_p_value(np.array([1.0, 2.0, 3.0, -1.0])) == pytest.approx(0.8)
    # None of 99: 2 · 1 / 100.
    assert bootstrap_p_value(np.ones(99)) == pytest.approx(0.02)
    assert bootstrap_p_value(np.zeros(10)) == 1.0
    assert np.isnan(bootstrap_p_value(np.array([1.0, NAN, NAN])))


def simulate_p_values(
    n_simulations: int, n_seeds: int, n_items: int, *, shift: float = 0.0, between_seeds: float = 0.0
) -> np.ndarray:
    """Return the three p-values of simulated paired differences, [n, 3]: swapped items, bootstrap, seeds and items."""
    rng = np.random.default_rng(0)
    p_values = np.full((n_simulations, 3), NAN)
    for k in range(n_simulations):
        seeds = between_seeds * rng.standard_normal((n_seeds, 1, 1))
        cells = shift + seeds + rng.standard_normal((n_seeds, 1, n_items)) * rng.uniform(0.5, 1.5, n_items)
        draws = draw_resamples(n_items, n_seeds, 199, seed=k)
        over_all = hierarchical_ratios(cells, np.ones_like(cells), draws)[:, 0]
        p_values[k, 0] = paired_permutation_test(cells.mean(axis=(0, 1)), seed=k, n_permutations=499)
        p_values[k, 1] = bootstrap_p_value(over_all)
        if n_seeds > 1:
            held = Resamples(draws.item_counts, np.ones_like(draws.seed_counts))
            over_items = hierarchical_ratios(cells, np.ones_like(cells), held)[:, 0]
            by_seed = cells.mean(axis=(1, 2))
            p_values[k, 2] = seeds_and_items_p_value(float(cells.mean()), over_items, by_seed, n_items)
    return p_values


def test_tests_of_one_seed_reject_a_true_null_in_three_to_seven_per_cent() -> None:
    # 1000 experiments of 60 items: at a true rate of .05 the share is .05 ± .007.
    swapped, bootstrapped, _ = (simulate_p_values(1000, 1, 60) < 0.05).mean(axis=0)
    assert 0.03 <= swapped <= 0.07
    assert 0.03 <= bootstrapped <= 0.07


def test_swapping_takes_the_trained_seeds_as_given_and_the_reported_p_does_not() -> None:
    # Trainings differ as much as one item does, which items do not tell: swapping rejects nearly always, and three
    # seeds agree in sign, so that the bootstrap rejects, in a quarter of the cases. The greatest p holds its level.
    p_values = simulate_p_values(400, 3, 60, between_seeds=1.0)
    assert (p_values[:, 0] < 0.05).mean() > 0.5
    assert (p_values[:, 1] < 0.05).mean() > 0.15
    assert (p_values.max(axis=1) < 0.05).mean() <= 0.07


def test_where_seeds_do_not_differ_the_reported_p_is_cautious() -> None:
    assert (simulate_p_values(400, 3, 60).max(axis=1) < 0.05).mean() <= 0.05


def test_planted_differences_are_found() -> None:
    # Of .5 SD of an item's difference on 60 items, t = .5 √60 = 3.9; with three seeds whose mean has 1/√3 of the noise.
    assert (np.nanmax(simulate_p_values(100, 1, 60, shift=0.5), axis=1) < 0.05).mean() > 0.9
    assert (simulate_p_values(100, 3, 60, shift=0.5, between_seeds=0.05).max(axis=1) < 0.05).mean() > 0.9


def test_p_of_seeds_and_items_is_students_t_with_satterthwaites_degrees_of_freedom() -> None:
    # Items: variance of (0, 2) with n - 1 is 2. Seeds 1, 2, 3: variance 1, over 3 seeds 1/3. t = 2 / √(7/3) = 1.309;
    # df = (7/3)² / (4/9 + (1/9)/2) = 5.444 / .5 = 10.89. From tables, P(|t_10.89| > 1.309) = .217.
    p_value = seeds_and_items_p_value(2.0, np.array([1.0, 3.0, NAN]), np.array([1.0, 2.0, 3.0]), 10)
    assert p_value == pytest.approx(2 * stats.t.sf(2 / np.sqrt(7 / 3), (7 / 3) ** 2 / 0.5))
    assert p_value == pytest.approx(0.217, abs=0.002)


def test_p_of_seeds_and_items_is_undefined_for_one_seed_and_one_for_no_difference() -> None:
    assert np.isnan(seeds_and_items_p_value(1.0, np.array([1.0, 2.0]), np.array([1.0]), 5))
    assert np.isnan(seeds_and_items_p_value(1.0, np.array([NAN, NAN]), np.array([1.0, 2.0]), 5))
    assert seeds_and_items_p_value(0.0, np.zeros(9), np.zeros(3), 5) == 1.0
    assert seeds_and_items_p_value(0.5, np.full(9, 0.5), np.full(3, 0.5), 5) == 0.0


def test_effect_size_is_the_difference_over_root_n_standard_errors() -> None:
    # SD of (1, 3) with divisor 2 is 1; n = 4: 2 / (2 · 1) = 1.
    assert effect_size(2.0, np.array([1.0, 3.0]), 4) == pytest.approx(1.0)
    assert np.isnan(effect_size(2.0, np.array([2.0, 2.0]), 4))
    assert np.isnan(effect_size(2.0, np.array([1.0, NAN, NAN]), 4))
    assert np.isnan(effect_size(2.0, np.array([1.0, 3.0]), 1))


def test_permutation_test_finds_a_difference_of_one_standard_deviation() -> None:
    rng = np.random.default_rng(1)
    p_values = [paired_permutation_test(rng.normal(1.0, 1.0, 20), seed=k, n_permutations=499) for k in range(50)]
    assert np.mean(np.array(p_values) < 0.05) > 0.9


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    # 300 samples of 40 skewed values with mean 1. Percentile intervals of skewed means fall a little short of 95%.
    rng = np.random.default_rng(2)
    held = 0
    for k in range(300):
        low, high = bootstrap_interval(rng.exponential(1.0, 40), n_bootstrap=300, seed=k)
        held += low <= 1.0 <= high
    assert 0.88 <= held / 300 <= 0.98
