"""How sure a figure is: bootstrap intervals over items and seeds, and paired permutation tests.

Pure statistics: arrays in, arrays out, no notion of a method or a metric.

Notation: B resamples, S seeds, A annotators, I items.

Items are what was drawn from a population, so items are resampled; a resample of an item takes every annotation and
every generation of it along (a cluster bootstrap). Where there are several seeds (trainings and samplings), seeds are
resampled as well. Every seed meets the same items, so one draw of items serves all drawn seeds (items and seeds are
crossed: Owen 2007, *The pigeonhole bootstrap*, arXiv 0712.1111); drawing items anew within each seed would treat one
hard item as several. Annotators are the people asked about, not a sample, and are never resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

N_PERMUTATIONS = 9999
"""Sign patterns drawn for a permutation test; all patterns are used where there are no more than this many."""

MIN_DEFINED = 0.5
"""An interval is given only where at least this share of the resamples has a value."""


@dataclass(frozen=True)
class Resamples:
    """How often each item and each seed stands in each resample.

    Attributes:
        item_counts: [B, I] non-negative integers, every row summing to I.
        seed_counts: [B, S] non-negative integers, every row summing to S.
    """

    item_counts: np.ndarray
    seed_counts: np.ndarray


def resample_counts(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `n` units is drawn in each of `n_resamples` draws of n with replacement, [B, n]."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=n_resamples)


def draw_resamples(n_items: int, n_seeds: int, n_resamples: int, seed: int) -> Resamples:
    """Return the bootstrap resamples of items and of seeds.

    Items and seeds are drawn from streams of their own, so that everything measured on the same items with the same
    `seed` meets the same resamples of items: differences between methods are paired. One seed is never resampled.

    Args:
        n_items: items to draw from, at least 1.
        n_seeds: seeds to draw from, at least 1. Few seeds understate the spread between seeds by (S - 1) / S; p-values
            of differences allow for it (`seeds_and_items_p_value`).
        n_resamples: B.
        seed: of the draws.
    """
    items = resample_counts(n_items, n_resamples, np.random.default_rng([seed, 0]))
    seeds = resample_counts(n_seeds, n_resamples, np.random.default_rng([seed, 1]))
    return Resamples(item_counts=items, seed_counts=seeds)


def whole_sample(n_items: int, n_seeds: int) -> Resamples:
    """Return the one "resample" in which every item and every seed stands once: it gives the point estimate."""
    return Resamples(item_counts=np.ones((1, n_items), dtype=int), seed_counts=np.ones((1, n_seeds), dtype=int))


def hierarchical_ratios(numerators: np.ndarray, denominators: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Return every resample's ratio per annotator: with weights w, Σ w_s w_i num_sai / Σ w_s w_i den_sai.

    A mean over cells that may be missing is such a ratio, with denominator 1 where there is a value and 0 elsewhere.

    Args:
        numerators: [S, A, I]; 0 where the denominator is 0.
        denominators: [S, A, I], non-negative.
        resamples: weights of items and seeds.

    Returns:
        [B, A]; NaN where a resample has no value of that annotator.
    """
    totals = [_weighted_totals(values, resamples) for values in (numerators, denominators)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(totals[1] > 0, totals[0] / totals[1], np.nan)


def _weighted_totals(values: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Return Σ_s Σ_i w_s w_i values_sai, [B, A]."""
    n_seeds, n_annotators, n_items = values.shape
    by_item = values.reshape(-1, n_items).astype(float)
    over_items = (resamples.item_counts @ by_item.T).reshape(-1, n_seeds, n_annotators)
    return np.einsum("bs,bsa->ba", resamples.seed_counts, over_items)


def mean_over_seeds(by_seed: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Return Σ_s w_s x_bsa / Σ_s w_s over the seeds that have a value, [B, S, A] -> [B, A]; NaN where none has.

    For figures that are no ratio of sums over items. Weights are the seeds' multiplicities.
    """
    weights = resamples.seed_counts[:, :, None] * ~np.isnan(by_seed)
    totals = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(totals > 0, (np.nan_to_num(by_seed) * weights).sum(axis=1) / totals, np.nan)


def mean_of_defined(replicates: np.ndarray) -> np.ndarray:
    """Return the mean along axis 1 of what is defined in the first replicate, [B, n, ...] -> [B, ...].

    The first replicate says which of the n parts were measured at all. A replicate in which one of these is undefined
    (NaN) has no mean: another set of parts would be another quantity. NaN also where no part was measured.
    """
    measured = ~np.isnan(replicates[:1])
    n_measured = measured.sum(axis=1)
    totals = np.where(measured, replicates, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_measured > 0, totals / n_measured, np.nan)


def percentile_interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Resamples without a value (NaN) are left out; where fewer than half have one, both bounds are NaN.

    Args:
        replicates: [B] the statistic in every resample.
        confidence: in (0, 1), e.g. 0.95.
    """
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0 or defined.size < MIN_DEFINED * replicates.size:
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return float(low), float(high)


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = 0.95, n_bootstrap: int = 1000, seed: int
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values`, [n], NaN being missing; NaN if all are."""
    present = ~np.isnan(values)
    if not present.any():
        return float("nan"), float("nan")
    cells = np.where(present, values, 0.0)[None, None, :]
    resamples = draw_resamples(len(values), 1, n_bootstrap, seed)
    return percentile_interval(hierarchical_ratios(cells, present[None, None, :], resamples)[:, 0], confidence)


def paired_permutation_test(contributions: np.ndarray, *, seed: int, n_permutations: int = N_PERMUTATIONS) -> float:
    """Return the two-sided p-value of a paired permutation test: the two methods are swapped item by item.

    Swapping the methods on item i turns the sign of what the item contributes to the difference, so the null
    distribution is that of Σ ±c_i (Fisher 1935, *The Design of Experiments*, § 21). All 2^I sign patterns are used
    where they are at most `n_permutations`; else as many are drawn and p = (1 + as extreme) / (1 + drawn). Under no
    difference the items' contributions are symmetric about 0; seeds and annotators are taken as given.

    Args:
        contributions: [I] what each item contributes to the difference, seeds and annotators already averaged.
        seed: of the sign patterns drawn.
        n_permutations: sign patterns at most.

    Returns:
        p in (0, 1]; NaN without items. With I items p cannot fall below 2 / 2^I.
    """
    if contributions.size == 0:
        return float("nan")
    if contributions.size == 1:
        return 1.0  # the sign of a single item turns with equal right; nothing can be significant
    rng = np.random.default_rng(seed)
    if 2.0**contributions.size > n_permutations:
        signs = np.where(rng.random((n_permutations, contributions.size)) < 0.5, -1.0, 1.0)
        return p_value_of_null_draws(float(contributions.sum()), signs @ contributions)
    result = stats.permutation_test(
        (contributions,),
        lambda sample, axis: np.sum(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_permutations,
        alternative="two-sided",
    )
    return float(result.pvalue)


def bootstrap_p_value(replicates: np.ndarray) -> float:
    """Return the two-sided p-value that inverts the percentile interval: the share of resamples beyond 0, doubled.

    p = 2 (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (1 + B), at most 1. Resamples without a value are left out; NaN where fewer
    than half have one, as for the interval.
    """
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0 or defined.size < MIN_DEFINED * replicates.size:
        return float("nan")
    n_beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + n_beyond) / (1 + defined.size))


def seeds_and_items_p_value(difference: float, over_items: np.ndarray, by_seed: np.ndarray, n_items: int) -> float:
    """Return the two-sided p-value of a difference with seeds as well as items taken as drawn at random.

    t = d / √(V_items + V_seeds), V_items the variance of d over resamples of items with the seeds held, V_seeds that of
    the S seeds' differences over S; two-sided against Student's t with Satterthwaite's degrees of freedom
    (V_items + V_seeds)² / (V_items² / (I - 1) + V_seeds² / (S - 1)) (Satterthwaite 1946, Biometrics Bulletin 2).
    Where trainings differ, the few seeds set the degrees of freedom; three seeds that happen to agree in sign, which
    they do in one case of four without any difference, are not enough, while every resample of them agrees as well.
    Chance within a seed is in both variances, so that p is too great, if anything, where seeds differ by no more.

    Args:
        difference: d, of the whole sample.
        over_items: [B] the difference in every resample of items, seeds held; NaN is left out.
        by_seed: [S] the difference at every seed alone.
        n_items: I.

    Returns:
        p in [0, 1]; NaN where undefined: fewer than two seeds or items, a seed without a figure, or too few resamples.
    """
    defined = over_items[~np.isnan(over_items)]
    enough = defined.size > 0 and defined.size >= MIN_DEFINED * over_items.size
    if not enough or len(by_seed) < 2 or n_items < 2 or np.isnan(by_seed).any():
        return float("nan")
    variances = np.array([defined.var(ddof=1), by_seed.var(ddof=1) / len(by_seed)])
    if variances.sum() < 1e-24:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    freedom = variances.sum() ** 2 / (variances**2 / np.array([n_items - 1, len(by_seed) - 1])).sum()
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(variances.sum()), freedom))


def effect_size(difference: float, replicates: np.ndarray, n_items: int) -> float:
    """Return the difference in standard deviations of an item's difference, from its bootstrap over items.

    d = difference / (√n · SE), SE the standard deviation of the difference over resamples of the n items. A mean of
    item differences has SE = SD / √n, so that this is Cohen's d_z (Cohen 1988, § 2.3.5; SD with divisor n) up to the
    error of B resamples, 1 / √(2B) of itself. Figures that are no means (F1, attribution of groups, distances of
    distributions) have no difference of a single item; the same ratio puts them on the same scale: how sure n items
    make the difference.

    Args:
        difference: of the whole sample.
        replicates: [B] the difference in every resample of items, seeds held; NaN is left out.
        n_items: n.

    Returns:
        d; NaN where undefined: no interval's worth of resamples, or no spread between items.
    """
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0 or defined.size < MIN_DEFINED * replicates.size or n_items < 2:
        return float("nan")
    spread = float(np.sqrt(n_items) * defined.std())
    return difference / spread if spread > 1e-12 else float("nan")


def draw_swaps(n_items: int, n_swaps: int, rng: np.random.Generator) -> np.ndarray:
    """Return on which items two methods change places, [1 + R, I] booleans; on none in the first: what was observed."""
    swaps = rng.random((1 + n_swaps, n_items)) < 0.5
    swaps[0] = False
    return swaps


def p_value_of_null_draws(observed: float, null_draws: np.ndarray) -> float:
    """Return p = (1 + |null| as great as |observed|) / (1 + drawn), ties (to rounding) counting as as great.

    Draws without a value (NaN) are left out; NaN where `observed` is NaN or no draw has a value.
    """
    drawn = null_draws[~np.isnan(null_draws)]
    if np.isnan(observed) or drawn.size == 0:
        return float("nan")
    n_as_extreme = int(np.count_nonzero(np.abs(drawn) >= abs(observed) - 1e-12))
    return (1 + n_as_extreme) / (1 + drawn.size)
