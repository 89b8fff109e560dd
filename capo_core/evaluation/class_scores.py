"""Macro-averaged F1 of labels: not a mean over items, so every resample counts its confusions anew.

Per annotator and seed, over the items on which there is a response and the person gave labels T (usually one):

- a response in T is a true positive of its label;
- a readable response not in T is a false positive of its label, and a false negative of the person's label;
- a response whose label cannot be read is a false negative of the person's label only;
- where the person gave several labels, a right response counts for the label answered, and a false negative counts
  1 / |T| for each, so that every item weighs one, as it does in `label_agreement`.

The classes averaged over are those with a true positive or false negative, that is those the person gave. They are the
same for every method (up to items with several labels), so that differences between methods are differences in F1, not
in what is averaged. A wrong answer naming a class the person never gave still costs the class it missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from capo_core.evaluation.scores import Draws, Resampling, ScoreName, rows_of_seeds
from capo_core.statistics.significance import (
    N_PERMUTATIONS,
    draw_swaps,
    mean_of_defined,
    mean_over_seeds,
    p_value_of_null_draws,
)

_CHUNK_CELLS = 4_000_000


def indicate_labels(cells: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return which of the labels `names` each cell holds, [..., L] booleans.

    Args:
        cells: any shape, of a label, a sequence of labels, or None.
        names: the task's labels; others are ignored.
    """
    position = {name: i for i, name in enumerate(names)}
    indicators = np.zeros((cells.size, len(names)), dtype=bool)
    for row, held in enumerate(cells.flat):
        for label in (held,) if isinstance(held, str) else held or ():
            if label in position:
                indicators[row, position[label]] = True
    return indicators.reshape(*cells.shape, len(names))


@dataclass(frozen=True)
class MacroF1Scores:
    """Answers and targets of one method, from which the macro-averaged F1 is estimated in every resample.

    With counts weighted by how often an item stands in the resample, L_a the labels annotator a gave there (van
    Rijsbergen 1979, chapter 7; averaged over classes as by Sokolova and Lapalme 2009)::

        F1_c     = 2 TP_c / (2 TP_c + FP_c + FN_c)
        macro_F1 = mean over c in L_a of F1_c, then over seeds

    Attributes:
        name: which figure this is.
        seeds: axis S; () for what no seed enters, where all slices of that axis have equal weight.
        answers: [S, A, I, L] booleans, the label answered; none is true where it cannot be read.
        targets: [A, I, L] booleans, the labels the person gave.
        cells: [S, A, I] booleans, whether there is a response and a target.
    """

    name: ScoreName
    seeds: tuple[int, ...]
    answers: np.ndarray
    targets: np.ndarray
    cells: np.ndarray

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        return self.cells.shape[0]

    def present(self) -> np.ndarray:
        """Return which cells have a response and a target, [S, A, I] booleans."""
        return self.cells

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: all that are present."""
        return self.cells

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return macro-F1 per resample and annotator, [B, A], NaN where not measured."""
        counts = _weigh(self._counts(), draws.resamples.item_counts)
        by_seed = macro_f1(*np.moveaxis(counts, -1, 0))  # [B, S, A]
        return mean_over_seeds(by_seed, draws.resamples)

    def at_seeds(self, seeds: tuple[int, ...]) -> MacroF1Scores:
        """Return the scores of `seeds`, in that order; what no seed enters stands at each of them.

        Raises:
            ValueError: if no seed enters and there are several slices: none of them is the one to take.
        """
        if not self.seeds and self.n_slices > 1:
            raise ValueError(f"{self.name}: {self.n_slices} slices without seeds cannot stand at seeds {seeds}")
        rows = rows_of_seeds(self.seeds, seeds)
        return replace(self, seeds=seeds, answers=self.answers[rows], cells=self.cells[rows])

    def only(self, cells: np.ndarray) -> MacroF1Scores:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        return replace(self, cells=self.cells & cells)

    def swap_p_value(self, other: MacroF1Scores, resampling: Resampling) -> float:
        """Return the two-sided p-value of the difference under swapping the two methods item by item.

        An item's answers change places for all annotators and seeds at once, and F1 is computed again; the targets,
        and so the classes averaged over, stay. p = (1 + as extreme) / (1 + swaps drawn).

        Args:
            other: macro-F1 of the other method, present in the same cells.
            resampling: of the evaluation; gives the seed.

        Returns:
            p in (0, 1]; NaN where nothing is measured.

        Raises:
            TypeError: if `other` is another kind of score.
        """
        if not isinstance(other, MacroF1Scores):
            raise TypeError(f"cannot compare MacroF1Scores with {type(other).__name__}")
        if not self.cells.any():
            return float("nan")
        ours, theirs = self._counts(), other._counts()
        rng = np.random.default_rng([resampling.config.seed, 3])
        swaps = draw_swaps(ours.shape[2], N_PERMUTATIONS, rng)
        differences = np.empty(len(swaps))
        step = max(1, _CHUNK_CELLS // max(1, ours.size // ours.shape[2]))
        for start in range(0, len(swaps), step):
            swapped = swaps[start : start + step]
            change = _weigh(theirs - ours, swapped)
            both = [counts.sum(axis=2)[None] + sign * change for counts, sign in ((ours, 1), (theirs, -1))]
            by_seed = [macro_f1(*np.moveaxis(counts, -1, 0)) for counts in both]  # each [R, S, A]
            differences[start : start + step] = mean_of_defined(mean_of_defined(by_seed[0] - by_seed[1]))
        return p_value_of_null_draws(float(differences[0]), differences[1:])

    def _counts(self) -> np.ndarray:
        """Return true positives, false positives and false negatives, [S, A, I, L, 3], 0 outside the cells."""
        targets = np.broadcast_to(self.targets, self.answers.shape)
        right = self.answers & targets
        n_given = targets.sum(axis=-1, keepdims=True)
        missed = np.where(right.any(axis=-1, keepdims=True), 0.0, targets / np.maximum(n_given, 1))
        counts = np.stack([right, self.answers & ~targets, missed], axis=-1)
        return np.where(self.cells[..., None, None], counts, 0.0)


def macro_f1(true_positives: np.ndarray, false_positives: np.ndarray, false_negatives: np.ndarray) -> np.ndarray:
    """Return F1 averaged over the classes on the last axis that occur among the targets; NaN where none does.

    Args:
        true_positives: [..., L] non-negative counts.
        false_positives: [..., L].
        false_negatives: [..., L]; a class occurs where true positives + false negatives > 0.
    """
    # Differences of sums leave rounding errors; no count of ours is below 1 / L.
    occurs = true_positives + false_negatives > 1e-9
    denominators = 2 * true_positives + false_positives + false_negatives
    f1 = np.where(occurs, 2 * true_positives / np.where(occurs, denominators, 1.0), 0.0)
    n_classes = occurs.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_classes > 0, f1.sum(axis=-1) / n_classes, np.nan)


def _weigh(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return counts [S, A, I, L, 3] summed over items with each row of weights [B, I], [B, S, A, L, 3]."""
    n_items = counts.shape[2]
    by_item = np.moveaxis(counts, 2, 0).reshape(n_items, -1)
    shape = (len(weights), *counts.shape[:2], *counts.shape[3:])
    return (weights.astype(float) @ by_item).reshape(shape)
