"""Means over groups with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; all three None where there was nothing to average."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


def mean_of_means(
    strata: Sequence[Sequence[float]], rng: np.random.Generator, *, n_bootstrap: int, confidence: float
) -> Estimate:
    """Return the mean over strata of each stratum's mean, with a percentile bootstrap interval.

    value = 1/S · Σ_s mean(x_s); each replicate draws len(x_s) values with replacement within every stratum s
    (Efron and Tibshirani 1993, ch. 13). Empty strata are left out.

    Args:
        strata: values, e.g. groups within annotators.
        rng: for the replicates.
        n_bootstrap: number of replicates.
        confidence: between 0 and 1.
    """
    filled = [np.asarray(stratum, dtype=float) for stratum in strata if len(stratum)]
    if not filled:
        return Estimate(None, None, None, 0)
    replicates = np.mean(
        [rng.choice(stratum, size=(n_bootstrap, len(stratum))).mean(axis=1) for stratum in filled], axis=0
    )
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(np.mean([stratum.mean() for stratum in filled]))
    return Estimate(value, float(low), float(high), sum(len(stratum) for stratum in filled))
