"""Krippendorff's α at the levels nominal, ordinal, interval, and for sets of labels (MASI).

Notation: B weightings of the items, I items, A annotators, V values, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from capo_core.agreement.ratings import Level, Ratings, read_ratings, value_counts


def krippendorff_alpha(annotations: pl.DataFrame, level: Level = "nominal") -> float:
    """Return Krippendorff's α = 1 - D_o / D_e.

    With o_ck the coincidences of values c and k (each item with m values adds its ordered pairs, each with weight
    1 / (m - 1)), n_c their marginals and n their sum::

        α = 1 - (n - 1) Σ_ck o_ck δ²_ck / Σ_ck n_c n_k δ²_ck

    δ² is 0 or 1 (nominal), (c - k)² (interval), or the squared distance of the mid-ranks of c and k among all pairable
    values (ordinal). Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*. At level masi the values are the
    slots' sets of labels and the distance stands in the place of δ² (Passonneau 2006; see `masi_distances`).

    Args:
        annotations: columns item_id, annotator_id, label; null labels are missing. Slots with several labels are
            missing too, but at level masi. At level ordinal or interval every label is a number.
        level: level of measurement.

    Returns:
        α, at most 1; NaN where it is undefined: no item with two values, or all pairable values the same.

    Raises:
        CorpusError: if a label is not a number at level ordinal or interval.
    """
    ratings = read_ratings(annotations, level)
    return float(weighted_alphas(ratings, level, np.ones((1, len(ratings.items))))[0])


def weighted_alphas(ratings: Ratings, level: Level, weights: np.ndarray) -> np.ndarray:
    """Return α of each weighting of the items, [B, I] -> [B]; NaN where undefined.

    A weight is how often the item stands in a resample, or whether it does in a sub-sample.
    """
    codes, values = pairable_values(ratings, level)
    coincidences = np.tensordot(weights, item_coincidences(codes, len(values)), axes=1)
    return _alphas(coincidences, values, level)


def pairable_values(ratings: Ratings, level: Level) -> tuple[np.ndarray, np.ndarray | Sequence[str] | Sequence[float]]:
    """Return the slots' values as codes, [I, A], -1 for missing, and what the codes stand for.

    The values are the labels; at level masi the sets of labels, [V, L] booleans.
    """
    return ratings.set_codes() if level == "masi" else (ratings.single_codes(), ratings.labels)


def item_coincidences(codes: np.ndarray, n_values: int) -> np.ndarray:
    """Return each item's coincidence matrix, [I, V, V]: (n_c n_k - [c = k] n_c) / (m - 1), zero for m < 2."""
    counts = value_counts(codes, n_values).astype(float)
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(n_values)
    pairs[:, diagonal, diagonal] -= counts
    return pairs / np.maximum(counts.sum(axis=1) - 1.0, 1.0)[:, None, None]


def masi_distances(sets: np.ndarray) -> np.ndarray:
    """Return 1 - J M between all pairs of label sets (Passonneau 2006, *Measuring Agreement on Set-valued Items*).

    J is the Jaccard index; M is 1 for equal sets, 2/3 where one holds the other, 1/3 where they only overlap, 0 where
    they are disjoint.

    Args:
        sets: [S, L] booleans, no row empty.

    Returns:
        [S, S] between 0 and 1.
    """
    members = sets.astype(float)
    shared = members @ members.T
    sizes = members.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - shared
    contained = shared == np.minimum(sizes[:, None], sizes[None, :])
    monotonicity = np.select([shared == union, contained, shared > 0], [1.0, 2.0 / 3.0, 1.0 / 3.0], 0.0)
    return 1.0 - shared / union * monotonicity


def _alphas(coincidences: np.ndarray, values: np.ndarray | Sequence[str] | Sequence[float], level: Level) -> np.ndarray:
    """Return α of each coincidence matrix, [B, V, V] -> [B]; NaN where undefined."""
    marginals = coincidences.sum(axis=2)  # [B, V]
    n = marginals.sum(axis=1)
    distances = _squared_distances(marginals, values, level)
    observed = (coincidences * distances).sum(axis=(1, 2))
    expected = (marginals[:, :, None] * marginals[:, None, :] * distances).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1.0 - (n - 1.0) * observed / expected, np.nan)


def _squared_distances(
    marginals: np.ndarray, values: np.ndarray | Sequence[str] | Sequence[float], level: Level
) -> np.ndarray:
    """Return δ² between all pairs of values, [B or 1, V, V].

    Krippendorff's ordinal δ_ck = Σ_{g=c..k} n_g - (n_c + n_k) / 2 is the distance of the values' mid-ranks.
    """
    if level == "nominal":
        return 1.0 - np.eye(len(values))[None]
    if level == "masi":
        return masi_distances(np.asarray(values))[None]
    if level == "interval":
        positions = np.asarray(values, dtype=float)[None]
    else:
        positions = np.cumsum(marginals, axis=1) - marginals / 2.0
    return (positions[:, :, None] - positions[:, None, :]) ** 2
