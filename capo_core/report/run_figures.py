"""The figure of two runs: a panel per key figure, a row per method, run A filled and run B hollow."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from capo_core.report.charts import Dot, draw_dots
from capo_core.report.data import Estimate
from capo_core.report.figures import SHARE_DOMAIN, Figure, LegendEntry, Panel
from capo_core.report.formats import format_estimate
from capo_core.report.key_figures import ATTRIBUTION, LABEL_AGREEMENT, TOLD_APART, FigureKey
from capo_core.report.metric_terms import metric_term
from capo_core.report.result_figures import FLOOR_LABEL, method_colour
from capo_core.report.terms import method_title

_WHOLE = (ATTRIBUTION, TOLD_APART, LABEL_AGREEMENT)
"""Drawn from 0 to 1, others as far as they reach."""


def draw_runs(first: pl.DataFrame, second: pl.DataFrame, methods: Sequence[str], keys: Sequence[FigureKey]) -> Figure:
    """Return the key figures of two runs side by side.

    Args:
        first: METRICS of run A, with people's text as ceiling and floor.
        second: METRICS of run B.
        methods: rows, as far as both runs have them.
        keys: one panel each, those left out that neither run has.
    """
    panels = [panel for key in keys if (panel := _draw_key(first, second, methods, key))]
    legend = (LegendEntry("run A", "dot dot-filled"), LegendEntry("run B", "dot dot-hollow"))
    return Figure("Key figures of both runs, with intervals", tuple(panels), legend)


def _draw_key(first: pl.DataFrame, second: pl.DataFrame, methods: Sequence[str], key: FigureKey) -> Panel | None:
    """Return the panel of one figure; None where no method has it in either run."""
    dots = []
    for method in methods:
        for lane, (name, metrics) in enumerate((("run A", first), ("run B", second))):
            found = key.find(metrics, method)
            if found is not None:
                dots.append(_dot(method_title(method), name, found, method_colour(method), key, lane))
    if not dots:
        return None
    ceiling = key.find(first, "human")
    if ceiling is not None:
        dots.insert(0, _dot("Human text", "held out", ceiling, method_colour("human"), key, 0))
    floor = key.floor().find(first, "human") if key.metric == ATTRIBUTION else None
    if floor is not None:
        dots.append(_dot(FLOOR_LABEL, "authors shuffled", floor, "var(--floor)", key, 0))
    title = key.title + (f", {key.decision}" if key.metric == LABEL_AGREEMENT and key.decision else "")
    domain = SHARE_DOMAIN if key.metric in _WHOLE else None
    return Panel(title, draw_dots(dots, description=f"{title} in both runs. Figures in the table.", domain=domain))


def _dot(label: str, run: str, found: Estimate, colour: str, key: FigureKey, lane: int) -> Dot:
    """Return one figure as a dot."""
    low, high = (found.low, found.high) if found.low is not None and found.high is not None else (None, None)
    estimate = format_estimate(found.value, low, high, share=metric_term(key.metric).share)
    return Dot(label, found.value, low, high, colour, f"{label}, {run}: {estimate}", is_hollow=lane == 1, lane=lane)
