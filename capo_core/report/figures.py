"""The report's figures: panels side by side, each with a title, under one legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from markupsafe import Markup

from capo_core.report.analysis_tables import CURVE_TITLES
from capo_core.report.charts import Curve, Dot, Point, Reference, draw_curves, draw_dots
from capo_core.report.data import ALL, ReportData, matching
from capo_core.report.formats import format_estimate, format_value, is_measured
from capo_core.report.result_tables import describe_variant
from capo_core.report.terms import (
    NORMALISATION_TITLES,
    REDUCTION_TITLES,
    condition_title,
    method_class,
    method_title,
    metric_term,
    order_conditions,
    order_methods,
    order_metrics,
)

FLOOR_LABEL = "Shuffled (floor)"
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


def method_colour(method: str) -> str:
    """Return the CSS colour of a method."""
    return f"var(--{method_class(method).replace('_', '-')})"


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
            LegendEntry("held-out human text (ceiling for any model)", "line line-human"),
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


def draw_attribution(data: ReportData, group_sizes: Sequence[int] | None = None) -> Figure:
    """Return attribution accuracy by method: a panel per decision and group size, as written and surface removed.

    Args:
        data: the report's data.
        group_sizes: sizes shown; None shows all.
    """
    rows = matching(data.metrics, metric="attribution_accuracy", annotator_id=ALL)
    sizes = sorted(rows["group_size"].drop_nulls().unique().to_list()) if group_sizes is None else list(group_sizes)
    generated = rows.filter(~pl.col("method").is_in(["human"]))
    decisions = sorted(generated["decision"].unique().to_list(), key=lambda name: name or "", reverse=True)
    panels = [
        panel
        for decision in decisions or [None]
        for size in sizes
        if (panel := _attribution_panel(rows, decision, size, len(data.annotators)))
    ]
    return Figure(
        f"Attribution accuracy by method, groups of k explanations, with {data.confidence_percent} intervals",
        tuple(panels),
        (
            LegendEntry("as written", "dot dot-filled"),
            LegendEntry("surface removed: no case, punctuation or spacing", "dot dot-hollow"),
            LegendEntry("chance", "line line-chance"),
        ),
    )


def _attribution_panel(rows: pl.DataFrame, decision: str | None, size: int, n_annotators: int) -> Panel | None:
    """Return the panel of one decision and group size; human text and the floor belong to every decision."""
    at_size = matching(rows, group_size=size)
    fitting = at_size.filter(pl.col("decision").is_null() | pl.col("decision").eq_missing(pl.lit(decision)))
    dots = [
        dot
        for method in order_methods(fitting["method"].to_list())
        for dot in _method_dots(matching(fitting, method=method), method)
    ]
    if not dots:
        return None
    dots.sort(key=lambda dot: dot.label == FLOOR_LABEL)
    title = f"Groups of {size}" + (f", {decision}" if decision else "")
    description = f"Attribution accuracy by method, {title}. Figures in the table of results."
    references = [Reference(1 / n_annotators)] if n_annotators else []
    return Panel(title, draw_dots(dots, description=description, domain=SHARE_DOMAIN, references=references))


def _method_dots(rows: pl.DataFrame, method: str) -> list[Dot]:
    """Return one method's dots under each condition; shuffled text gets a row of its own, the floor."""
    dots = []
    rank = {condition: i for i, condition in enumerate(order_conditions(rows["condition"].to_list()))}
    for row in sorted(rows.iter_rows(named=True), key=lambda row: rank[row["condition"]]):
        is_floor = row["condition"] == "shuffled"
        label = FLOOR_LABEL if is_floor else method_title(method)
        if method == "human" and not is_floor:
            label = "Human (ceiling)"
        dots.append(
            _dot(
                row,
                label,
                condition_title(row["condition"]),
                colour="var(--floor)" if is_floor else method_colour(method),
                is_hollow=row["condition"] == "surface_normalised",
            )
        )
    return dots


def _dot(row: dict, label: str, variant: str, *, colour: str, is_hollow: bool) -> Dot:
    """Return one METRICS row as a dot, absent values as None."""
    term = metric_term(row["metric"])
    value, low, high = (row[name] if is_measured(row[name]) else None for name in ("value", "ci_low", "ci_high"))
    n = f", n {row['n']:,}" if row["n"] is not None else ""
    estimate = format_estimate(value, low, high, share=term.share)
    tip = f"{label}{', ' + variant if variant else ''}: {estimate}{n}"
    low, high = (low, high) if low is not None and high is not None else (None, None)
    return Dot(label, value, low, high, colour, tip, is_hollow, lane=int(is_hollow))


def draw_metric_panels(
    metrics: pl.DataFrame, caption: str, *, leave_out: Sequence[str] = (), chance: float = 0
) -> Figure:
    """Return one panel per metric with methods as rows, sampled filled and constrained hollow.

    Args:
        metrics: METRICS rows; those of "all" annotators are drawn.
        caption: the figure's caption.
        leave_out: metrics not drawn.
        chance: where above 0, drawn as a line in the panels of accuracies.
    """
    rows = metrics.filter((pl.col("annotator_id") == ALL) & ~pl.col("metric").is_in(list(leave_out)))
    panels = []
    for name in order_metrics(rows["metric"].to_list()):
        own = matching(rows, metric=name)
        variants = own.select("condition", "group_size").unique().rows()
        for condition, size in sorted(variants, key=lambda key: (key[0] or "", key[1] or 0)):
            part = matching(own, condition=condition, group_size=size)
            panels.append(_metric_panel(part, name, describe_variant(None, condition, size), chance))
    decisions = set(rows["decision"].drop_nulls().to_list())
    entries = [LegendEntry("sampled freely", "dot dot-filled"), LegendEntry("constrained decision", "dot dot-hollow")]
    return Figure(caption, tuple(panels), tuple(entries) if {"sampled", "constrained"} <= decisions else ())


def _metric_panel(rows: pl.DataFrame, name: str, variant: str, chance: float) -> Panel:
    """Return the panel of one metric in one variant."""
    term = metric_term(name)
    dots = [
        _dot(
            row,
            "Majority (floor)" if method == "majority" else method_title(method),
            row["decision"] or "",
            colour=method_colour(method),
            is_hollow=row["decision"] == "constrained",
        )
        for method in order_methods(rows["method"].to_list())
        for row in matching(rows, method=method).sort("decision", descending=True).iter_rows(named=True)
    ]
    references = []
    if chance > 0 and name.endswith("accuracy"):
        references.append(Reference(chance))
    if name.endswith("specificity"):
        references.append(Reference(0.0))
    if term.better == "nearer one":
        references.append(Reference(1.0))
    is_whole = term.share and not name.endswith("specificity")
    title = term.title + (f", {variant}" if variant else "")
    description = f"{title} by method. Figures in the table of results."
    domain = SHARE_DOMAIN if is_whole and all(0 <= v <= 1 for v in rows["value"].drop_nulls()) else None
    return Panel(title, draw_dots(dots, description=description, domain=domain, references=references))


def draw_differences(data: ReportData, method_a: str, method_b: str) -> Figure:
    """Return a minus b with intervals for every metric that is a share, one panel per decision."""
    rows = matching(data.comparisons, method_a=method_a, method_b=method_b)
    rows = rows.filter(pl.col("metric").map_elements(lambda name: metric_term(name).share, return_dtype=pl.Boolean))
    panels = []
    for decision in sorted(rows["decision"].unique().to_list(), key=lambda name: name or "", reverse=True):
        dots = [_difference_dot(row) for row in _order_rows(matching(rows, decision=decision))]
        title = f"{method_title(method_a)} minus {method_title(method_b)}" + (f", {decision}" if decision else "")
        description = f"{title}: differences with intervals. Figures in the table of comparisons."
        panels.append(Panel(title, draw_dots(dots, description=description, references=[Reference(0.0, dash=(1, 0))])))
    caption = f"Differences with {data.confidence_percent} intervals; one that crosses the line at 0 shows nothing"
    return Figure(caption, tuple(panels))


def _order_rows(rows: pl.DataFrame) -> list[dict]:
    """Return comparisons in the report's order of metrics, conditions and sizes."""
    rank = {name: i for i, name in enumerate(order_metrics(rows["metric"].to_list()))}
    return sorted(
        rows.iter_rows(named=True),
        key=lambda row: (rank[row["metric"]], row["condition"] or "", row["group_size"] or 0),
    )


def _difference_dot(row: dict) -> Dot:
    """Return one comparison as a dot; filled where the interval excludes 0, a ring where it does not."""
    term = metric_term(row["metric"])
    short = {"raw": "", "surface_normalised": " surf."}.get(row["condition"] or "raw", f" {row['condition']}")
    size = f" k{row['group_size']}" if row["group_size"] is not None else ""
    label = f"{term.title.removesuffix(' accuracy')}{size}{short}"
    value, low, high = (row[n] if is_measured(row[n]) else None for n in ("difference", "ci_low", "ci_high"))
    crosses = low is None or high is None or low <= 0 <= high
    tip = f"{term.title}, {describe_variant(row['decision'], row['condition'], row['group_size'])}: " + (
        format_estimate(value, low, high, share=term.share) if value is not None else format_value(None)
    )
    return Dot(label, value, low, high, "var(--accent)", tip, is_hollow=crosses)
