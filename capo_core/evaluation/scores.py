"""What is measured on every item, and how it becomes one figure per annotator in every resample.

Scores that average over items are `ItemScores`; attribution of groups (`group_scores`) and figures of whole samples of
responses stand beside them. All answer the same questions, so that tables and comparisons treat them alike.

Notation: S seeds, A annotators (targets, and candidates of an attribution), I items, B resamples, k group size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np

from capo_core.statistics.significance import (
    Resamples,
    draw_resamples,
    hierarchical_ratios,
    paired_permutation_test,
    whole_sample,
)
from capo_core.stylometry.groups import DrawnGroups
from schemas.config import EvaluationConfig

GROUPS_AT_ESTIMATE = 10
"""The point estimate draws this many times the groups of a resample: it is one "resample", and its noise is seen."""


class ScoreName(NamedTuple):
    """Which figure a score is of; None where a part does not apply."""

    method: str
    decision: str | None
    metric: str
    condition: str | None = None
    group_size: int | None = None
    classifier: str | None = None


@dataclass(frozen=True)
class Draws:
    """Resamples of items and seeds, and the groups drawn within each resample of items."""

    resamples: Resamples
    groups: DrawnGroups


class Resampling:
    """The resamples of one evaluation: the same for every method and metric, so that differences are paired."""

    def __init__(self, n_items: int, config: EvaluationConfig) -> None:
        self.n_items = n_items
        self.config = config
        bootstrapped = draw_resamples(n_items, 1, config.n_bootstrap, config.seed).item_counts
        whole = whole_sample(n_items, 1).item_counts
        self._groups = DrawnGroups(bootstrapped, config.n_groups, config.seed)
        self._whole_groups = DrawnGroups(whole, GROUPS_AT_ESTIMATE * config.n_groups, config.seed)

    def whole(self, n_seeds: int) -> Draws:
        """Return the sample itself, for point estimates."""
        return Draws(whole_sample(self.n_items, n_seeds), self._whole_groups)

    def bootstrap(self, n_seeds: int) -> Draws:
        """Return the bootstrap resamples of items and seeds, for intervals."""
        resamples = draw_resamples(self.n_items, n_seeds, self.config.n_bootstrap, self.config.seed)
        return Draws(resamples, self._groups)

    def bootstrap_items(self, n_seeds: int) -> Draws:
        """Return the same resamples of items with every seed once, for the spread between items alone."""
        resamples = draw_resamples(self.n_items, n_seeds, self.config.n_bootstrap, self.config.seed)
        return Draws(Resamples(resamples.item_counts, np.ones_like(resamples.seed_counts)), self._groups)

    def each_seed(self, n_seeds: int) -> Draws:
        """Return one "resample" per seed: all items, and that seed alone."""
        items = np.ones((n_seeds, self.n_items), dtype=int)
        return Draws(Resamples(items, np.eye(n_seeds, dtype=int)), self._whole_groups)


class Scores(Protocol):
    """One figure of one method, from which its value can be computed in any resample.

    Axis S of everything returned has `n_slices` slices: one per seed; where `seeds` is () no seed enters, and the
    slices, usually one, have equal weight.
    """

    @property
    def name(self) -> ScoreName:
        """Which figure this is."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """Axis S; () for what no seed enters."""
        ...

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        ...

    def present(self) -> np.ndarray:
        """Return which cells have a score, [S, A, I] booleans."""
        ...

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: none where too few have a score."""
        ...

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the figure per resample and annotator, [B, A], NaN where not measured."""
        ...

    def at_seeds(self, seeds: tuple[int, ...]) -> Self:
        """Return the scores of `seeds`, in that order; what no seed enters stands at each of them."""
        ...

    def only(self, cells: np.ndarray) -> Self:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        ...

    def swap_p_value(self, other: Self, resampling: Resampling) -> float:
        """Return the two-sided p-value of the difference to `other` under swapping the two methods item by item.

        An item's responses change places for all annotators and seeds at once.

        Args:
            other: scores of the other method, present in the same cells.
            resampling: of the evaluation; gives seed, groups and number of permutations.

        Returns:
            p in (0, 1]; NaN where nothing is measured.

        Raises:
            TypeError: if the scores are not of one kind.
        """
        ...


def rows_of_seeds(own: tuple[int, ...], wanted: tuple[int, ...], n_slices: int = 1) -> list[int]:
    """Return the slice of axis S of each wanted seed; what no seed enters has its only slice at each.

    Raises:
        ValueError: if a wanted seed is not among the scores' own, or no seed enters and there are several slices, of
            which none is the one to take.
    """
    if own:
        return [own.index(seed) for seed in wanted]
    if n_slices > 1 and wanted:
        raise ValueError(f"{n_slices} slices that belong to no seed cannot stand at the seeds {list(wanted)}")
    return [0] * len(wanted)


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
        """Return the scores of `seeds`, in that order; what no seed enters stands at each of them."""
        rows = rows_of_seeds(self.seeds, seeds, self.n_slices)
        return ItemScores(self.name, seeds, self.numerators[rows], self.denominators[rows])

    def only(self, cells: np.ndarray) -> ItemScores:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        parts = (np.where(cells, values, 0.0) for values in (self.numerators, self.denominators))
        return ItemScores(self.name, self.seeds, *parts)

    def swap_p_value(self, other: ItemScores, resampling: Resampling) -> float:
        """Return the p-value under swapping the methods item by item, which turns the sign of what an item contributes.

        An item contributes d_i = mean over annotators of (its numerators' difference / the annotator's denominators).
        For ratios the denominators of both methods are taken as the first one's.

        Raises:
            TypeError: if `other` is not ItemScores.
        """
        if not isinstance(other, ItemScores):
            raise TypeError(f"cannot compare ItemScores with {type(other).__name__}")
        measured = self.measured()
        n_cells = self.denominators.sum(axis=(0, 2))
        annotators = n_cells > 0
        if not annotators.any():
            return float("nan")
        differences = (self.numerators - other.numerators).sum(axis=0)[annotators]
        contributions = (differences / n_cells[annotators, None]).mean(axis=0)
        return paired_permutation_test(contributions[measured.any(axis=(0, 1))], seed=resampling.config.seed)


def mean_scores(name: ScoreName, seeds: tuple[int, ...], values: np.ndarray) -> ItemScores:
    """Return scores that are averaged over cells, [S, A, I], NaN where not measured."""
    measured = ~np.isnan(values)
    return ItemScores(name, seeds, np.where(measured, values, 0.0), measured.astype(float))


def mean_over_first_axis(values: np.ndarray) -> np.ndarray:
    """Return the mean of what is not NaN along axis 0, keeping that axis with one slice; NaN where nothing is."""
    present = ~np.isnan(values)
    n = present.sum(axis=0, keepdims=True)
    total = np.where(present, values, 0.0).sum(axis=0, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, total / n, np.nan)
