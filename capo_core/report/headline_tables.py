"""The tables a reader needs first: imitation beside its distance, decisions beside their floors, all variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl

from capo_core.report.data import ALL, Estimate, ReportData, is_finite, matching
from capo_core.report.formats import NO_BREAK, format_value, is_measured, plural
from capo_core.report.key_figures import (
    ATTRIBUTION,
    LENGTH_RATIO,
    NEAR_DUPLICATES,
    STYLE_DISTANCE,
    TOLD_APART,
    FigureKey,
    KeyFigures,
)
from capo_core.report.metric_terms import metric_term, order_metrics
from capo_core.report.tables import Cell, RowGroup, Table, build_table, heat_cell, text_cell, value_cell
from capo_core.report.terms import (
    CLASSIFIER_TITLES,
    DECISIONS,
    OTHER_ANNOTATOR,
    SHUFFLED,
    SPLIT_HALF,
    SURFACE,
    condition_title,
    floor_of,
    method_class,
    method_title,
    order_by,
    order_conditions,
    order_methods,
)

PEOPLE = ("human", "majority")
"""Methods that are no model's."""

DECISION_METRICS = ("label_agreement", "macro_f1", "ordinal_error", "label_parse_rate")


class _Line(NamedTuple):
    """A row of the headline table: its title, whose figures it shows, and which of a figure's conditions."""

    title: str
    method: str
    choose: Callable[[FigureKey], FigureKey | None]


def headline_figures(keys: KeyFigures) -> tuple[FigureKey, ...]:
    """Return the columns of the headline table: attribution, and all that tells imitation from caricature."""
    return (
        keys.attribution("raw"),
        keys.attribution(SURFACE),
        keys.told_apart("raw"),
        keys.told_apart(SURFACE),
        keys.plain(STYLE_DISTANCE),
        keys.plain(LENGTH_RATIO),
        keys.plain(NEAR_DUPLICATES),
    )


def _of_own(key: FigureKey) -> FigureKey | None:
    """Return the figure of the people's own text; a person's length has no ratio to itself."""
    if key.metric == LENGTH_RATIO:
        return None
    return key.under(SPLIT_HALF) if key.metric == STYLE_DISTANCE else key


def _of_others(key: FigureKey) -> FigureKey | None:
    return key.under(OTHER_ANNOTATOR) if key.metric == STYLE_DISTANCE else None


def _of_shuffled(key: FigureKey) -> FigureKey | None:
    return key.floor() if key.metric == ATTRIBUTION else None


def _as_it_is(key: FigureKey) -> FigureKey | None:
    return key


_CONTROLS = (
    _Line("Human text (ceiling)", "human", _of_own),
    _Line("Another annotator", "human", _of_others),
    _Line("Authors shuffled (floor)", "human", _of_shuffled),
)


def tabulate_headline(data: ReportData, keys: KeyFigures | None) -> Table:
    """Return one row per control and method: attribution beside what tells imitation from caricature."""
    caption = "Imitation beside its distance, mean over annotators"
    if keys is None:
        return build_table(caption, ["Method"], [])
    figures = headline_figures(keys)
    methods = [name for name in order_methods(data.metrics["method"].to_list()) if name not in PEOPLE]
    lines = [*_CONTROLS, *(_Line(method_title(name), name, _as_it_is) for name in methods)]
    found = [[_find(data, line, key) for key in figures] for line in lines]
    rows = [
        [
            Cell(line.title, style=_mark(line)),
            *(_headline_cell(data, line, *pair) for pair in zip(figures, own, strict=True)),
        ]
        for line, own in zip(lines, found, strict=True)
        if any(own) or line.method in methods
    ]
    heads = ["Method", *(_head(key) for key in figures)]
    estimates = [estimate for own in found for estimate in own if estimate]
    notes = (
        f"{_describe_n(estimates)}{f' {keys.decision.capitalize()} text.' if keys.decision else ''} Told apart: .5 is "
        "perfect imitation, 1 is told from the person always; for human text, two halves of his own. Style distance: "
        "for human text, two samples of the person's own. –: not defined for this row.",
        "High attribution with high “told apart”, great distance or a length far from 1 is caricature, not imitation; "
        "near duplicates above the person's own rate are copying.",
    )
    return build_table(caption, heads, rows, notes=notes)


def _mark(line: _Line) -> str:
    """Return the style of a row's name: the method's colour, grey for what is neither a method nor the ceiling."""
    is_control = line.method == "human" and line.choose is not _of_own
    return f"mark mark-{'majority' if is_control else method_class(line.method)}"


def _find(data: ReportData, line: _Line, key: FigureKey) -> Estimate | None:
    chosen = line.choose(key)
    return None if chosen is None else chosen.find(data.metrics, line.method)


def _head(key: FigureKey) -> str:
    """Return a column's heading."""
    short = {ATTRIBUTION: f"Attributed, k{NO_BREAK}={NO_BREAK}{key.group_size}", TOLD_APART: "Told apart"}
    title = short.get(key.metric, metric_term(key.metric).title)
    return title + (f", {condition_title(key.condition)}" if key.condition else "")


def _headline_cell(data: ReportData, line: _Line, key: FigureKey, estimate: Estimate | None) -> Cell:
    """Return a figure with its interval; the length ratio with its extremes among annotators."""
    if line.choose(key) is None:
        return text_cell(None)
    notes = [_length_extremes(data, line.method, key)] if key.metric == LENGTH_RATIO else []
    share = metric_term(key.metric).share
    if estimate is None:
        return value_cell(None, None, None, share=share)
    return value_cell(estimate.value, estimate.low, estimate.high, share=share, notes=notes)


def _length_extremes(data: ReportData, method: str, key: FigureKey) -> str:
    """Return the least and the greatest ratio among annotators: halved and doubled lengths must not cancel out."""
    own = matching(data.metrics, method=method, **key._asdict()).filter(
        (pl.col("annotator_id") != ALL) & is_finite("value")
    )
    if own.height < 2:
        return ""
    ends = sorted(own["value"].to_list())
    return f"{format_value(ends[0])} to {format_value(ends[-1])} by person"


def _describe_n(estimates: Sequence[Estimate]) -> str:
    """Return how many items and seeds the figures rest on."""
    parts = []
    for values, noun in (([e.n for e in estimates], "item"), ([e.n_seeds for e in estimates], "seed")):
        known = sorted({value for value in values if value is not None})
        if known:
            parts.append(plural(known[0], noun) if len(known) == 1 else f"{known[0]:,} to {known[-1]:,} {noun}s")
    return f"n: {', '.join(parts)}." if parts else ""


def tabulate_decisions(data: ReportData) -> Table:
    """Return how far each method decides as the person does, by way of deciding, beside the controls."""
    controls = (("Always the commonest label", "majority", None), ("Another annotator", "human", OTHER_ANNOTATOR))
    return _tabulate_by_decision(data, "Decisions, mean over annotators", DECISION_METRICS, controls)


def tabulate_soft_labels(data: ReportData) -> Table:
    """Return the LeWiDi-2025 figures, by way of deciding, beside the controls."""
    known = {"aer", "manhattan_distance", "wasserstein_distance"}
    names = [name for name in order_metrics(data.metrics["metric"].to_list()) if name in known or name[:5] == "anad_"]
    controls = (
        ("Always the commonest or median label", "majority", None),
        ("Distribution of training labels", "majority", "training_distribution"),
        ("Another annotator", "human", OTHER_ANNOTATOR),
    )
    return _tabulate_by_decision(data, "Soft labels and LeWiDi-2025 figures", names, controls)


def _tabulate_by_decision(
    data: ReportData, caption: str, names: Sequence[str], controls: Sequence[tuple[str, str, str | None]]
) -> Table:
    """Return a group of rows per metric: controls, then methods; a column per way of deciding."""
    rows = data.metrics.filter(pl.col("metric").is_in(list(names)) & (pl.col("annotator_id") == ALL))
    decisions = order_by(rows["decision"].drop_nulls().to_list(), DECISIONS)
    methods = [name for name in order_methods(rows["method"].to_list()) if name not in PEOPLE]
    groups = []
    for name in names:
        own = [_decision_row(data, name, title, method, decisions, cond) for title, method, cond in controls]
        own += [_decision_row(data, name, method_title(method), method, decisions, None) for method in methods]
        kept = tuple(row for row in own if any(cell.numeric for cell in row[1:]))
        term = metric_term(name)
        groups.append(RowGroup(kept, term.title, term.meaning))
    heads = (Cell("Method"), *(Cell(decision, numeric=True) for decision in decisions))
    estimates = [
        Estimate(row["value"], None, None, row["n"], row["n_seeds"])
        for row in rows.filter(is_finite("value")).iter_rows(named=True)
    ]
    notes = (f"{_describe_n(estimates)} The controls decide in one way only; they stand in every column.",)
    return Table(caption, heads, tuple(groups), notes)


def _decision_row(
    data: ReportData, metric: str, title: str, method: str, decisions: Sequence[str], condition: str | None
) -> tuple[Cell, ...]:
    """Return one method's or control's figures of a metric, one per way of deciding."""
    cells = []
    for decision in decisions:
        estimate = FigureKey(metric, decision, condition).find(data.metrics, method)
        if estimate is None:
            cells.append(value_cell(None, None, None, share=True))
        else:
            share = metric_term(metric).share
            cells.append(value_cell(estimate.value, estimate.low, estimate.high, share=share))
    return (Cell(title, style=f"mark mark-{method_class(method)}"), *cells)


def tabulate_variants(data: ReportData, keys: KeyFigures | None) -> Table:
    """Return attribution at the leading group size under every reduction and classifier, ceiling and floor beside."""
    caption = "Attribution under every reduction and classifier"
    if keys is None:
        return build_table(caption, ["Text"], [])
    own = matching(data.metrics, metric=ATTRIBUTION, annotator_id=ALL, group_size=keys.group_size)
    conditions = [c for c in order_conditions(own["condition"].to_list()) if c and not c.startswith(SHUFFLED)]
    methods = [name for name in order_methods(own["method"].to_list()) if name != "human"]
    heads = ["Text", "By", "Floor", *(method_title(name) for name in methods), "Human (ceiling)"]
    rows = []
    for condition in conditions:
        part = matching(own, condition=condition)
        for classifier in order_by(part["classifier"].drop_nulls().to_list(), CLASSIFIER_TITLES):
            key = FigureKey(ATTRIBUTION, keys.decision, condition, classifier, keys.group_size)
            wanted = [("human", key.under(floor_of(condition))), *((name, key) for name in methods), ("human", key)]
            cells = [_variant_cell(one.find(data.metrics, name)) for name, one in wanted]
            named = [text_cell(condition_title(condition)), text_cell(CLASSIFIER_TITLES.get(classifier, classifier))]
            rows.append([*named, *cells])
    caption = f"{caption}, groups of {keys.group_size}{f', {keys.decision}' if keys.decision else ''}"
    notes = ("A gain that holds under one way of reading the text only is about that way, not about the person.",)
    return build_table(caption, heads, rows, notes=notes)


def _variant_cell(estimate: Estimate | None) -> Cell:
    if estimate is None or not is_measured(estimate.value):
        return value_cell(None, None, None, share=True)
    plain = value_cell(estimate.value, estimate.low, estimate.high, share=True)
    return heat_cell(estimate.value, text=plain.text, notes=plain.notes)
