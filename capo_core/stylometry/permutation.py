"""Do annotators differ in a feature, items and labels being equal: permutation tests within items.

Under the null hypothesis the explanations of one item could each have been written by any of its annotators. So owners
change places among the rows of an item, never between items. Labels are held to account in the manner of Freedman and
Lane (1983; compared by Winkler et al. 2014, NeuroImage 92): with M the projection off items and labels and X the
annotator indicators,

    r = M y,   Q = orthonormal basis of M X,   T = ‖Qᵀ r‖²           between-annotator sum of squares given item, label
    F = T / (‖M r‖² - T)                                             monotone in the F ratio of the annotator
    F* = the same with the entries of r permuted within each item

For complete data and no labels T is Σ_a n_a (mean of a's item-centred values)² and the test is exact. With labels it
is exact up to their estimation. The statistic of one annotator is |xᵀ r| / √(‖M r‖² - (xᵀ r)²) with x his own column of
M X, of length one: he against the others of his items.

An annotator's two explanations of one item (he gave two labels) count as two rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capo_core.errors import CorpusError
from capo_core.stylometry.controls import draw_within_items
from capo_core.stylometry.design import (
    RANK_TOLERANCE,
    Crossing,
    centre_within,
    missing_patterns,
    orthonormal_basis,
    read_crossing,
)

_CHUNK_CELLS = 4_000_000
TIE_TOLERANCE = 1e-9
"""A permuted statistic this close to the observed one, relatively, counts as equal."""


@dataclass(frozen=True)
class PermutationTests:
    """Within-item permutation tests of F features.

    Attributes:
        annotators: [A] the annotators, sorted.
        p_values: [F] of any difference between annotators.
        p_by_annotator: [A, F] of each annotator against the others, two-sided.
        n_permutations: permutations drawn. All p-values are (1 + as extreme) / (1 + drawn), NaN where undefined.
    """

    annotators: np.ndarray
    p_values: np.ndarray
    p_by_annotator: np.ndarray
    n_permutations: int


@dataclass(frozen=True)
class _Contrasts:
    """What each permuted residual vector is projected on.

    Attributes:
        columns: [n, r_L + r_A] orthonormal: the labels' basis, then the annotators' given labels.
        n_labels: r_L.
        own: [A, r_A] each annotator's own direction, of length one, in the annotators' basis; NaN where he has none.
    """

    columns: np.ndarray
    n_labels: int
    own: np.ndarray

    def statistics(self, projections: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return F up to a constant [P, F], and each annotator's t² up to a constant [P, A, F]; NaN where undefined.

        Args:
            projections: [P, r_L + r_A, F] of the residuals on the columns.
            total: [F] squared length of the residuals.
        """
        within = total - (projections[:, : self.n_labels] ** 2).sum(axis=1)
        annotators = projections[:, self.n_labels :]
        between = (annotators**2).sum(axis=1) if annotators.shape[1] else np.full_like(within, np.nan)
        return _ratio(between, within), _ratio((self.own @ annotators) ** 2, within[:, None])


def compare_annotators(
    features: np.ndarray,
    owners: np.ndarray,
    items: np.ndarray,
    labels: np.ndarray | None,
    *,
    n_permutations: int,
    seed: int,
) -> PermutationTests:
    """Return the permutation tests of every feature; see the module for the statistics.

    Features that are defined in the same rows meet the same permutations; a feature's p-value does not depend on which
    other features are tested.

    Args:
        features: [n, F], NaN where undefined; permuted among the rows in which the feature is defined.
        owners: [n] annotator of every row.
        items: [n] item of every row.
        labels: [n] label of every row; None to leave labels out of account.
        n_permutations: at least 1. No p-value falls below 1 / (1 + n_permutations): Holm's correction over m tests can
            reach .05 only from 20 m permutations on.
        seed: of the permutations.

    Raises:
        CorpusError: if there are fewer than two annotators, or no permutations are asked for.
    """
    if n_permutations < 1:
        raise CorpusError(f"n_permutations is {n_permutations}; a permutation test needs at least 1")
    crossing, annotators = read_crossing(owners, items, labels)
    p_values = np.full(features.shape[1], np.nan)
    p_by_annotator = np.full((len(annotators), features.shape[1]), np.nan)
    for columns, rows in missing_patterns(features):
        if len(rows) == 0:
            continue
        part = crossing.take(rows)
        counts = _count_as_extreme(features[np.ix_(rows, columns)], part, n_permutations, np.random.default_rng(seed))
        p_values[columns], p_by_annotator[:, columns] = ((1 + count) / (1 + n_permutations) for count in counts)
    return PermutationTests(annotators, p_values, p_by_annotator, n_permutations)


def _count_as_extreme(
    values: np.ndarray, crossing: Crossing, n_permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many permuted statistics reach the observed ones, [F] and [A, F]; NaN where there is no statistic."""
    label_basis = crossing.label_basis()
    contrasts = _contrasts(crossing, label_basis)
    centred = centre_within(values, crossing.items)
    scale = np.sqrt((centred**2).sum(axis=0))
    residuals = centred - label_basis @ (label_basis.T @ centred)
    total = (residuals**2).sum(axis=0)
    # What item and label explain completely leaves rounding only; there is nothing to permute.
    total[total <= (RANK_TOLERANCE * np.maximum(scale, np.abs(values).max(axis=0))) ** 2] = np.nan
    observed = contrasts.statistics((contrasts.columns.T @ residuals)[None], total)
    counts = [np.where(np.isnan(statistic[0]), np.nan, 0.0) for statistic in observed]
    step = max(1, _CHUNK_CELLS // max(1, contrasts.columns.size))
    for start in range(0, n_permutations, step):
        permutations = draw_within_items(crossing.items, min(step, n_permutations - start), rng)
        permuted = contrasts.columns.T[:, permutations]  # permuting the contrasts permutes the residuals inversely
        projections = permuted.reshape(-1, len(values)) @ residuals
        drawn = contrasts.statistics(projections.reshape(*permuted.shape[:2], -1).swapaxes(0, 1), total)
        for count, statistic, reached in zip(counts, drawn, observed, strict=True):
            count += (statistic >= reached * (1.0 - TIE_TOLERANCE)).sum(axis=0)
    return counts[0], counts[1]


def _contrasts(crossing: Crossing, label_basis: np.ndarray) -> _Contrasts:
    """Return the directions of a design; an annotator whom item and label determine has none of his own."""
    annotators = crossing.annotator_indicators(label_basis)
    between = orthonormal_basis(annotators)
    own = annotators.T @ between
    lengths = np.sqrt((own**2).sum(axis=1, keepdims=True))
    return _Contrasts(
        columns=np.hstack([label_basis, between]),
        n_labels=label_basis.shape[1],
        own=own / np.where(lengths > RANK_TOLERANCE * np.sqrt(len(annotators)), lengths, np.nan),
    )


def _ratio(explained: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return explained / (within - explained): NaN where nothing is to explain, infinite where all is explained."""
    with np.errstate(invalid="ignore", divide="ignore"):
        left = within - explained
        ratio = np.where(left > TIE_TOLERANCE * within, explained / left, np.inf)
    return np.where((within > 0) & ~np.isnan(explained), ratio, np.nan)
