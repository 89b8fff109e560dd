"""The figures of the results: attribution beside its distance, the other metrics, and differences between methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from capo_core.report.charts import Dot, Reference, draw_dots
from capo_core.report.comparison_tables import list_key_figures
from capo_core.report.data import ALL, ReportData, is_finite, matching, read_comparison
from capo_core.report.figures import SHARE_DOMAIN, Figure, LegendEntry, Panel
from capo_core.report.formats import format_estimate, is_measured
from capo_core.report.key_figures import (
    ATTRIBUTION,
    CLASSIFIER,
    LENGTH_RATIO,
    STYLE_DISTANCE,
    TOLD_APART,
    FigureKey,
    KeyFigures,
)
from capo_core.report.metric_terms import metric_term, order_metrics
from capo_core.report.terms import (
    OTHER_ANNOTATOR,
    SHUFFLED,
    SPLIT_HALF,
    SURFACE,
    condition_title,
    decision_rank,
    floor_of,
    method_class,
    method_title,
    order_conditions,
    order_methods,
)

FLOOR_LABEL = "Shuffled (floor)"
N_ANNOTATOR_PANELS = 12
"""Annotators with a panel of their own; the figures of more are in the tables."""

DRAWN_METRICS = (
    "parse_rate",
    "rouge_l_specificity",
    "chrf_specificity",
    "embedding_specificity",
    "bertscore_specificity",
    "near_duplicate_rate",
    "longest_copied_run",
    "distinct_2",
    "degenerate_rate",
)
"""Metrics with a panel of their own, besides attribution and distance; all others are in the tables."""

_DRAWN_CONDITIONS = (None, "raw", SURFACE, SHUFFLED, floor_of(SURFACE), SPLIT_HALF, OTHER_ANNOTATOR)
_HOLLOW = (SURFACE, floor_of(SURFACE))
_WHOLE_SHARES = ("accuracy", "agreement", "rate", "run", "f1")
"""Metrics with these endings are drawn from 0 to 1, others as far as they reach."""


def method_colour(method: str) -> str:
    """Return the CSS colour of a method."""
    return f"var(--{method_class(method).replace('_', '-')})"


def draw_accuracy(metrics: pl.DataFrame, metric: str, caption: str, n_annotators: int) -> Figure:
    """Return an accuracy by judge or raters: a panel per decision and group size.

    Args:
        metrics: METRICS rows; those of "all" annotators are drawn.
        metric: the accuracy drawn.
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
    return Figure(caption, tuple(panel for panel in panels if panel), _surface_legend(rows, chance=True))


def draw_attribution(data: ReportData, keys: KeyFigures | None) -> Figure:
    """Return attribution accuracy by method, a panel per group size."""
    caption = f"Attribution accuracy by method, groups of k, with {data.confidence_percent} intervals"
    if keys is None:
        return Figure(caption, ())
    rows = _leading_attribution(data, annotator_id=ALL)
    panels = [
        _accuracy_panel(rows, size, keys.decision, len(data.annotators), _group_title(size, keys.decision))
        for size in sorted(rows["group_size"].drop_nulls().unique().to_list())
    ]
    return Figure(caption, tuple(panel for panel in panels if panel), _surface_legend(rows, chance=True))


def draw_main(data: ReportData, keys: KeyFigures | None) -> Figure:
    """Return the two panels that the summary rests on: attribution, and how well text is told from the person's."""
    if keys is None:
        return Figure("", ())
    rows = _leading_attribution(data, annotator_id=ALL)
    title = f"Attributed to the person, {_group_title(keys.group_size, keys.decision).lower()}"
    attribution = _accuracy_panel(rows, keys.group_size, keys.decision, len(data.annotators), title)
    caption = f"Imitation and its distance by method, with {data.confidence_percent} intervals"
    panels = (attribution, _text_panel(data, keys.told_apart("raw"), "Told from the person (.5 is perfect)", (0.5,)))
    return Figure(caption, tuple(panel for panel in panels if panel), _surface_legend(rows, chance=True))


def draw_distances(data: ReportData, keys: KeyFigures | None) -> Figure:
    """Return what tells imitation from caricature: told from the person, style distance, length ratio."""
    caption = f"Distance from the person's own text, with {data.confidence_percent} intervals"
    if keys is None:
        return Figure(caption, ())
    wanted = ((TOLD_APART, "; .5 is perfect", 0.5), (STYLE_DISTANCE, "", None), (LENGTH_RATIO, "; 1 is his own", 1.0))
    panels = [
        _text_panel(
            data,
            keys.plain(metric),
            metric_term(metric).title + remark,
            () if reference is None else (reference,),
        )
        for metric, remark, reference in wanted
    ]
    rows = matching(data.metrics, metric=TOLD_APART, annotator_id=ALL)
    return Figure(caption, tuple(panel for panel in panels if panel), _surface_legend(rows, chance=False))


def draw_attribution_by_annotator(data: ReportData, keys: KeyFigures | None) -> Figure:
    """Return attribution accuracy by method, a panel per annotator; none where there are too many."""
    rows = _leading_attribution(data).filter(pl.col("annotator_id") != ALL)
    people = sorted(rows["annotator_id"].unique().to_list())
    if keys is None or not 0 < len(people) <= N_ANNOTATOR_PANELS:
        return Figure("", ())
    at = (keys.group_size, keys.decision, len(data.annotators))
    panels = [_accuracy_panel(matching(rows, annotator_id=person), *at, person) for person in people]
    title = _group_title(keys.group_size, keys.decision)
    caption = f"Attribution accuracy by annotator: {title[0].lower()}{title[1:]}"
    return Figure(caption, tuple(panel for panel in panels if panel), _surface_legend(rows, chance=True))


def _leading_attribution(data: ReportData, **wanted: str) -> pl.DataFrame:
    """Return the attribution rows of the leading classifier."""
    return matching(data.metrics, metric=ATTRIBUTION, classifier=CLASSIFIER, **wanted)


def _group_title(size: int | None, decision: str | None) -> str:
    """Return the title of the panel of one group size and decision."""
    groups = "All groups" if size is None else f"Groups of {size}"
    return groups + (f", {decision}" if decision else "")


def _surface_legend(rows: pl.DataFrame, *, chance: bool) -> tuple[LegendEntry, ...]:
    """Return the legend of discs and rings; rings are explained only where there are some."""
    line = (LegendEntry("chance" if chance else "what a perfect imitation has", "line line-chance"),)
    if matching(rows, condition=SURFACE).is_empty():
        return line
    return (
        LegendEntry("as written", "dot dot-filled"),
        LegendEntry("surface removed: no case, punctuation or spacing", "dot dot-hollow"),
        *line,
    )


def _accuracy_panel(
    rows: pl.DataFrame, size: int | None, decision: str | None, n_annotators: int, title: str
) -> Panel | None:
    """Return the panel of one group size and decision; human text and the floor belong to every decision."""
    dots = _method_dots(_of_decision(matching(rows, group_size=size), decision))
    if not dots:
        return None
    description = f"Accuracy of attribution by method, {title}. Figures in the table."
    references = [Reference(1 / n_annotators)] if n_annotators else []
    return Panel(title, draw_dots(dots, description=description, domain=SHARE_DOMAIN, references=references), size)


def _text_panel(data: ReportData, key: FigureKey, title: str, references: Sequence[float]) -> Panel | None:
    """Return the panel of one figure of the text under one decision, all its drawn conditions in it."""
    rows = _of_decision(matching(data.metrics, metric=key.metric, annotator_id=ALL), key.decision)
    dots = _method_dots(rows.filter(is_finite("value")))
    if not dots:
        return None
    domain = SHARE_DOMAIN if key.metric == TOLD_APART else None
    described = f"{title} by method. Figures in the table."
    lines = [Reference(value) for value in references]
    return Panel(title, draw_dots(dots, description=described, domain=domain, references=lines))


def _of_decision(rows: pl.DataFrame, decision: str | None) -> pl.DataFrame:
    """Return the rows of one decision, with those that know none."""
    return rows.filter(pl.col("decision").is_null() | pl.col("decision").eq_missing(pl.lit(decision)))


def _method_dots(rows: pl.DataFrame) -> list[Dot]:
    """Return a dot per method and drawn condition; controls get rows of their own, the floor the last."""
    drawn = rows.filter(pl.col("condition").is_null() | pl.col("condition").is_in(_DRAWN_CONDITIONS[1:]))
    rank = {condition: i for i, condition in enumerate(order_conditions(drawn["condition"].to_list()))}
    dots = [
        _dot(row, condition_title(row["condition"]), is_hollow=row["condition"] in _HOLLOW)
        for method in order_methods(drawn["method"].to_list())
        for row in sorted(matching(drawn, method=method).iter_rows(named=True), key=lambda row: rank[row["condition"]])
    ]
    return sorted(_say_absence_once(dots), key=lambda dot: dot.label == FLOOR_LABEL)


def _say_absence_once(dots: Sequence[Dot]) -> list[Dot]:
    """Return the dots without the absent ones of a row that has another dot, or says its absence already."""
    kept: dict[str, list[Dot]] = {}
    for dot in sorted(dots, key=lambda dot: dot.value is None):
        if dot.value is not None or not kept.get(dot.label):
            kept.setdefault(dot.label, []).append(dot)
    return [dot for label in dict.fromkeys(dot.label for dot in dots) for dot in kept[label]]


def _row_label(row: dict) -> str:
    """Return what a row is called beside the others; controls say what they are."""
    condition = row["condition"] or ""
    if condition.startswith(SHUFFLED):
        return FLOOR_LABEL
    if condition == OTHER_ANNOTATOR:
        return "Another annotator"
    if row["method"] == "majority":
        return "Majority (floor)"
    if row["method"] != "human":
        return method_title(row["method"])
    return "Human (ceiling)" if row["metric"].endswith("accuracy") else "Person's own text"


def _dot(row: dict, variant: str, *, is_hollow: bool) -> Dot:
    """Return one METRICS row as a dot, absent values as None."""
    term, label = metric_term(row["metric"]), _row_label(row)
    value, low, high = (row[name] if is_measured(row[name]) else None for name in ("value", "ci_low", "ci_high"))
    n = f", n {row['n']:,}" if row["n"] is not None else ""
    estimate = format_estimate(value, low, high, share=term.share)
    tip = f"{label}{', ' + variant if variant else ''}: {estimate}{n}"
    low, high = (low, high) if low is not None and high is not None else (None, None)
    colour = "var(--floor)" if label == FLOOR_LABEL else method_colour(row["method"])
    return Dot(label, value, low, high, colour, tip, is_hollow, lane=int(is_hollow))


def draw_metric_panels(metrics: pl.DataFrame, caption: str, names: Iterable[str] = DRAWN_METRICS) -> Figure:
    """Return one panel per measured metric with methods as rows, sampled filled and constrained hollow.

    Args:
        metrics: METRICS rows; those of "all" annotators are drawn.
        caption: the figure's caption.
        names: metrics drawn, as far as they were measured.
    """
    rows = metrics.filter(
        (pl.col("annotator_id") == ALL) & pl.col("metric").is_in(list(names)),
        pl.col("decision").is_null() | (pl.col("decision") != "greedy"),
        pl.col("condition").is_null() | (pl.col("condition") == OTHER_ANNOTATOR),
    )
    measured = rows.filter(is_finite("value"))["metric"].unique()
    panels = [_metric_panel(matching(rows, metric=name), name) for name in order_metrics(measured.to_list())]
    decisions = set(rows["decision"].drop_nulls().to_list())
    entries = [LegendEntry("sampled freely", "dot dot-filled"), LegendEntry("constrained decision", "dot dot-hollow")]
    return Figure(caption, tuple(panels), tuple(entries) if {"sampled", "constrained"} <= decisions else ())


def _metric_panel(rows: pl.DataFrame, name: str) -> Panel:
    """Return the panel of one metric; another annotator in the person's place is a row beside the methods."""
    term = metric_term(name)
    dots = _say_absence_once(
        [
            _dot(row, row["decision"] or "", is_hollow=row["decision"] == "constrained")
            for method in order_methods(rows["method"].to_list())
            for row in matching(rows, method=method).sort("decision", "condition", descending=True).rows(named=True)
        ]
    )
    references = [Reference(0.0)] if name.endswith("specificity") else []
    description = f"{term.title} by method. Figures in the table of results."
    is_whole = name.endswith(_WHOLE_SHARES) and all(0 <= value <= 1 for value in rows["value"].drop_nulls())
    domain = SHARE_DOMAIN if is_whole else None
    return Panel(term.title, draw_dots(dots, description=description, domain=domain, references=references))


def draw_differences(data: ReportData, keys: KeyFigures | None) -> Figure:
    """Return CAPO minus SFT in the key figures: shares in one panel, figures in units of their own in another."""
    alpha = data.alpha
    by_share: dict[bool, list[Dot]] = {True: [], False: []}
    for key in list_key_figures(keys):
        found = matching(data.comparisons, method_a="capo", method_b="sft", **key._asdict())
        if found.height == 1:
            by_share[metric_term(key.metric).share].append(_difference_dot(key, found.row(0, named=True), alpha))
    titles = {True: "CAPO minus SFT, shares", False: "CAPO minus SFT, in units of their own"}
    panels = [
        Panel(
            titles[is_share],
            draw_dots(
                dots,
                description=f"{titles[is_share]}: differences with intervals. Figures in the table.",
                references=[Reference(0.0, dash=(1, 0))],
            ),
        )
        for is_share, dots in by_share.items()
        if dots
    ]
    legend = (
        LegendEntry("shown: interval and corrected test exclude 0", "dot dot-filled"),
        LegendEntry("no difference shown", "dot dot-hollow"),
    )
    caption = f"Differences in the key figures with {data.confidence_percent} intervals (surf.: surface removed)"
    return Figure(caption if panels else "", tuple(panels), legend)


def _difference_dot(key: FigureKey, row: dict, alpha: float) -> Dot:
    """Return one comparison as a dot; filled where a difference is shown, a ring where it is not."""
    term = metric_term(key.metric)
    short = {"attribution_accuracy": f"Attributed k{key.group_size}", "distinguishability": "Told apart"}
    ending = " surf." if key.condition == SURFACE else f" {key.decision}" if key.metric == "label_agreement" else ""
    label = short.get(key.metric, term.title.removesuffix(" agreement")) + ending
    difference = read_comparison(row)
    value, low, high = (difference.value, difference.low, difference.high) if difference else (None, None, None)
    tip = f"{key.title}{ending}: {format_estimate(value, low, high, share=term.share)}"
    is_shown = difference is not None and difference.is_shown(alpha)
    return Dot(label, value, low, high, "var(--accent)", tip, is_hollow=not is_shown)
