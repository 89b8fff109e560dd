"""Attribution of groups of k explanations: how often, and with what probability, to the annotator imitated.

A group g of explanations by (or imitating) one annotator has for every candidate a the score
s_a = Σ_{j ∈ g} log p(a | explanation j). It is attributed to argmax_a s_a; the probability of the annotator t is
exp s_t / Σ_a exp s_a, the posterior under equal priors if the explanations were independent. They are not quite, so
for great k the probability nears 0 or 1 and its mean nears the accuracy.

Notation as in `scores`: S seeds, A annotators, I items, B resamples, R swaps, G groups, k group size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import sparse

from capo_core.evaluation.drawn_groups import DrawnGroups
from capo_core.evaluation.scores import Draws, Resampling, ScoreName, rows_of_seeds
from capo_core.evaluation.significance import mean_of_defined, p_value_of_null_draws

ACCURACY = "attribution_accuracy"
PROBABILITY = "attribution_probability"
FIGURES = (ACCURACY, PROBABILITY)
_CHUNK_CELLS = 4_000_000


class GroupFigures(NamedTuple):
    """Both figures of the same groups, [B, S, A] each, NaN where a series has too few explanations."""

    attribution_accuracy: np.ndarray
    attribution_probability: np.ndarray


@dataclass(frozen=True, eq=False)
class Attributions:
    """What a classifier says of every explanation of one method; group figures are computed once and remembered.

    Attributes:
        log_probabilities: [S, A, I, A] of each explanation (last axis: candidates); NaN where there is none.
    """

    log_probabilities: np.ndarray
    _figures: dict[tuple[int, int], tuple[DrawnGroups, GroupFigures]] = field(
        default_factory=dict, init=False, repr=False
    )
    _restricted: dict[bytes, Attributions] = field(default_factory=dict, init=False, repr=False)
    _swapped: dict[int, tuple[Attributions, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    def present(self) -> np.ndarray:
        """Return which cells have an explanation, [S, A, I] booleans."""
        return np.asarray(np.isfinite(self.log_probabilities).all(axis=3))

    def restrict(self, rows: list[int], cells: np.ndarray | None = None) -> Attributions:
        """Return the slices `rows` of axis S without what lies outside `cells`, [S, A, I]; itself if that is all."""
        present = self.present()[rows]
        kept = present if cells is None else present & cells
        if rows == list(range(len(self.log_probabilities))) and (kept == present).all():
            return self
        key = bytes(str(rows), "ascii") + kept.tobytes()
        if key not in self._restricted:
            self._restricted.clear()  # the figures of one comparison share it; the next has another
            self._restricted[key] = Attributions(np.where(kept[..., None], self.log_probabilities[rows], np.nan))
        return self._restricted[key]

    def figures(self, groups: DrawnGroups, group_size: int) -> GroupFigures:
        """Return accuracy and probability of groups of k, per resample, slice and annotator."""
        key = (id(groups), group_size)
        if key not in self._figures:
            self._figures[key] = (groups, self._compute_figures(groups, group_size))
        return self._figures[key][1]

    def swap_p_values(self, other: Attributions, group_size: int, resampling: Resampling) -> np.ndarray:
        """Return the p-values of the differences of both figures under swapping the methods item by item, [2]."""
        if group_size not in self._swapped or self._swapped[group_size][0] is not other:
            self._swapped[group_size] = (other, _swap_p_values(self, other, group_size, resampling))
        return self._swapped[group_size][1]

    def series(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the series (slice and annotator) by the items they have: [n] indices of series, [I] booleans."""
        by_series = self.present().reshape(-1, self.log_probabilities.shape[2])
        patterns, pattern_of = np.unique(by_series, axis=0, return_inverse=True)
        for number, available in enumerate(patterns):
            yield np.flatnonzero(pattern_of.ravel() == number), available

    def scores_of(self, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities of some series, [I, A candidates, n], 0 where missing, and their owners, [n]."""
        n_annotators, n_items, n_candidates = self.log_probabilities.shape[1:]
        chosen = self.log_probabilities.reshape(-1, n_items, n_candidates)[series]
        return np.nan_to_num(np.moveaxis(chosen, 0, 2)).astype(np.float32), series % n_annotators

    def _compute_figures(self, groups: DrawnGroups, group_size: int) -> GroupFigures:
        n_series = self.log_probabilities.shape[0] * self.log_probabilities.shape[1]
        figures = np.full((2, len(groups.item_counts), n_series), np.nan)
        for series, available in self.series():
            if available.sum() < group_size:
                continue
            scores, owners = self.scores_of(series)
            if group_size == 1:
                figures[:, :, series] = _average_singles(scores, owners, groups.item_counts * available)
            else:
                figures[:, :, series] = _average_groups(scores, owners, groups.draw(available, group_size))
        return GroupFigures(*figures.reshape(2, -1, *self.log_probabilities.shape[:2]))


@dataclass(frozen=True)
class GroupScores:
    """One figure of the attribution of groups of k explanations of different items to the annotator imitated.

    Attributes:
        name: which figure this is; `group_size` is k, `metric` one of `FIGURES`.
        seeds: axis S; () for people's text, where that axis holds one slice, or one per shuffle, all of equal weight.
        attributions: of every explanation, shared by the figures of all group sizes.
    """

    name: ScoreName
    seeds: tuple[int, ...]
    attributions: Attributions

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        return self.attributions.log_probabilities.shape[0]

    @property
    def group_size(self) -> int:
        """k."""
        return self.name.group_size or 1

    def present(self) -> np.ndarray:
        """Return which cells have an explanation, [S, A, I] booleans."""
        return self.attributions.present()

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: none of a series with fewer than k."""
        present = self.present()
        return present & (present.sum(axis=2, keepdims=True) >= self.group_size)

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the figure per resample and annotator, [B, A], NaN where not measured."""
        by_seed = self.attributions.figures(draws.groups, self.group_size)[FIGURES.index(self.name.metric)]
        weights = draws.resamples.seed_counts[:, :, None] * ~np.isnan(by_seed)
        totals = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals > 0, (np.nan_to_num(by_seed) * weights).sum(axis=1) / totals, np.nan)

    def at_seeds(self, seeds: tuple[int, ...]) -> GroupScores:
        """Return the scores of `seeds`, in that order; what no seed enters stands at each of them."""
        rows = rows_of_seeds(self.seeds, seeds, self.n_slices)
        return GroupScores(self.name, seeds, self.attributions.restrict(rows))

    def only(self, cells: np.ndarray) -> GroupScores:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        return GroupScores(self.name, self.seeds, self.attributions.restrict(list(range(self.n_slices)), cells))

    def swap_p_value(self, other: GroupScores, resampling: Resampling) -> float:
        """Return the p-value under swapping the methods item by item: groups are attributed with the swapped members.

        Raises:
            TypeError: if `other` is not GroupScores of the same metric and group size.
        """
        if not isinstance(other, GroupScores) or self.name[2:] != other.name[2:]:
            raise TypeError(f"cannot compare {self.name} with {other.name} of {type(other).__name__}")
        p_values = self.attributions.swap_p_values(other.attributions, self.group_size, resampling)
        return float(p_values[FIGURES.index(self.name.metric)])


def _average_singles(scores: np.ndarray, owners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return both figures for k = 1, where every explanation is a group and counts as often as its item, [2, B, n]."""
    outcomes = judge_groups(scores, owners)
    totals = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(totals > 0, (weights @ outcomes) / totals, np.nan)


def _average_groups(scores: np.ndarray, owners: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return both figures of drawn groups, [B, G, k] -> [2, B, n]; NaN where no groups could be drawn."""
    n_items, n_candidates, n_series = scores.shape
    flat = scores.reshape(n_items, -1)
    n_groups, size = groups.shape[1:]
    averages = np.full((2, len(groups), n_series), np.nan)
    feasible = np.flatnonzero(groups[:, 0, 0] >= 0)
    step = max(1, _CHUNK_CELLS // (n_groups * flat.shape[1]))
    for start in range(0, len(feasible), step):
        rows = feasible[start : start + step]
        sums = sum_groups(groups[rows].reshape(-1, size), flat).reshape(-1, n_candidates, n_series)
        averages[:, rows] = judge_groups(sums, owners).reshape(2, len(rows), n_groups, n_series).mean(axis=2)
    return averages


def sum_groups(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sum of `values`, [I, n], over the members of each group, [G, k] -> [G, n]."""
    n_groups, size = groups.shape
    ones = np.ones(groups.size, dtype=values.dtype)
    pointers = np.arange(0, groups.size + 1, size)
    membership = sparse.csr_matrix((ones, groups.ravel(), pointers), shape=(n_groups, len(values)))
    return np.asarray(membership @ values)


def judge_groups(sums: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Return whether each group is attributed to its owner, and the owner's probability, [G, A, n] -> [2, G, n]."""
    series = np.arange(len(owners))
    shifted = sums - sums[:, owners, series][:, None, :]
    correct = sums.argmax(axis=1) == owners
    with np.errstate(over="ignore"):  # 1 / inf is the 0 it should be
        probability = 1.0 / np.exp(shifted).sum(axis=1)
    return np.stack([correct, probability])


def _swap_p_values(first: Attributions, second: Attributions, group_size: int, resampling: Resampling) -> np.ndarray:
    """Return the p-values of both figures, [2]; the groups of items stay the same in all permutations."""
    rng = np.random.default_rng([resampling.config.seed, 2])
    swaps = rng.random((1 + resampling.config.n_bootstrap, resampling.n_items)) < 0.5
    swaps[0] = False  # the first "permutation" is the observed assignment
    shape = first.log_probabilities.shape[:2]
    differences = np.full((2, len(swaps), shape[0] * shape[1]), np.nan)
    sampler = resampling.whole(1).groups
    for series, available in first.series():
        if available.sum() < group_size:
            continue
        if group_size == 1:
            groups = np.flatnonzero(available)[:, None]
        else:
            groups = sampler.draw(available, group_size)[0, : resampling.config.n_groups]
        scores, owners = first.scores_of(series)
        differences[:, :, series] = _swap_members(scores, second.scores_of(series)[0], owners, groups, swaps)
    means = [mean_of_defined(mean_of_defined(part.reshape(len(swaps), *shape))) for part in differences]
    return np.array([p_value_of_null_draws(float(part[0]), part[1:]) for part in means])


def _swap_members(
    ours: np.ndarray, theirs: np.ndarray, owners: np.ndarray, groups: np.ndarray, swaps: np.ndarray
) -> np.ndarray:
    """Return the differences in both figures of fixed groups under every swap, [2, R, n].

    Args:
        ours: [I, A, n] log-probabilities of one method.
        theirs: [I, A, n] of the other.
        owners: [n] right candidates.
        groups: [G, k] items of each group.
        swaps: [R, I] booleans, whether the methods change places on an item.
    """
    flat_ours, flat_theirs = (part.reshape(len(part), -1) for part in (ours, theirs))
    sums_ours, sums_theirs = (sum_groups(groups, part)[:, None] for part in (flat_ours, flat_theirs))
    change_of_members = (flat_theirs - flat_ours)[groups]  # [G, k, A·n]
    differences = np.empty((2, len(swaps), len(owners)))
    step = max(1, _CHUNK_CELLS // (len(groups) * flat_ours.shape[1]))
    for start in range(0, len(swaps), step):
        swapped = np.moveaxis(swaps[start : start + step][:, groups], 0, 1).astype(np.float32)  # [G, R, k]
        change = swapped @ change_of_members  # [G, R, A·n]
        judged = [
            judge_groups(sums.reshape(-1, *ours.shape[1:]), owners).reshape(2, *change.shape[:2], -1).mean(axis=1)
            for sums in (sums_ours + change, sums_theirs - change)
        ]
        differences[:, start : start + step] = judged[0] - judged[1]
    return differences
