"""The report's figures: panels side by side, each with a title, under one legend."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

from capo_core.report.analysis_tables import CURVE_TITLES
from capo_core.report.charts import Curve, Point, Reference, draw_curves
from capo_core.report.data import ReportData, matching
from capo_core.report.formats import format_estimate
from capo_core.report.terms import NORMALISATION_TITLES, REDUCTION_TITLES

SHARE_DOMAIN = (0.0, 1.0)


@dataclass(frozen=True)
class LegendEntry:
    """A swatch with its meaning; `style` names a style class of the page."""

    text: str
    style: str


@dataclass(frozen=True)
class Panel:
    """One drawing under its title."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Figure:
    """Panels that belong together; none at all is shown as `not measured`."""

    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...] = ()


def draw_stability(data: ReportData) -> Figure:
    """Return attribution accuracy over k: a panel per reduction and normalisation, human text against shuffled."""
    stability = data.stability.filter(pl.col("accuracy").is_not_null())
    keys = sorted(
        stability.select("normalisation", "reduction").unique().rows(),
        key=lambda key: (_rank(NORMALISATION_TITLES, key[0]), _rank(REDUCTION_TITLES, key[1])),
    )
    panels = tuple(
        _stability_panel(
            matching(stability, normalisation=normalisation, reduction=reduction), reduction, normalisation
        )
        for normalisation, reduction in keys
    )
    return Figure(
        f"Attribution accuracy by group size k, with {data.confidence_percent} bands",
        panels,
        (
            LegendEntry("held-out human text (ceiling)", "line line-human"),
            LegendEntry("authors shuffled within items (floor)", "line line-floor"),
            LegendEntry("chance", "line line-chance"),
        ),
    )


def _rank(titles: dict[str, str], name: str) -> tuple[int, str]:
    """Return the place of a name among known titles, unknown ones last by name."""
    return (list(titles).index(name) if name in titles else len(titles), name)


def _stability_panel(points: pl.DataFrame, reduction: str, normalisation: str) -> Panel:
    """Return the curves of one reduction and normalisation."""
    reduction_title = REDUCTION_TITLES.get(reduction, reduction)
    title = f"{reduction_title}, {NORMALISATION_TITLES.get(normalisation, normalisation)}"
    curves = [
        Curve(_stability_points(matching(points, condition=condition)), colour, dash, is_hollow=condition == "shuffled")
        for condition, colour, dash in (("shuffled", "var(--floor)", (5, 4)), ("human", "var(--human)", ()))
    ]
    sizes = sorted(points["group_size"].unique().to_list())
    chance = [Reference(value) for value in points["chance"].drop_nulls().unique().to_list()]
    description = f"{title}: attribution accuracy by group size, human text and shuffled authors. Figures in the table."
    drawing = draw_curves(
        curves, description=description, x_title="group size k", x_ticks=sizes, domain=SHARE_DOMAIN, references=chance
    )
    return Panel(title, drawing)


def _stability_points(rows: pl.DataFrame) -> tuple[Point, ...]:
    """Return the points of one curve in order of k."""
    return tuple(
        Point(
            row["group_size"],
            row["accuracy"],
            row["ci_low"],
            row["ci_high"],
            f"{CURVE_TITLES.get(row['condition'], row['condition'])}, k = {row['group_size']}: "
            f"{format_estimate(row['accuracy'], row['ci_low'], row['ci_high'], share=True)}",
        )
        for row in rows.sort("group_size").iter_rows(named=True)
    )
