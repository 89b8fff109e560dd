"""Tables about the methods: every figure with interval, n and seeds, and what could not be read."""

from __future__ import annotations

import polars as pl

from capo_core.report.data import is_finite, matching
from capo_core.report.formats import format_percent, is_measured, plural
from capo_core.report.metric_terms import MetricTerm, metric_term, order_metrics
from capo_core.report.tables import Cell, RowGroup, Table, build_table, count_cell, text_cell, value_cell
from capo_core.report.terms import (
    CLASSIFIER_TITLES,
    PARSE_TITLES,
    SHUFFLED,
    SURFACE,
    condition_title,
    decision_rank,
    floor_of,
    method_class,
    method_title,
    order_conditions,
    order_methods,
)

_BETTER = {
    "higher": "higher is closer",
    "lower": "lower is closer",
    "nearer one": "1 is the person's own",
    "nearer half": ".5 is perfect",
}

VariantKey = tuple[str | None, str | None, str | None, int | None]
"""Decision, condition, classifier and group size of a figure."""


def tabulate_metrics(metrics: pl.DataFrame, annotator_id: str, caption: str) -> Table:
    """Return every figure of one annotator (or "all"): a group per metric, methods as columns.

    A row is one combination of decision, condition, classifier and group size; a cell holds value, interval, n, seeds.
    """
    own = metrics.filter(pl.col("annotator_id") == annotator_id)
    methods = order_methods(own["method"].to_list())
    groups = tuple(
        _metric_group(own.filter(pl.col("metric") == name), metric_term(name), methods)
        for name in order_metrics(own["metric"].to_list())
    )
    heads = (
        Cell("Figure"),
        *(Cell(method_title(name), style=f"method method-{method_class(name)}", numeric=True) for name in methods),
    )
    notes = (
        "Below each value: its interval, what the interval resamples (n), training and sampling seeds.",
        "–: not defined for this method, or not asked for. Human text and the majority label know no decision of a "
        "model; their figures stand in the rows of each.",
    )
    return Table(caption, heads, groups, notes)


def _metric_group(rows: pl.DataFrame, term: MetricTerm, methods: list[str]) -> RowGroup:
    """Return one metric's rows."""
    lines = []
    several = rows["classifier"].drop_nulls().n_unique() > 1
    for decision, condition, classifier, size in _row_keys(rows):
        line = matching(rows, condition=condition, classifier=classifier, group_size=size)
        cells = (_metric_cell(matching(line, method=name), decision, term) for name in methods)
        title = describe_variant(decision, condition, size, classifier if several else None)
        lines.append((Cell(title or "all items"), *cells))
    direction = f" ({_BETTER[term.better]})" if term.better else ""
    return RowGroup(tuple(lines), term.title + direction, term.meaning)


def _row_keys(rows: pl.DataFrame) -> list[VariantKey]:
    """Return the keys of the rows shown, in order.

    Rows without a decision (human text, majority label) stand beside those of every decision, not on their own.
    """
    keys = set(rows.select("decision", "condition", "classifier", "group_size").rows())
    decided = {key[1:] for key in keys if key[0] is not None}
    kept = [key for key in keys if key[0] is not None or key[1:] not in decided]
    rank = {condition: i for i, condition in enumerate(order_conditions(key[1] for key in kept))}
    return sorted(
        kept, key=lambda key: (rank[key[1]], key[2] != "ngrams", key[2] or "", decision_rank(key[0]), key[3] or 0)
    )


def describe_variant(
    decision: str | None, condition: str | None, group_size: int | None, classifier: str | None = None
) -> str:
    """Return which figure of a metric this is, e.g. `k = 5, sampled, surface removed, by n-grams`."""
    by = f"by {CLASSIFIER_TITLES.get(classifier, classifier)}" if classifier else ""
    parts = [f"k = {group_size}" if group_size is not None else "", decision or "", condition_title(condition), by]
    return ", ".join(part for part in parts if part)


def _metric_cell(rows: pl.DataFrame, decision: str | None, term: MetricTerm) -> Cell:
    """Return the cell of one method; two rows for it would be a fault upstream and are said to be one."""
    found = matching(rows, decision=decision)
    if found.is_empty():
        found = matching(rows, decision=None)
    if found.is_empty():
        return text_cell(None)
    if found.height > 1:
        # The same figure may come from several tables, unmeasured in all but one.
        found = found.filter(is_finite("value")) if found.filter(is_finite("value")).height else found.head(1)
    if found.height > 1:
        return Cell(f"{found.height} rows contradict each other", style="absent")
    row = found.row(0, named=True)
    notes = [] if row["n"] is None else [f"n {row['n']:,}"]
    if row["n_seeds"] is not None:
        notes.append(plural(row["n_seeds"], "seed"))
    if term.flag and is_measured(row["value"]):
        return Cell("yes" if row["value"] >= 0.5 else "no", (" · ".join(notes),), numeric=True)
    return value_cell(row["value"], row["ci_low"], row["ci_high"], share=term.share, notes=[" · ".join(notes)])


def narrow_to_leading(metrics: pl.DataFrame, group_size: int | None) -> pl.DataFrame:
    """Return the rows without attribution of other group sizes, under reductions, or by other classifiers.

    What a table per annotator holds: the mean over annotators has its figures under every variant.
    """
    attribution = pl.col("metric").str.starts_with("attribution_")
    plain = pl.col("condition").is_in(["raw", SURFACE, SHUFFLED, floor_of(SURFACE)])
    leading = plain & (pl.col("classifier") == "ngrams") & pl.col("group_size").eq_missing(pl.lit(group_size))
    return metrics.filter(~attribution | leading)


def tabulate_reading(generations: pl.DataFrame) -> Table:
    """Return per method and decision how many responses were read, why others were not, and how many were cut."""
    keys = generations.select("method", "decision").unique().rows()
    ranks = {name: i for i, name in enumerate(order_methods(key[0] for key in keys))}
    statuses: list[str] = [*PARSE_TITLES, *sorted(set(generations["parse_status"].to_list()) - set(PARSE_TITLES))]
    rows = []
    for method, decision in sorted(keys, key=lambda key: (ranks[key[0]], decision_rank(key[1]))):
        part = matching(generations, method=method, decision=decision)
        counts = dict(part.group_by("parse_status").len().iter_rows())
        n_cut = part.filter(pl.col("truncated")).height
        rows.append(
            [
                Cell(method_title(method)),
                Cell(decision),
                count_cell(part.height),
                *(_share_cell(counts.get(status, 0), part.height) for status in statuses),
                _share_cell(n_cut, part.height),
            ]
        )
    titles = [_capitalise(PARSE_TITLES.get(status) or status) for status in statuses]
    columns = ["Method", "Decision", "Responses", *titles, "Cut at the token limit"]
    notes = ("An unreadable response is counted here and in the rate of readable responses; it is never guessed.",)
    return build_table("What could be read", columns, rows, notes=notes, empty_text="Nothing was generated.")


def _share_cell(part: int, whole: int) -> Cell:
    """Return a count with its share below."""
    return Cell(f"{part:,}", (format_percent(part, whole),), numeric=True)


def _capitalise(text: str) -> str:
    """Return `text` with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]
