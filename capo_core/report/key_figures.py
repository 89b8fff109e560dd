"""The few figures that the report leads with, and how each is found: attribution never without distance beside it."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from capo_core.report.data import (
    ALL,
    Difference,
    Estimate,
    choose_decision,
    choose_group_size,
    find_difference,
    find_estimate,
    is_finite,
    matching,
)
from capo_core.report.metric_terms import metric_term
from capo_core.report.terms import SURFACE, condition_title, floor_of

ATTRIBUTION = "attribution_accuracy"
TOLD_APART = "distinguishability"
STYLE_DISTANCE = "style_distance"
LENGTH_RATIO = "length_ratio"
NEAR_DUPLICATES = "near_duplicate_rate"
LABEL_AGREEMENT = "label_agreement"
CLASSIFIER = "ngrams"
"""The classifier whose figures lead; those of others stand beside them in the tables of all variants."""


class FigureKey(NamedTuple):
    """Which figure of METRICS or COMPARISONS is meant; None where a part does not apply."""

    metric: str
    decision: str | None = None
    condition: str | None = None
    classifier: str | None = None
    group_size: int | None = None

    @property
    def title(self) -> str:
        """What the figure is called, e.g. `Attribution accuracy, k = 5, surface removed`."""
        size = f"k = {self.group_size}" if self.group_size is not None else ""
        parts = [metric_term(self.metric).title, size, condition_title(self.condition)]
        return ", ".join(part for part in parts if part)

    def find(self, metrics: pl.DataFrame, method: str, annotator_id: str = ALL) -> Estimate | None:
        """Return a method's figure under the decision, or without one where the method decides nothing."""
        keys = {"method": method, "annotator_id": annotator_id, **self._asdict()}
        return find_estimate(metrics, **keys) or find_estimate(metrics, **{**keys, "decision": None})

    def compare(self, comparisons: pl.DataFrame, method_a: str = "capo", method_b: str = "sft") -> Difference | None:
        """Return `method_a` minus `method_b`."""
        return find_difference(comparisons, method_a, method_b, **self._asdict())

    def under(self, condition: str | None) -> FigureKey:
        """Return the same figure under another condition."""
        return self._replace(condition=condition)

    def floor(self) -> FigureKey:
        """Return the same figure of text whose authors were shuffled within items."""
        return self.under(floor_of(self.condition or "raw"))


class KeyFigures(NamedTuple):
    """The choice of group size, decision and condition that the report leads with.

    Attributes:
        group_size: of attribution: 5, or the size nearest to it.
        decision: sampled, where the trained methods' text was.
        condition: surface_normalised where it was measured, else raw: half of a raw gain can be punctuation.
    """

    group_size: int
    decision: str | None
    condition: str

    @property
    def leading(self) -> FigureKey:
        """Attribution under the condition that the summary quotes."""
        return self.attribution(self.condition)

    @property
    def distances(self) -> tuple[FigureKey, FigureKey]:
        """What attribution is read beside: told from the person, and style distance."""
        return self.told_apart(self.condition), self.plain(STYLE_DISTANCE)

    def attribution(self, condition: str) -> FigureKey:
        """Return attribution accuracy under a condition."""
        return FigureKey(ATTRIBUTION, self.decision, condition, CLASSIFIER, self.group_size)

    def told_apart(self, condition: str) -> FigureKey:
        """Return how well text is told from the person's own under a condition."""
        return FigureKey(TOLD_APART, self.decision, condition, CLASSIFIER)

    def plain(self, metric: str) -> FigureKey:
        """Return a figure of the text that knows neither condition nor size."""
        return FigureKey(metric, self.decision)


def choose_key_figures(metrics: pl.DataFrame) -> KeyFigures | None:
    """Return what the report leads with; None where attribution was not measured at all."""
    size = choose_group_size(metrics)
    if size is None:
        return None
    own = matching(metrics, metric=ATTRIBUTION, annotator_id=ALL, classifier=CLASSIFIER, group_size=size)
    conditions = set(own.filter(is_finite("value"))["condition"].to_list())
    condition = SURFACE if SURFACE in conditions else "raw"
    return KeyFigures(size, choose_decision(metrics, ATTRIBUTION, "sampled"), condition)
