"""Means over groups of items and seeds, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capo_core.statistics.significance import Resamples, hierarchical_ratios, percentile_interval, resample_counts

Cells = Sequence[Mapping[tuple[int, Any], float]]
"""Per annotator the value of every (seed, unit) that was measured."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, None where there is none, and the number of units behind it."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


NOT_MEASURED = Estimate(None, None, None, 0)


def mean_over_annotators(cells: Cells, *, n_bootstrap: int, confidence: float, seed: int) -> Estimate:
    """Return the mean of the annotators' means, with a percentile bootstrap interval.

    An annotator's mean is taken over all his cells. Each resample draws seeds, the same for all annotators, and
    within each annotator units (groups of items), which take the values of all seeds along: a unit measured with
    three seeds is one unit, not three. Annotators without cells are left out.

    Args:
        cells: per annotator the value of every (seed, unit) that was measured.
        n_bootstrap: number of resamples.
        confidence: between 0 and 1.
        seed: of the resamples.

    Returns:
        The estimate; its n counts the units.
    """
    filled = [own for own in cells if own]
    if not filled:
        return NOT_MEASURED
    low, high = percentile_interval(resample_means(filled, n_bootstrap=n_bootstrap, seed=seed), confidence)
    n_units = sum(len({unit for _, unit in own}) for own in filled)
    value = float(np.mean([np.mean(list(own.values())) for own in filled]))
    return Estimate(value, none_if_nan(low), none_if_nan(high), n_units)


def resample_means(cells: Cells, *, n_bootstrap: int, seed: int, hold_seeds: bool = False) -> np.ndarray:
    """Return the mean of the annotators' means in every resample, [B]; NaN where one annotator has no value.

    Args:
        cells: per annotator, none without values; see `mean_over_annotators`.
        n_bootstrap: B.
        seed: of the resamples.
        hold_seeds: take every seed once, for the spread between units alone.
    """
    rng = np.random.default_rng(seed)
    seeds = sorted({place[0] for own in cells for place in own})
    seed_counts = resample_counts(len(seeds), n_bootstrap, rng)
    if hold_seeds:
        seed_counts = np.ones_like(seed_counts)
    replicates = []
    for own in cells:
        units = list(dict.fromkeys(unit for _, unit in own))
        places = {unit: place for place, unit in enumerate(units)}
        values, present = np.zeros((2, len(seeds), 1, len(units)))
        for (of_seed, unit), value in own.items():
            place = seeds.index(of_seed), 0, places[unit]
            values[place], present[place] = value, 1.0
        resamples = Resamples(resample_counts(len(units), n_bootstrap, rng), seed_counts)
        replicates.append(hierarchical_ratios(values, present, resamples)[:, 0])
    return np.mean(replicates, axis=0)


def none_if_nan(value: float) -> float | None:
    """Return `value`, None where it is undefined."""
    return None if math.isnan(value) else value
