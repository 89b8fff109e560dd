"""The report's figures: panels side by side, each with a title, under one legend."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

from capo_core.report.charts import Curve, Point, Reference, draw_curves
from capo_core.report.data import ReportData, is_finite, matching
from capo_core.report.formats import format_estimate
from capo_core.report.terms import CLASSIFIER_TITLES, NORMALISATION_TITLES, REDUCTION_TITLES

SHARE_DOMAIN = (0.0, 1.0)

_STABILITY_COLOURS = ("var(--human)", "var(--accent)")
"""Of text as written, and with the surface removed."""


@dataclass(frozen=True)
class LegendEntry:
    """A swatch with its meaning; `style` names a style class of the page.

    `colour` is the CSS colour of the marks it stands for, where choosing the entry can make them stand out.
    """

    text: str
    style: str
    colour: str = ""


@dataclass(frozen=True)
class Panel:
    """One drawing under its title; panels of several group sizes can be chosen among."""

    title: str
    svg: Markup
    group_size: int | None = None


@dataclass(frozen=True)
class Figure:
    """Panels that belong together; none at all is shown as `not measured`."""

    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...] = ()


def draw_stability(data: ReportData) -> Figure:
    """Return attribution accuracy over k: a panel per reduction and classifier, each with its shuffled floor."""
    stability = data.stability.filter(is_finite("accuracy") & pl.col("stratum").is_null())
    human = matching(stability, condition="human")
    pairs = human.select("reduction", "classifier").unique().rows()
    pairs.sort(key=lambda pair: (_rank(REDUCTION_TITLES, pair[0]), _rank(CLASSIFIER_TITLES, pair[1])))
    panels = tuple(
        _stability_panel(matching(stability, reduction=reduction, classifier=classifier), reduction, classifier)
        for reduction, classifier in pairs
    )
    legend = (
        LegendEntry("held-out human text as written", "line line-human", "var(--human)"),
        LegendEntry("surface removed", "line line-accent", "var(--accent)"),
        LegendEntry("authors shuffled within items (floor)", "line line-floor", "var(--floor)"),
        LegendEntry("chance", "line line-chance"),
    )
    return Figure("Attribution accuracy by group size k, with 95% bands", panels, legend)


def _rank(titles: dict[str, str], name: str) -> tuple[int, str]:
    """Return the place of a name among known titles, unknown ones last by name."""
    return (list(titles).index(name) if name in titles else len(titles), name)


def _stability_panel(points: pl.DataFrame, reduction: str, classifier: str) -> Panel:
    """Return the curves of one reduction and classifier, as written and with the surface removed."""
    by = f", by {CLASSIFIER_TITLES.get(classifier, classifier)}"
    title = REDUCTION_TITLES.get(reduction, reduction) + by
    curves = []
    for condition, colours in (("shuffled", ("var(--floor)", "var(--floor)")), ("human", _STABILITY_COLOURS)):
        for normalisation, colour in zip(NORMALISATION_TITLES, colours, strict=True):
            rows = matching(points, condition=condition, normalisation=normalisation)
            is_floor = condition == "shuffled"
            drawn = Curve(_stability_points(rows, is_floor), colour, (5, 4) if is_floor else (), has_dots=not is_floor)
            curves += [drawn] if drawn.points else []
    sizes = sorted(points["group_size"].unique().to_list())
    chance = [Reference(value) for value in sorted(points["chance"].drop_nulls().unique().to_list())]
    description = f"{title}: attribution accuracy by group size, human text and shuffled authors. Figures in the table."
    drawing = draw_curves(
        curves, description=description, x_title="group size k", x_ticks=sizes, domain=SHARE_DOMAIN, references=chance
    )
    return Panel(title, drawing)


def _stability_points(rows: pl.DataFrame, is_floor: bool) -> tuple[Point, ...]:
    """Return the points of one curve in order of k; the floor's without a band."""
    return tuple(
        Point(
            row["group_size"],
            row["accuracy"],
            None if is_floor else row["ci_low"],
            None if is_floor else row["ci_high"],
            f"{NORMALISATION_TITLES.get(row['normalisation'], row['normalisation'])}, k = {row['group_size']}: "
            f"{format_estimate(row['accuracy'], row['ci_low'], row['ci_high'], share=True)}",
        )
        for row in rows.sort("group_size").iter_rows(named=True)
    )
