"""What is measured on every item, and how it becomes one figure per annotator in every resample.

Two kinds: scores that average over items, and attribution of groups, which does not. Both answer the same questions,
so that tables and comparisons treat them alike.

Notation: S seeds, A annotators (targets, and candidates of an attribution), I items, B resamples, k group size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from capo_core.evaluation.significance import (
    Resamples,
    draw_resamples,
    hierarchical_ratios,
    mean_of_defined,
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

    def present(self) -> np.ndarray:
        """Return which cells have a score, [S, A, I] booleans."""
        return self.denominators > 0

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: all that have a score."""
        return self.present()

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the figure per resample and annotator, [B, A], NaN where not measured."""
        return hierarchical_ratios(self.numerators, self.denominators, draws.resamples)

    def at_seeds(self, seeds: tuple[int, ...]) -> ItemScores:
        """Return the scores of `seeds`, in that order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return ItemScores(self.name, seeds, self.numerators[rows], self.denominators[rows])

    def only(self, cells: np.ndarray) -> ItemScores:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        parts = (np.where(cells, values, 0.0) for values in (self.numerators, self.denominators))
        return ItemScores(self.name, self.seeds, *parts)


@dataclass(frozen=True)
class GroupScores:
    """Attribution of groups of k explanations of different items to the annotator imitated.

    Attributes:
        name: which figure this is; `group_size` is k.
        seeds: axis S; () for people's text, where that axis holds one slice, or one per shuffle, all of equal weight.
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

    def present(self) -> np.ndarray:
        """Return which cells have an explanation, [S, A, I] booleans."""
        return np.asarray(np.isfinite(self.log_probabilities).all(axis=3))

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: none of a series with fewer than k."""
        present = self.present()
        return present & (present.sum(axis=2, keepdims=True) >= self.group_size)

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the accuracy per resample and annotator, [B, A], NaN where not measured."""
        accuracies = group_accuracies(self._series(), self._owners(), self.group_size, draws.groups)
        by_seed = accuracies.reshape(len(accuracies), self.n_slices, -1)
        weights = draws.resamples.seed_counts[:, :, None] * ~np.isnan(by_seed)
        totals = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals > 0, (np.nan_to_num(by_seed) * weights).sum(axis=1) / totals, np.nan)

    def at_seeds(self, seeds: tuple[int, ...]) -> GroupScores:
        """Return the scores of `seeds`, in that order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return GroupScores(self.name, seeds, self.log_probabilities[rows])

    def only(self, cells: np.ndarray) -> GroupScores:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        return GroupScores(self.name, self.seeds, np.where(cells[..., None], self.log_probabilities, np.nan))

    def _series(self) -> np.ndarray:
        """Return the log-probabilities as [I, S·A, A]."""
        n_items, n_candidates = self.log_probabilities.shape[2:]
        return np.moveaxis(self.log_probabilities, 2, 0).reshape(n_items, -1, n_candidates)

    def _owners(self) -> np.ndarray:
        """Return whom each of the S·A series imitates, as index of a candidate."""
        return np.tile(np.arange(self.log_probabilities.shape[1]), self.n_slices)


Scores = ItemScores | GroupScores


def swap_p_value(first: Scores, second: Scores, resampling: Resampling) -> float:
    """Return the two-sided p-value of a difference under swapping the two methods item by item.

    An item's responses change places for all annotators and seeds at once. For averages this turns the sign of the
    item's contribution (`significance.paired_permutation_test`); groups are attributed again with the swapped members.

    Args:
        first: scores of one method.
        second: scores of the other, present in the same cells.
        resampling: of the evaluation; gives seed, groups and number of permutations of groups.

    Returns:
        p in (0, 1]; NaN where nothing is measured.

    Raises:
        TypeError: if the scores are not of one kind.
    """
    if not first.measured().any():
        return float("nan")
    if isinstance(first, ItemScores) and isinstance(second, ItemScores):
        return _swap_items(first, second, resampling.config.seed)
    if isinstance(first, GroupScores) and isinstance(second, GroupScores):
        return _swap_group_members(first, second, resampling)
    raise TypeError(f"cannot compare {type(first).__name__} with {type(second).__name__}")


def _swap_items(first: ItemScores, second: ItemScores, seed: int) -> float:
    """Return the p-value for averages; contributions are those to the mean over annotators."""
    n_cells = first.denominators.sum(axis=(0, 2))
    annotators = n_cells > 0
    differences = (first.numerators - second.numerators).sum(axis=0)[annotators]
    contributions = (differences / n_cells[annotators, None]).mean(axis=0)
    return paired_permutation_test(contributions[first.measured().any(axis=(0, 1))], seed=seed)


def _swap_group_members(first: GroupScores, second: GroupScores, resampling: Resampling) -> float:
    """Return the p-value for attribution of groups; the groups of items stay the same in all permutations."""
    rng = np.random.default_rng([resampling.config.seed, 2])
    swaps = rng.random((1 + resampling.config.n_bootstrap, resampling.n_items)) < 0.5
    swaps[0] = False  # the first "permutation" is the observed assignment
    ours, theirs, owners, size = first._series(), second._series(), first._owners(), first.group_size
    present = np.asarray(np.isfinite(ours).all(axis=2))
    sampler = resampling.whole(1).groups
    differences = np.full((len(swaps), len(owners)), np.nan)
    for pattern in np.unique(present, axis=1).T:
        if pattern.sum() < size:
            continue
        columns = np.flatnonzero((present == pattern[:, None]).all(axis=0))
        groups = np.flatnonzero(pattern)[:, None] if size == 1 else sampler.draw(pattern, size)[0]
        membership = group_membership(groups, len(pattern))
        pair = (np.nan_to_num(ours[:, columns]), np.nan_to_num(theirs[:, columns]))
        differences[:, columns] = _swap_groups(*pair, owners[columns], membership, swaps)
    means = mean_of_defined(mean_of_defined(differences.reshape(len(swaps), first.n_slices, -1)))
    return p_value_of_null_draws(float(means[0]), means[1:])


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
        shares = [attribution_share(sums.reshape(shape), owners) for sums in (sums_ours + change, sums_theirs - change)]
        differences[start : start + step] = shares[0] - shares[1]
    return differences
