"""Differences between methods: in the figures that matter, what is shown and what is not, then every one of them."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from capo_core.report.data import ReportData, matching, read_comparison
from capo_core.report.findings import format_test, quote
from capo_core.report.formats import format_difference, format_interval, format_value, is_measured, write_p
from capo_core.report.headline_tables import headline_figures
from capo_core.report.key_figures import LABEL_AGREEMENT, FigureKey, KeyFigures
from capo_core.report.metric_terms import MetricTerm, metric_term, order_metrics
from capo_core.report.result_tables import describe_variant
from capo_core.report.tables import Cell, Table, build_table, count_cell, text_cell
from capo_core.report.terms import DECISIONS, decision_rank, method_title, order_conditions

_COLUMNS = ("Difference", "Effect size", "p", "p, Holm", "n", "Seeds", "Reading")
_NOTE = (
    "Effect size: the difference over the standard deviation of the paired differences. p, Holm: corrected for all "
    "comparisons of the same figure, which the reading goes by."
)


class Verdicts(NamedTuple):
    """The key figures by what their difference of CAPO and SFT shows."""

    shown: tuple[str, ...]
    not_shown: tuple[str, ...]
    untested: tuple[str, ...]


def list_verdicts(data: ReportData, keys: KeyFigures | None) -> Verdicts:
    """Return for each key figure what CAPO minus SFT shows, does not show, or was not tested for."""
    alpha = data.alpha
    shown, not_shown, untested = [], [], []
    for key in list_key_figures(keys):
        term = metric_term(key.metric)
        title = key.title + (f", {key.decision}" if key.metric == LABEL_AGREEMENT and key.decision else "")
        difference = key.compare(data.comparisons)
        if difference is None:
            untested.append(title)
            continue
        interval = format_interval(difference.low, difference.high, share=term.share) or "no interval"
        evidence = f"{format_difference(difference.value, share=term.share)} {interval}"
        if test := format_test(difference):
            evidence += f", {test}"
        if difference.is_shown(alpha):
            figures = " → ".join(quote(key.find(data.metrics, name), share=term.share) for name in ("sft", "capo"))
            shown.append(f"{title}: {'higher' if difference.value > 0 else 'lower'} under CAPO, {evidence} ({figures})")
        else:
            before = " (it would be, were it the only comparison)" if difference.is_shown_uncorrected(alpha) else ""
            not_shown.append(f"{title}: {evidence}{before}")
    return Verdicts(tuple(shown), tuple(not_shown), tuple(untested))


def list_key_figures(keys: KeyFigures | None) -> tuple[FigureKey, ...]:
    """Return the figures that verdicts are given on: those of the headline table, and label agreement."""
    decisions = tuple(FigureKey(LABEL_AGREEMENT, decision) for decision in DECISIONS)
    return (*(headline_figures(keys) if keys else ()), *decisions)


def tabulate_key_comparison(data: ReportData, keys: KeyFigures | None) -> Table:
    """Return CAPO minus SFT in the key figures: attribution always with distance, length and copying below it."""
    alpha = data.alpha
    rows = []
    for key in list_key_figures(keys):
        wanted = {"method_a": "capo", "method_b": "sft", **key._asdict()}
        found = matching(data.comparisons, **wanted)
        if found.height == 1:
            rows.append(_comparison_row(found.row(0, named=True), alpha))
    return build_table("CAPO minus SFT in the key figures", ["Figure", *_COLUMNS], rows, notes=(_NOTE,))


def tabulate_comparisons(comparisons: pl.DataFrame, alpha: float) -> list[Table]:
    """Return one table per pair of methods, CAPO and SFT first; an interval that includes 0 shows nothing."""
    pairs = comparisons.select("method_a", "method_b").unique().rows()
    pairs.sort(key=lambda pair: (set(pair) != {"capo", "sft"}, "capo" not in pair, pair))
    return [
        tabulate_pair(
            matching(comparisons, method_a=a, method_b=b), f"{method_title(a)} minus {method_title(b)}", alpha
        )
        for a, b in pairs
    ]


def tabulate_pair(rows: pl.DataFrame, caption: str, alpha: float) -> Table:
    """Return every comparison of two methods, in the order of metrics and conditions."""
    metrics = {name: i for i, name in enumerate(order_metrics(rows["metric"].to_list()))}
    conditions = {name: i for i, name in enumerate(order_conditions(rows["condition"].to_list()))}
    ordered = sorted(
        rows.iter_rows(named=True),
        key=lambda row: (
            metrics[row["metric"]],
            conditions[row["condition"]],
            row["classifier"] != "ngrams",
            row["classifier"] or "",
            decision_rank(row["decision"]),
            row["group_size"] or 0,
        ),
    )
    return build_table(caption, ["Figure", *_COLUMNS], [_comparison_row(row, alpha) for row in ordered], notes=(_NOTE,))


def _comparison_row(row: dict, alpha: float) -> list[Cell]:
    """Return the cells of one comparison."""
    term = metric_term(row["metric"])
    variant = describe_variant(row["decision"], row["condition"], row["group_size"], row["classifier"])
    notes = (format_interval(row["ci_low"], row["ci_high"], share=term.share) or "no interval",)
    return [
        Cell(term.title, (variant,) if variant else ()),
        Cell(format_difference(row["difference"], share=term.share), notes, numeric=True)
        if is_measured(row["difference"])
        else Cell("not measured", style="absent"),
        Cell(format_value(row["effect_size"]), numeric=True),
        Cell(write_p(row["p_value"]) or "not tested", numeric=True),
        Cell(write_p(row["p_holm"]) or "–", numeric=True),
        count_cell(row["n"]),
        count_cell(row["n_seeds"]),
        read_difference(row, term, alpha),
    ]


def read_difference(row: dict, term: MetricTerm, alpha: float) -> Cell:
    """Return what a comparison shows in words: which method is closer or higher, or that no difference is shown."""
    difference = read_comparison(row)
    if difference is None:
        return text_cell(None)
    if not difference.is_shown(alpha):
        notes = ("shown before correction only",) if difference.is_shown_uncorrected(alpha) else ()
        return Cell("no difference shown", notes, style="quiet")
    first, second = method_title(row["method_a"]), method_title(row["method_b"])
    higher, lower = (first, second) if difference.value > 0 else (second, first)
    if term.better == "higher":
        return Cell(f"{higher} closer", style="strong")
    if term.better in ("lower", "nearer half"):
        return Cell(f"{lower} closer", style="strong")
    return Cell(f"{higher} higher", style="strong")
