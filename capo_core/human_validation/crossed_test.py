"""Is a difference between two methods more than the chance of these items and these raters?

Plain arrays in, plain arrays out.

Notation: R raters, U units (groups of items judged under both methods), D [R, U] the paired differences. The design is
crossed: every rater meets every unit, D_ru = δ + u_u + r_r + e_ru with variances σ_u², σ_r², σ_e². Raters and units are
both drawn from populations that the claim is about (Clark 1973, Journal of Verbal Learning and Verbal Behavior 12;
Westfall, Kenny and Judd 2014, Journal of Experimental Psychology: General 143, the fully crossed design).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class CrossedDifference:
    """A mean difference with its error over units and raters, each field of the shape [...] of what was tested.

    Attributes:
        difference: mean over units of the raters' mean difference.
        standard_error: its standard error; NaN where undefined.
        freedom: Satterthwaite's degrees of freedom.
        p_value: two-sided.
        effect_size: the difference in standard deviations of the units' mean differences (Cohen's d_z).
        n_units: units with a difference.
        n_raters: raters with a difference.
    """

    difference: np.ndarray
    standard_error: np.ndarray
    freedom: np.ndarray
    p_value: np.ndarray
    effect_size: np.ndarray
    n_units: np.ndarray
    n_raters: np.ndarray

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds that belong to the test: difference ∓ t quantile · standard error."""
        margin = stats.t.ppf((1 + confidence) / 2, self.freedom) * self.standard_error
        return self.difference - margin, self.difference + margin


def compare_crossed(differences: np.ndarray) -> CrossedDifference:
    """Return the test of δ = 0 with units and raters random, t = d̄ / √V (quasi-F of Clark 1973, as a t).

    V = V_e + max(V_u - V_e, 0) + max(V_r - V_e, 0): V_u and V_r are the variances of the units' and the raters' means
    over U and R, V_e is the mean square of what neither explains over the number of cells. Every max estimates σ_u²/U
    or σ_r²/R, which are not negative. Degrees of freedom after Satterthwaite (1946) over the terms that are left, with
    U - 1, R - 1 and cells - U - R + 1. Exact for complete D in the balanced normal case up to Satterthwaite's
    approximation; where cells are missing, the means weigh what is there.

    Cutting at 0 makes the test conservative where raters do not differ (3% for 5% with three raters). Two raters are
    too few to say how much raters differ: where they do, 5% become up to 10%.

    A single rater has no variance between raters: the test then is the t test over units and says nothing of other
    raters.

    Args:
        differences: [..., R, U], NaN where a rater did not answer both.

    Returns:
        Fields of shape [...]; NaN where there are fewer than two units or nothing varies but the difference is not 0.
    """
    present = ~np.isnan(differences)
    n_cells = present.sum(axis=(-2, -1)).astype(float)
    unit_means, n_units = _means(differences, present, axis=-2)
    rater_means, n_raters = _means(differences, present, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(unit_means, axis=-1) / n_units
        unit_variance = _variance(unit_means, n_units)
        v_units, v_raters = unit_variance / n_units, _variance(rater_means, n_raters) / n_raters
        residuals = differences - unit_means[..., None, :] - rater_means[..., :, None] + mean[..., None, None]
        freedom_residual = np.maximum(n_cells - n_units - n_raters + 1, 1.0)
        v_residual = np.nansum(residuals**2, axis=(-2, -1)) / freedom_residual / n_cells
    variance, freedom = _add_components(v_units, v_raters, v_residual, n_units, n_raters, freedom_residual)
    variance, freedom = (np.where(n_units > 1, value, np.nan) for value in (variance, freedom))
    error = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_value = 2 * stats.t.sf(np.abs(mean) / error, freedom)
        effect = np.where(unit_variance > 1e-24, mean / np.sqrt(unit_variance), np.nan)
    without_spread = error < 1e-12
    p_value = np.where(without_spread, np.where(np.abs(mean) < 1e-12, 1.0, np.nan), p_value)
    return CrossedDifference(mean, error, freedom, p_value, effect, n_units.astype(int), n_raters.astype(int))


def _means(values: np.ndarray, present: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means along an axis, NaN where nothing is present, and how many of them there are."""
    counts = present.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, np.where(present, values, 0.0).sum(axis=axis) / counts, np.nan)
    return means, (counts > 0).sum(axis=-1).astype(float)


def _variance(means: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the variance with divisor n - 1 of what is defined along the last axis; 0 for a single one."""
    centre = np.nansum(means, axis=-1) / n
    return np.nansum((means - centre[..., None]) ** 2, axis=-1) / np.maximum(n - 1, 1)


def _add_components(
    v_units: np.ndarray,
    v_raters: np.ndarray,
    v_residual: np.ndarray,
    n_units: np.ndarray,
    n_raters: np.ndarray,
    freedom_residual: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the mean and Satterthwaite's degrees of freedom, from the terms that are positive."""
    has_units, has_raters = v_units > v_residual, v_raters > v_residual
    several = n_raters > 1
    # V = [units] V_u + [raters] V_r + (1 - [units] - [raters]) V_e
    weight = 1.0 - has_units - has_raters
    variance = np.where(several, has_units * v_units + has_raters * v_raters + weight * v_residual, v_units)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (
            has_units * v_units**2 / (n_units - 1)
            + has_raters * v_raters**2 / np.maximum(n_raters - 1, 1)
            + weight**2 * v_residual**2 / freedom_residual
        )
        freedom = np.where(several, variance**2 / spread, n_units - 1)
    return variance, np.where(variance > 1e-24, freedom, n_units - 1)
