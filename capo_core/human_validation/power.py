"""How many tasks and raters it takes to see a difference between two methods.

The plan is the test's (`crossed_test`): R raters each judge U units (groups of items) under both methods, and
D_ru = δ + u_u + r_r + e_ru. The mean of D has the variance σ_u²/U + σ_r²/R + σ_e²/(UR), the noncentrality is
δ / √variance, and the power is that of a t test with Satterthwaite's degrees of freedom (Westfall, Kenny and Judd
2014, *Statistical power and optimal design in experiments in which samples of participants respond to samples of
stimuli*, Journal of Experimental Psychology: General 143, fully crossed design, written for paired differences).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

MAX_TASKS = 100_000
"""More tasks than this are no plan."""


@dataclass(frozen=True)
class DifferenceVariance:
    """Variance components of a paired difference of two rates.

    Attributes:
        item: σ_u², between units: how much more one text is its author's than the other's, from unit to unit.
        rater: σ_r², between raters: some see the difference between the methods better than others.
        residual: σ_e², everything else, guessing included.
    """

    item: float
    rater: float
    residual: float


def plan_variance(rate: float = 0.5, item_share: float = 0.2, rater_share: float = 0.02) -> DifferenceVariance:
    """Return components to plan with, before anything was rated.

    An answer is right or wrong, so that the difference of two independent answers with the same rate p varies by
    2 p (1 - p), at most .5 at p = .5. The shares are assumptions: a fifth of it from unit to unit, a fiftieth from
    rater to rater.

    Raises:
        ValueError: if `rate` is not between 0 and 1 or the shares are negative or exceed 1 together.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate {rate} is not between 0 and 1: give the share of right answers that is expected")
    if min(item_share, rater_share) < 0 or item_share + rater_share > 1:
        raise ValueError(f"shares {item_share} and {rater_share} are negative or exceed 1 together: lower them")
    total = 2 * rate * (1 - rate)
    return DifferenceVariance(item_share * total, rater_share * total, (1 - item_share - rater_share) * total)


PLANNED = plan_variance()


def power_of_test(
    difference: float, n_tasks: int, n_raters: int, variance: DifferenceVariance = PLANNED, *, alpha: float = 0.05
) -> float:
    """Return the probability that the two-sided test at level `alpha` finds a true `difference` of rates.

    Args:
        difference: δ, in shares of right answers.
        n_tasks: U, units rated under each of the two methods, at least 2.
        n_raters: R; with one the result is about that rater alone and σ_r² does not enter.
        variance: of the paired difference.
        alpha: level of the test.

    Raises:
        ValueError: if there are fewer than two tasks or no rater.
    """
    if n_tasks < 2 or n_raters < 1:
        raise ValueError(f"{n_tasks} tasks and {n_raters} raters: a test needs at least 2 tasks and 1 rater")
    error, freedom = _plan_error(n_tasks, n_raters, variance)
    limit = stats.t.ppf(1 - alpha / 2, freedom)
    shift = abs(difference) / error
    # Far from 0 the noncentral t is known to scipy as NaN only: the other side's tail is nothing there.
    tails = stats.nct.sf(limit, freedom, shift), stats.nct.cdf(-limit, freedom, shift)
    return float(np.nan_to_num(tails[0], nan=float(shift > limit)) + np.nan_to_num(tails[1], nan=0.0))


def detectable_difference(
    n_tasks: int,
    n_raters: int,
    variance: DifferenceVariance = PLANNED,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float | None:
    """Return the smallest difference of rates that is found with probability `power`; None if not even 1 would be.

    Args: see `power_of_test`.

    Raises:
        ValueError: see `power_of_test`.
    """

    def excess(difference: float) -> float:
        return power_of_test(difference, n_tasks, n_raters, variance, alpha=alpha) - power

    return optimize.root_scalar(excess, bracket=(0.0, 1.0), xtol=1e-6).root if excess(1.0) > 0 else None


def required_tasks(
    difference: float,
    n_raters: int,
    variance: DifferenceVariance = PLANNED,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int | None:
    """Return the fewest units per method with which `difference` is found with probability `power`.

    More units do not make up for too few raters: σ_r²/R stays. None where `MAX_TASKS` units would not do.

    Args: see `power_of_test`; difference is not 0.

    Raises:
        ValueError: if `difference` is 0; see also `power_of_test`.
    """
    if difference == 0:
        raise ValueError("no number of tasks detects a difference of 0: give the smallest difference that matters")

    def is_enough(n_tasks: int) -> bool:
        return power_of_test(difference, n_tasks, n_raters, variance, alpha=alpha) >= power

    low, high = 1, 2
    while not is_enough(high):
        if high >= MAX_TASKS:
            return None
        low, high = high, min(2 * high, MAX_TASKS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _plan_error(n_tasks: int, n_raters: int, variance: DifferenceVariance) -> tuple[float, float]:
    """Return the expected standard error of the mean difference and Satterthwaite's degrees of freedom."""
    if n_raters == 1:
        return float(np.sqrt((variance.item + variance.residual) / n_tasks)), n_tasks - 1.0
    residual = variance.residual / (n_tasks * n_raters)
    units, raters = variance.item / n_tasks + residual, variance.rater / n_raters + residual
    total = units + raters - residual
    spread = units**2 / (n_tasks - 1) + raters**2 / (n_raters - 1) + residual**2 / ((n_tasks - 1) * (n_raters - 1))
    return float(np.sqrt(total)), total**2 / spread
