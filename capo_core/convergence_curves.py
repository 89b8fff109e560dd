"""Curves through figures of growing samples, and how much larger a sample would have to be.

Mean over sub-samples of size n: a + b n^-c, least squares with bounds (an inverse power law, as for learning curves:
Figueroa et al. 2012, *Predicting sample size required for classification performance*). Width of the 95% interval:
d n^-e, a straight line in log-log.

Sub-samples are drawn without replacement from the N units at hand, so near n = N they are all alike and their spread
says nothing of another sample. For a mean the variance is that of independent samples times the finite-population
factor 1 - n / N (Cochran 1977, *Sampling Techniques*, § 2.6; up to a factor of N / (N - 1)), and so it is to first
order for every smooth statistic. The spread is divided by √(1 - n / N) before anything is fitted, and n = N, where
nothing is left of it, is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import norm

from capo_core.statistics.significance import MIN_DEFINED

CONFIDENCE = 0.95
"""Of the intervals whose width is followed; the contract of the tables."""

WIDTH_PER_SD = 2.0 * float(norm.ppf(0.5 + CONFIDENCE / 2.0))
"""Width of a normal 95% interval in standard deviations: quantiles of few sub-samples would be far too narrow."""

N_MEAN_PARAMETERS = 3
N_WIDTH_PARAMETERS = 2

EXPONENTS = (0.25, 2.0)
"""Of the mean's curve; below, the asymptote would lie anywhere."""

MAX_EXTRAPOLATION = 10.0
"""A needed size beyond this multiple of the present one is not stated as a number: the fit does not reach so far."""


@dataclass(frozen=True)
class MeanCurve:
    """a + b n^-c, with the root mean squared error of the fit."""

    asymptote: float
    scale: float
    exponent: float
    rmse: float

    def at(self, n: float) -> float:
        """Return the fitted mean of samples of size n."""
        return self.asymptote + self.scale * n**-self.exponent


@dataclass(frozen=True)
class WidthCurve:
    """d n^-e."""

    scale: float
    exponent: float

    def at(self, n: float) -> float:
        """Return the fitted width of the 95% interval of independent samples of size n."""
        return self.scale * n**-self.exponent

    def size_for(self, width: float) -> float:
        """Return the least n whose interval is no wider than `width`; infinite where the width does not shrink."""
        if self.exponent <= 0:
            return float("inf")
        with np.errstate(over="ignore"):
            return float(np.exp(np.log(self.scale / width) / self.exponent))


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation and quantiles over the sub-samples of one size; NaN where undefined."""

    mean: float
    sd: float
    low: float
    high: float
    n_repeats: int


def summarise(figures: np.ndarray, exhaustive: bool) -> Summary:
    """Return the summary of one size; NaN where fewer than half of the sub-samples have a figure.

    Args:
        figures: [R]; NaN where undefined.
        exhaustive: whether these are all sub-samples there are, so that their deviation is that of a population.
    """
    defined = figures[~np.isnan(figures)]
    nan = float("nan")
    if not defined.size or defined.size < MIN_DEFINED * figures.size:
        return Summary(nan, nan, nan, nan, int(defined.size))
    mean = float(defined.mean())
    if defined.size == 1:
        return Summary(mean, nan, nan, nan, 1)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Summary(mean, float(defined.std(ddof=0 if exhaustive else 1)), float(low), float(high), defined.size)


def correct_spread(spreads: np.ndarray, sizes: np.ndarray, n_pool: int) -> np.ndarray:
    """Return spreads among independent samples from those among sub-samples: s / √(1 - n / N); NaN at n = N.

    Args:
        spreads: [S] standard deviations or other first-order deviations of sub-samples without replacement.
        sizes: [S] n.
        n_pool: N.
    """
    left = 1.0 - np.asarray(sizes, dtype=float) / n_pool
    return np.divide(spreads, np.sqrt(np.maximum(left, 0.0)), out=np.full(len(left), np.nan), where=left > 0)


def fit_mean(sizes: np.ndarray, means: np.ndarray, lowest: float, highest: float) -> MeanCurve | None:
    """Return the curve through the means, or None where there are no more of them than parameters.

    Args:
        sizes: [S] n.
        means: [S]; NaN is left out.
        lowest: the least asymptote possible.
        highest: the greatest.
    """
    known = ~np.isnan(means)
    n, y = np.asarray(sizes, dtype=float)[known], means[known]
    if len(y) <= N_MEAN_PARAMETERS:
        return None
    start = (float(np.clip(y[-1], lowest, highest)), float((y[0] - y[-1]) * n[0] ** 0.5), 0.5)
    bounds = ([lowest, -np.inf, EXPONENTS[0]], [highest, np.inf, EXPONENTS[1]])
    try:
        (a, b, c), _ = curve_fit(lambda x, a, b, c: a + b * x**-c, n, y, p0=start, bounds=bounds, max_nfev=2000)
    except RuntimeError:  # no convergence: nothing is claimed
        return None
    residuals = y - (a + b * n**-c)
    return MeanCurve(float(a), float(b), float(c), float(np.sqrt((residuals**2).mean())))


def fit_width(sizes: np.ndarray, widths: np.ndarray) -> WidthCurve | None:
    """Return the curve through the widths, or None where there are no more positive ones than parameters.

    Args:
        sizes: [S] n.
        widths: [S] already corrected; NaN and 0 (all sub-samples alike) have no logarithm and are left out.
    """
    known = np.nan_to_num(widths) > 0
    if known.sum() <= N_WIDTH_PARAMETERS:
        return None
    slope, intercept = np.polyfit(np.log(np.asarray(sizes, dtype=float)[known]), np.log(widths[known]), 1)
    return WidthCurve(scale=float(np.exp(intercept)), exponent=-float(slope))


def describe_curves(mean: MeanCurve | None, width: WidthCurve | None) -> str | None:
    """Return both formulas with their numbers, or None where neither could be fitted."""
    parts = []
    if mean is not None:
        sign = "-" if mean.scale < 0 else "+"
        parts.append(f"mean = {mean.asymptote:.3f} {sign} {abs(mean.scale):.3g} n^-{mean.exponent:.2f}")
    if width is not None:
        parts.append(f"width = {width.scale:.3g} n^{-width.exponent:.2f}")
    return "; ".join(parts) or None


def needed_size(width: WidthCurve | None, wanted: float, n_now: int) -> int | None:
    """Return the least n whose fitted interval is no wider than `wanted`; None where no trustworthy n is known."""
    if width is None:
        return None
    size = width.size_for(wanted)
    if size > MAX_EXTRAPOLATION * n_now:
        return None
    return int(np.ceil(size * (1.0 - 1e-9)))  # rounding must not ask for one more


def advise(
    width: WidthCurve | None,
    wanted: float,
    n_now: int,
    *,
    what: str,
    units: str,
    units_per_n: float = 1.0,
    widest_seen: float | None = None,
) -> str:
    """Return the sentence that says how many more would bring the interval under the width wanted.

    Args:
        width: fitted curve, or None.
        wanted: width asked for.
        n_now: present n.
        what: whose interval.
        units: what more of is needed, e.g. "annotations per annotator".
        units_per_n: how many of them there are for one of n.
        widest_seen: without a curve, the corrected width among the largest sub-samples, where it is known.
    """
    subject = f"the 95% interval of {what}"
    present = f"the present {round(n_now * units_per_n)} {units}"
    if width is None:
        if widest_seen is not None and widest_seen <= wanted:
            return f"{subject} is under {wanted:.2f} already: {widest_seen:.3f} with fewer than {present}"
        return f"how many more {units} would bring {subject} under {wanted:.2f} cannot be said: too few to fit a curve"
    now = width.at(n_now)
    if now <= wanted:
        return f"{subject} is under {wanted:.2f} already: {now:.3f} with {present}"
    n_needed = needed_size(width, wanted, n_now)
    if n_needed is not None:
        more = _round_up((n_needed - n_now) * units_per_n)
        return f"about {more} more {units} would bring {subject} under {wanted:.2f} (now {now:.3f})"
    if width.exponent <= 0:
        return (
            f"{subject} (now {now:.3f}) did not narrow with more {units}: no number is known to bring it "
            f"under {wanted:.2f}"
        )
    return (
        f"more than {MAX_EXTRAPOLATION:.0f} times {present} would be needed to bring {subject} (now {now:.3f}) "
        f"under {wanted:.2f}: too far for a number"
    )


def _round_up(count: float) -> int:
    """Return a count rounded up to two significant digits, at least 1."""
    whole = max(1, int(np.ceil(count - 1e-9)))
    step = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // step) * step
