"""Accuracy, interval and p-value of each condition of the stability table, from held-out scores.

Notation: n rows, I items, A annotators, R repeats, C series (one annotator in one repeat and part), B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capo_core.statistics.significance import percentile_interval, resample_counts
from capo_core.stylometry.exchangeability import exchangeability_p_value, permute_within_blocks
from capo_core.stylometry.folding import Explanations, Folding, choose_rows
from capo_core.stylometry.groups import DrawnGroups, group_accuracies, present_cells
from capo_core.stylometry.held_out import HeldOutScores
from capo_core.stylometry.strata import Strata
from schemas.config import StabilityConfig

N_GROUPS = 1000
"""Groups per annotator, repeat and size for the accuracy itself."""
N_RESAMPLED_GROUPS = 100
"""The same in every bootstrap resample."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measure:
    """One condition and stratum to measure.

    Attributes:
        condition: human | shuffled | label_fixed | label_left_out | genre_left_out.
        stratum: the label or genre; None for all together.
        kind: of the held-out scores.
        parts: [n] booleans each; groups are drawn within a part, and accuracy is the mean over parts.
        blocks: [n] block of every row within which the permutation test permutes; None for no test.
    """

    condition: str
    stratum: str | None
    kind: str
    parts: tuple[np.ndarray, ...]
    blocks: np.ndarray | None


@dataclass(frozen=True)
class Figure:
    """Attribution accuracy of groups of one size.

    Attributes:
        accuracy: None where not measured.
        ci_low: None where too few resamples allow groups of the size.
        ci_high: likewise.
        n_groups: distinct or drawn groups behind the accuracy.
        n_items: items with an explanation to attribute.
        n_repeats: foldings or shuffles averaged over.
    """

    accuracy: float | None
    ci_low: float | None
    ci_high: float | None
    n_groups: int
    n_items: int
    n_repeats: int


@dataclass(frozen=True)
class Accuracies:
    """Shares of groups of one size attributed to their owners, by series.

    Attributes:
        owners: [C] index of the annotator of every series.
        whole: [C] over all items; NaN where a series has too few items.
        resampled: [B, C] in every bootstrap resample of items.
        present: [C, I] whether the series has an explanation of the item.
        group_size: k.
        n_repeats: R.
    """

    owners: np.ndarray
    whole: np.ndarray
    resampled: np.ndarray
    present: np.ndarray
    group_size: int
    n_repeats: int

    def summarise(self, annotator: int | None = None) -> Figure:
        """Return the mean over series of all annotators, or of one."""
        mine = np.ones(len(self.owners), dtype=bool) if annotator is None else self.owners == annotator
        n_items = int(self.present[mine].any(axis=0).sum())
        measured = mine & ~np.isnan(self.whole)
        if not measured.any():
            return Figure(None, None, None, 0, n_items, 0)
        bounds = percentile_interval(self.resampled[:, measured].mean(axis=1), CONFIDENCE)
        low, high = (None if np.isnan(bound) else bound for bound in bounds)
        n_groups = int(self.present[measured].sum()) if self.group_size == 1 else int(measured.sum()) * N_GROUPS
        return Figure(float(self.whole[measured].mean()), low, high, n_groups, n_items, self.n_repeats)


class GroupMeter:
    """Measures every variant, condition and stratum on the same groups, resamples and permutations."""

    def __init__(self, explanations: Explanations, foldings: Sequence[Folding], config: StabilityConfig) -> None:
        """Draw the bootstrap resamples of items."""
        self._explanations = explanations
        self._foldings = foldings
        self._config = config
        n_items = int(explanations.items.max()) + 1
        counts = resample_counts(n_items, config.n_bootstrap, np.random.default_rng(config.seed))
        self._whole = DrawnGroups(np.ones((1, n_items), dtype=int), N_GROUPS, config.seed)
        self._resampled = DrawnGroups(counts, N_RESAMPLED_GROUPS, config.seed)
        self._permuted: dict[bytes, np.ndarray] = {}

    def measure_groups(self, measure: Measure, scores: HeldOutScores, group_size: int) -> Accuracies:
        """Return the accuracies of groups of one size."""
        series = self._arrange(measure, scores)
        n_annotators = len(self._explanations.annotators)
        owners = np.tile(np.arange(n_annotators), len(series) // n_annotators)
        whole = group_accuracies(series, owners, group_size, self._whole)[0]
        resampled = group_accuracies(series, owners, group_size, self._resampled)
        return Accuracies(owners, whole, resampled, present_cells(series), group_size, len(self._foldings))

    def measure_p_value(self, measure: Measure, scores: HeldOutScores) -> float | None:
        """Return the within-block permutation p-value of single explanations; None for none."""
        if measure.blocks is None:
            return None
        chained = scores.chained[measure.kind]
        judged = np.isfinite(chained).all(axis=1) & np.any(measure.parts, axis=0)
        verdicts = np.where(judged, np.where(judged[:, None], chained, 0.0).argmax(axis=1), -1)
        p_value = exchangeability_p_value(verdicts, self._explanations.owners, self._permute(measure.blocks))
        return None if np.isnan(p_value) else p_value

    def _arrange(self, measure: Measure, scores: HeldOutScores) -> np.ndarray:
        """Return the scores as series, [C, I, A]: repeat by repeat, part by part, one series per annotator."""
        series = []
        for folding, by_kind in zip(self._foldings, scores.repeats, strict=True):
            owners = folding.shuffled if measure.condition == "shuffled" else self._explanations.owners
            for part in measure.parts:
                slots = choose_rows(self._explanations, folding, owners, part)
                series.append(np.where((slots >= 0)[:, :, None], by_kind[measure.kind][slots], np.nan))
        return np.moveaxis(np.concatenate(series, axis=1), 1, 0)

    def _permute(self, blocks: np.ndarray) -> np.ndarray:
        """Return the permuted owners, drawn once per kind of block, the same in every run."""
        key = blocks.tobytes()
        if key not in self._permuted:
            rng = np.random.default_rng([self._config.seed, 1])
            self._permuted[key] = permute_within_blocks(
                self._explanations.owners, blocks, self._config.n_permutations, rng
            )
        return self._permuted[key]


def list_measures(explanations: Explanations, strata: Mapping[str, Strata]) -> list[Measure]:
    """Return what is measured of a variant: human, shuffled and, for each kind of strata, fixed and left out.

    Args:
        explanations: n rows.
        strata: "label", "genre" or none of them.
    """
    everything = (np.ones(len(explanations.owners), dtype=bool),)
    measures = [
        Measure("human", None, "human", everything, explanations.items),
        Measure("shuffled", None, "shuffled", everything, None),
    ]
    for name, found in strata.items():
        blocks = explanations.items * (len(found.names) + 1) + found.of_row + 1
        parts = tuple(found.of_row == number for number in range(len(found.names)))
        one_by_one = list(zip(found.names, [(part,) for part in parts], strict=True))
        if name == "label":
            for stratum, own in [(None, parts), *one_by_one]:
                measures.append(Measure("label_fixed", stratum, "human", own, blocks))
        left_out = f"{name}_left_out"
        for stratum, own in [(None, (found.of_row >= 0,)), *one_by_one]:
            measures.append(Measure(left_out, stratum, left_out, own, blocks))
    return measures
