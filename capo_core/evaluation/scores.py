"""What is measured on every item, and how it becomes one figure per annotator in every resample.

Two kinds: scores that average over items, and attribution of groups, which does not. Both answer the same questions,
so that tables and comparisons treat them alike.

Notation: S seeds, A annotators (targets, and candidates of an attribution), I items, B resamples, k group size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from capo_core.evaluation.significance import (
    Resamples,
    draw_resamples,
    hierarchical_ratios,
    p_value_of_null_draws,
    paired_permutation_test,
    whole_sample,
)
from capo_core.stylometry.groups import GroupSampler, attribution_share, group_accuracies, group_membership
from schemas.config import EvaluationConfig

_CHUNK_CELLS = 8_000_000


class ScoreName(NamedTuple):
    """Which figure a score is of; None where a part does not apply."""

    method: str
    decision: str | None
    metric: str
    condition: str | None = None
    group_size: int | None = None


@dataclass(frozen=True)
class Draws:
    """Resamples of items and seeds, and the groups drawn within each resample of items."""

    resamples: Resamples
    groups: GroupSampler


class Resampling:
    """The resamples of one evaluation: the same for every method and metric, so that differences are paired."""

    def __init__(self, n_items: int, config: EvaluationConfig) -> None:
        self.n_items = n_items
        self.config = config
        bootstrapped = draw_resamples(n_items, 1, config.n_bootstrap, config.seed).item_counts
        self._groups = GroupSampler(bootstrapped, config.n_groups, config.seed)
        whole = whole_sample(n_items, 1).item_counts
        self._whole_groups = GroupSampler(whole, config.n_groups, config.seed)

    def whole(self, n_seeds: int) -> Draws:
        """Return the sample itself, for point estimates."""
        return Draws(whole_sample(self.n_items, n_seeds), self._whole_groups)

    def bootstrap(self, n_seeds: int) -> Draws:
        """Return the bootstrap resamples, for intervals."""
        resamples = draw_resamples(self.n_items, n_seeds, self.config.n_bootstrap, self.config.seed)
        return Draws(resamples, self._groups)


@dataclass(frozen=True)
class ItemScores:
    """Scores that are averaged: per annotator, the sum of numerators over the sum of denominators.

    Attributes:
        name: which figure this is.
        seeds: axis S; () for what no seed enters, with one slice on that axis.
        numerators: [S, A, I], 0 where not measured.
        denominators: [S, A, I], 0 where not measured; 1 elsewhere for a plain mean.
    """

    name: ScoreName
    seeds: tuple[int, ...]
    numerators: np.ndarray
    denominators: np.ndarray

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        return self.numerators.shape[0]

    def measured(self) -> np.ndarray:
        """Return which items enter, [S, A, I] booleans."""
        return self.denominators > 0

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the figure per resample and annotator, [B, A], NaN where not measured."""
        return hierarchical_ratios(self.numerators, self.denominators, draws.resamples)

    def restricted(self, seeds: tuple[int, ...], cells: np.ndarray) -> ItemScores:
        """Return the scores of `seeds` with everything outside `cells`, [S, A, I], taken as not measured."""
        rows = [self.seeds.index(seed) for seed in seeds]
        parts = (np.where(cells, values[rows], 0.0) for values in (self.numerators, self.denominators))
        return ItemScores(self.name, seeds, *parts)

    def swap_p_value(self, other: ItemScores, resampling: Resampling) -> float:
        """Return the p-value of the difference to `other`, measured on the same cells, swapping methods per item."""
        n_cells = self.denominators.sum(axis=(0, 2))
        annotators = n_cells > 0
        differences = (self.numerators - other.numerators).sum(axis=0)[annotators]
        contributions = (differences / n_cells[annotators, None]).mean(axis=0) if annotators.any() else np.empty(0)
        entering = self.measured().any(axis=(0, 1))
        return paired_permutation_test(contributions[entering[: len(contributions)]], seed=resampling.config.seed)


@dataclass(frozen=True)
class GroupScores:
    """Attribution of groups of k explanations of different items to the annotator imitated.

    Attributes:
        name: which figure this is; `group_size` is k.
        seeds: axis S; () for people's text, where that axis holds one slice, or one per shuffle.
        log_probabilities: [S, A, I, A] of each explanation (last axis: candidates); NaN where there is none.
    """

    name: ScoreName
    seeds: tuple[int, ...]
    log_probabilities: np.ndarray

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        return self.log_probabilities.shape[0]

    @property
    def group_size(self) -> int:
        """k."""
        return self.name.group_size or 1

    def measured(self) -> np.ndarray:
        """Return which items enter, [S, A, I] booleans: none of a series with fewer than k."""
        present = ~np.isnan(self.log_probabilities).any(axis=3)
        return present & (present.sum(axis=2, keepdims=True) >= self.group_size)

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the accuracy per resample and annotator, [B, A], NaN where not measured."""
        accuracies = group_accuracies(self._series(), self._owners(), self.group_size, draws.groups)
        by_seed = accuracies.reshape(len(accuracies), self.n_slices, -1)
        weights = draws.resamples.seed_counts[:, :, None] * ~np.isnan(by_seed)
        totals = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals > 0, (np.nan_to_num(by_seed) * weights).sum(axis=1) / totals, np.nan)

    def restricted(self, seeds: tuple[int, ...], cells: np.ndarray) -> GroupScores:
        """Return the scores of `seeds` with everything outside `cells`, [S, A, I], taken as not measured."""
        kept = self.log_probabilities[[self.seeds.index(seed) for seed in seeds]]
        return replace(self, seeds=seeds, log_probabilities=np.where(cells[..., None], kept, np.nan))

    def swap_p_value(self, other: GroupScores, resampling: Resampling) -> float:
        """Return the p-value of the difference to `other`, measured on the same cells, swapping methods per item.

        In every permutation the two methods' explanations of an item change places for all annotators and seeds at
        once, with probability 1/2 per item, and the same groups of items are attributed again.
        """
        if not self.measured().any():
            return float("nan")
        rng = np.random.default_rng([resampling.config.seed, 2])
        swaps = rng.random((resampling.config.n_bootstrap, resampling.n_items)) < 0.5
        swaps[0] = False  # the first "permutation" is the observed assignment
        differences = self._swapped_differences(other, swaps, resampling.whole(1).groups)
        by_annotator = np.nanmean(differences, axis=1) if differences.shape[1] > 1 else differences[:, 0]
        means = by_annotator[:, ~np.isnan(by_annotator[0])].mean(axis=1)
        return p_value_of_null_draws(float(means[0]), means[1:])

    def _series(self) -> np.ndarray:
        """Return the log-probabilities as [I, S·A, A]."""
        return np.moveaxis(self.log_probabilities, 2, 0).reshape(self.log_probabilities.shape[2], -1, self._n_candidates)

    @property
    def _n_candidates(self) -> int:
        return self.log_probabilities.shape[3]

    def _owners(self) -> np.ndarray:
        return np.tile(np.arange(self.log_probabilities.shape[1]), self.n_slices)

    def _swapped_differences(self, other: GroupScores, swaps: np.ndarray, sampler: GroupSampler) -> np.ndarray:
        """Return accuracy minus that of `other` under every swap, [R, S, A]; NaN for series with fewer than k items."""
        ours, theirs = self._series(), other._series()
        present = ~np.isnan(ours).any(axis=2)
        differences = np.full((len(swaps), ours.shape[1]), np.nan)
        for pattern in np.unique(present, axis=1).T:
            columns = np.flatnonzero((present == pattern[:, None]).all(axis=0))
            if pattern.sum() < self.group_size:
                continue
            single = self.group_size == 1
            groups = np.flatnonzero(pattern)[:, None] if single else sampler.draw(pattern, self.group_size)[0]
            membership = group_membership(groups, len(pattern))
            pair = (np.nan_to_num(ours[:, columns]), np.nan_to_num(theirs[:, columns]))
            differences[:, columns] = _swap_groups(*pair, self._owners()[columns], membership, swaps)
        return differences.reshape(len(swaps), self.n_slices, -1)


def _swap_groups(
    ours: np.ndarray, theirs: np.ndarray, owners: np.ndarray, membership: np.ndarray, swaps: np.ndarray
) -> np.ndarray:
    """Return the difference in accuracy of fixed groups under every swap, [R, C].

    Args:
        ours: [I, C, A] log-probabilities of one method.
        theirs: [I, C, A] of the other.
        owners: [C] right candidates.
        membership: [n_groups, I] zeros and ones.
        swaps: [R, I] booleans, whether the methods change places on an item.
    """
    n_items, n_series, n_candidates = ours.shape
    flat_ours, flat_theirs = (part.reshape(n_items, -1).astype(np.float32) for part in (ours, theirs))
    sums_ours, sums_theirs = membership @ flat_ours, membership @ flat_theirs
    differences = np.empty((len(swaps), n_series))
    step = max(1, _CHUNK_CELLS // (len(membership) * max(n_items, flat_ours.shape[1])))
    for start in range(0, len(swaps), step):
        swapped = membership[None] * swaps[start : start + step, None, :]
        change = swapped @ (flat_theirs - flat_ours)
        shape = (*change.shape[:2], n_series, n_candidates)
        shares = [
            attribution_share(sums.reshape(shape), owners) for sums in (sums_ours + change, sums_theirs - change)
        ]
        differences[start : start + step] = shares[0] - shares[1]
    return differences


Scores = ItemScores | GroupScores
