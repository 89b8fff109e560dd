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

from capo_core.evaluation.scores import Draws, Resampling, ScoreName, rows_of_seeds
from capo_core.statistics.significance import draw_swaps, mean_of_defined, mean_over_seeds, p_value_of_null_draws
from capo_core.stylometry.groups import (
    DrawnGroups,
    average_outcomes,
    is_attributed,
    owner_probability,
    present_cells,
    scores_by_item,
    series_by_items,
    sum_groups,
)

ACCURACY = "attribution_accuracy"
PROBABILITY = "attribution_probability"
FIGURES = (ACCURACY, PROBABILITY)
_OUTCOMES = (is_attributed, owner_probability)
"""Of groups, of which the figures are means."""

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
        return present_cells(self.log_probabilities)

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

    def by_series(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities of every slice and annotator in turn, [S·A, I, A], and their owners, [S·A]."""
        n_slices, n_annotators, n_items, n_candidates = self.log_probabilities.shape
        return self.log_probabilities.reshape(-1, n_items, n_candidates), np.tile(np.arange(n_annotators), n_slices)

    def whole_groups(self, drawn: DrawnGroups, group_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the series that have k explanations, [n], with their groups in the first resample, [G, k].

        For k = 1 every explanation is a group.
        """
        for series, available in series_by_items(self.by_series()[0]):
            if available.sum() >= group_size:
                singles = np.flatnonzero(available)[:, None]
                yield series, singles if group_size == 1 else drawn.draw(available, group_size)[0]

    def _compute_figures(self, groups: DrawnGroups, group_size: int) -> GroupFigures:
        figures = average_outcomes(*self.by_series(), group_size, groups, _OUTCOMES)
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
        return mean_over_seeds(by_seed, draws.resamples)

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


def _judge(sums: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Return both figures of each group, [G, A, n] -> [2, G, n]."""
    return np.stack([outcome(sums, owners) for outcome in _OUTCOMES])


def _swap_p_values(first: Attributions, second: Attributions, group_size: int, resampling: Resampling) -> np.ndarray:
    """Return the p-values of both figures, [2]; the groups of items stay the same in all permutations."""
    rng = np.random.default_rng([resampling.config.seed, 2])
    swaps = draw_swaps(resampling.n_items, resampling.config.n_bootstrap, rng)
    (ours, owners), (theirs, _) = first.by_series(), second.by_series()
    differences = np.full((2, len(swaps), len(owners)), np.nan)
    for series, groups in first.whole_groups(resampling.whole(1).groups, group_size):
        if group_size > 1:
            groups = groups[: resampling.config.n_groups]
        one, other = (scores_by_item(part[series]) for part in (ours, theirs))
        differences[:, :, series] = _swap_members(one, other, owners[series], groups, swaps)
    shape = first.log_probabilities.shape[:2]
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
    sums_ours, sums_theirs = (sum_groups(groups, part)[:, None] for part in (ours, theirs))
    change_of_members = (theirs - ours).reshape(len(ours), -1)[groups]  # [G, k, A·n]
    differences = np.empty((2, len(swaps), len(owners)))
    step = max(1, _CHUNK_CELLS // (len(groups) * ours[0].size))
    for start in range(0, len(swaps), step):
        swapped = np.moveaxis(swaps[start : start + step][:, groups], 0, 1).astype(np.float32)  # [G, R, k]
        change = (swapped @ change_of_members).reshape(*swapped.shape[:2], *ours.shape[1:])  # [G, R, A, n]
        judged = [
            _judge(sums.reshape(-1, *ours.shape[1:]), owners).reshape(2, *swapped.shape[:2], -1).mean(axis=1)
            for sums in (sums_ours + change, sums_theirs - change)
        ]
        differences[:, start : start + step] = judged[0] - judged[1]
    return differences
