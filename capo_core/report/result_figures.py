"""The figures of the results: attribution, the other metrics, and differences between methods."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from capo_core.report.charts import Dot, Reference, draw_dots
from capo_core.report.data import ALL, Difference, ReportData, is_finite, matching
from capo_core.report.figures import SHARE_DOMAIN, Figure, LegendEntry, Panel
from capo_core.report.findings import ATTRIBUTION, Headline
from capo_core.report.formats import format_estimate, is_measured
from capo_core.report.result_tables import describe_variant
from capo_core.report.terms import (
    condition_title,
    decision_rank,
    method_class,
    method_title,
    metric_term,
    order_conditions,
    order_methods,
    order_metrics,
)

OTHER_ANNOTATOR = "other_annotator"
FLOOR_LABEL = "Shuffled (floor)"
N_ANNOTATOR_PANELS = 12
"""Annotators with a panel of their own; the figures of more are in the tables."""

_WHOLE_SHARES = ("accuracy", "agreement", "rate")
"""Metrics with these endings are drawn from 0 to 1, others as far as they reach."""


def method_colour(method: str) -> str:
    """Return the CSS colour of a method."""
    return f"var(--{method_class(method).replace('_', '-')})"


def draw_accuracy(metrics: pl.DataFrame, metric: str, caption: str, n_annotators: int) -> Figure:
    """Return an accuracy of attribution by method: a panel per decision and group size.

    Args:
        metrics: METRICS rows; those of "all" annotators are drawn.
        metric: the accuracy drawn; by classifier, judge or raters.
        caption: the figure's caption.
        n_annotators: among whom is chosen; chance is 1/n.
    """
    rows = matching(metrics, metric=metric, annotator_id=ALL)
    sizes = sorted(rows["group_size"].unique().to_list(), key=lambda size: size or 0)
    decisions = sorted(rows.filter(pl.col("method") != "human")["decision"].unique().to_list(), key=decision_rank)
    panels = [
        _accuracy_panel(rows, size, decision, n_annotators, _group_title(size, decision))
        for decision in decisions or [None]
        for size in sizes
    ]
    return Figure(caption, tuple(panel for panel in panels if panel), _accuracy_legend(rows))


def draw_main_attribution(data: ReportData, main: Headline | None) -> Figure:
    """Return the one panel of attribution accuracy that the summary quotes."""
    if main is None:
        return Figure("", ())
    rows = matching(data.metrics, metric=ATTRIBUTION, annotator_id=ALL)
    title = f"{_group_title(main.group_size, main.decision)}, mean over annotators"
    panel = _accuracy_panel(rows, main.group_size, main.decision, len(data.annotators), title)
    caption = f"Attribution accuracy by method, with {data.confidence_percent} intervals"
    return Figure(caption, (panel,) if panel else (), _accuracy_legend(rows))


def draw_attribution_by_annotator(data: ReportData, main: Headline | None) -> Figure:
    """Return attribution accuracy by method, a panel per annotator; none where there are too many."""
    rows = matching(data.metrics, metric=ATTRIBUTION).filter(pl.col("annotator_id") != ALL)
    people = sorted(rows["annotator_id"].unique().to_list())
    if main is None or not 0 < len(people) <= N_ANNOTATOR_PANELS:
        return Figure("", ())
    key = (main.group_size, main.decision, len(data.annotators))
    panels = [_accuracy_panel(matching(rows, annotator_id=person), *key, person) for person in people]
    title = _group_title(main.group_size, main.decision)
    caption = f"Attribution accuracy by annotator: {title[0].lower()}{title[1:]}"
    return Figure(caption, tuple(panel for panel in panels if panel), _accuracy_legend(rows))


def _group_title(size: int | None, decision: str | None) -> str:
    """Return the title of the panel of one group size and decision."""
    groups = "All groups" if size is None else f"Groups of {size}"
    return groups + (f", {decision}" if decision else "")


def _accuracy_legend(rows: pl.DataFrame) -> tuple[LegendEntry, ...]:
    """Return the legend of accuracies; rings are explained only where there are some."""
    chance = LegendEntry("chance", "line line-chance")
    if matching(rows, condition="surface_normalised").is_empty():
        return (chance,)
    return (
        LegendEntry("as written", "dot dot-filled"),
        LegendEntry("surface removed: no case, punctuation or spacing", "dot dot-hollow"),
        chance,
    )


def _accuracy_panel(
    rows: pl.DataFrame, size: int | None, decision: str | None, n_annotators: int, title: str
) -> Panel | None:
    """Return the panel of one group size and decision; human text and the floor belong to every decision."""
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
    description = f"Accuracy of attribution by method, {title}. Figures in the table."
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


def draw_metric_panels(metrics: pl.DataFrame, caption: str, *, leave_out: Sequence[str] = ()) -> Figure:
    """Return one panel per measured metric with methods as rows, sampled filled and constrained hollow.

    Args:
        metrics: METRICS rows; those of "all" annotators are drawn.
        caption: the figure's caption.
        leave_out: metrics not drawn.
    """
    rows = metrics.filter((pl.col("annotator_id") == ALL) & ~pl.col("metric").is_in(list(leave_out)))
    measured = rows.filter(is_finite("value"))["metric"].unique()
    panels = []
    for name in order_metrics(measured.to_list()):
        own = matching(rows, metric=name)
        # Another annotator in the person's place is a row beside the methods, not a panel of its own.
        shown = own.with_columns(_shown_condition().alias("shown"))
        for condition, size in sorted(shown.select("shown", "group_size").unique().rows(), key=_place_in_order):
            part = matching(shown, shown=condition, group_size=size)
            panels.append(_metric_panel(part, name, describe_variant(None, condition, size)))
    decisions = set(rows["decision"].drop_nulls().to_list())
    entries = [LegendEntry("sampled freely", "dot dot-filled"), LegendEntry("constrained decision", "dot dot-hollow")]
    return Figure(caption, tuple(panels), tuple(entries) if {"sampled", "constrained"} <= decisions else ())


def _shown_condition() -> pl.Expr:
    """Return the condition that a row is shown under: its own, or none for the control by another annotator."""
    return pl.when(pl.col("condition") != OTHER_ANNOTATOR).then(pl.col("condition"))


def _place_in_order(key: tuple[str | None, int | None]) -> tuple[str, int]:
    """Return what (condition, group size) is sorted by."""
    return key[0] or "", key[1] or 0


def _metric_panel(rows: pl.DataFrame, name: str, variant: str) -> Panel:
    """Return the panel of one metric in one variant."""
    term = metric_term(name)
    dots = [
        _dot(
            row,
            _row_label(row),
            row["decision"] or "",
            colour=method_colour(method),
            is_hollow=row["decision"] == "constrained",
        )
        for method in order_methods(rows["method"].to_list())
        for row in matching(rows, method=method).sort("decision", descending=True).iter_rows(named=True)
    ]
    references = []
    if name.endswith("specificity"):
        references.append(Reference(0.0))
    if term.better == "nearer one":
        references.append(Reference(1.0))
    title = term.title + (f", {variant}" if variant else "")
    description = f"{title} by method. Figures in the table of results."
    is_whole = name.endswith(_WHOLE_SHARES) and all(0 <= value <= 1 for value in rows["value"].drop_nulls())
    domain = SHARE_DOMAIN if is_whole else None
    return Panel(title, draw_dots(dots, description=description, domain=domain, references=references))


def _row_label(row: dict) -> str:
    """Return what a method's row is called beside the others; controls say what they are."""
    if row["condition"] == OTHER_ANNOTATOR:
        return "Another annotator"
    return "Majority (floor)" if row["method"] == "majority" else method_title(row["method"])


def draw_differences(data: ReportData, method_a: str, method_b: str) -> Figure:
    """Return a minus b with intervals for every metric that is a share, one panel per decision."""
    alpha = 1 - data.config.evaluation.confidence
    shares = [name for name in data.comparisons["metric"].unique().to_list() if metric_term(name).share]
    rows = matching(data.comparisons, method_a=method_a, method_b=method_b).filter(pl.col("metric").is_in(shares))
    panels = []
    for decision in sorted(rows["decision"].unique().to_list(), key=decision_rank):
        dots = [_difference_dot(row, alpha) for row in _order_rows(matching(rows, decision=decision))]
        title = f"{method_title(method_a)} minus {method_title(method_b)}" + (f", {decision}" if decision else "")
        description = f"{title}: differences with intervals. Figures in the table of comparisons."
        panels.append(Panel(title, draw_dots(dots, description=description, references=[Reference(0.0, dash=(1, 0))])))
    legend = (
        LegendEntry("shown: interval and test exclude 0", "dot dot-filled"),
        LegendEntry("no difference shown", "dot dot-hollow"),
    )
    caption = f"Differences of shares with {data.confidence_percent} intervals (surf.: surface removed)"
    return Figure(caption, tuple(panels), legend)


def _order_rows(rows: pl.DataFrame) -> list[dict]:
    """Return comparisons in the report's order of metrics, conditions and sizes."""
    rank = {name: i for i, name in enumerate(order_metrics(rows["metric"].to_list()))}
    return sorted(
        rows.iter_rows(named=True),
        key=lambda row: (rank[row["metric"]], row["condition"] or "", row["group_size"] or 0),
    )


def _difference_dot(row: dict, alpha: float) -> Dot:
    """Return one comparison as a dot; filled where a difference is shown, a ring where it is not."""
    term = metric_term(row["metric"])
    short = {"raw": "", "surface_normalised": " surf."}.get(row["condition"] or "raw", f" {row['condition']}")
    size = f" k{row['group_size']}" if row["group_size"] is not None else ""
    label = f"{term.title.removesuffix(' accuracy')}{size}{short}"
    value, low, high = (row[n] if is_measured(row[n]) else None for n in ("difference", "ci_low", "ci_high"))
    is_shown = value is not None and Difference(value, low, high, row["p_value"], None, None).is_shown(alpha)
    variant = describe_variant(row["decision"], row["condition"], row["group_size"])
    tip = f"{term.title}{', ' + variant if variant else ''}: {format_estimate(value, low, high, share=term.share)}"
    return Dot(label, value, low, high, "var(--accent)", tip, is_hollow=not is_shown)
