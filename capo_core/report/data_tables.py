"""Tables about the data: what came in, what was set aside, who wrote what, how it was split and paired."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from capo_core.report.data import ReportData
from capo_core.report.formats import format_percent, join_and, plural
from capo_core.report.tables import Cell, Table, build_table, count_cell, heat_cell, text_cell
from capo_core.report.terms import SPLITS
from capo_core.text import words

N_QUARANTINE_ROWS = 10
"""Quarantined rows shown; all of them are in the annotations artifact."""

_COUNT_TITLES = {
    "rows_in": "Rows read",
    "rows_accepted": "Rows accepted",
    "rows_quarantined": "Rows quarantined",
    "withdrawals": "Rows that withdraw",
    "rows_erased": "Rows of erased people, left out",
}
_KINDS_OF_ROWS = ("rows_accepted", "rows_quarantined", "withdrawals", "rows_erased")
"""Every row read is of one of these kinds."""


def tabulate_counts(data: ReportData) -> Table:
    """Return the ingest counts: rows in, accepted, quarantined, then every quirk by name."""
    counts = data.annotations_counts
    names = [name for name in _COUNT_TITLES if name in counts] + [name for name in counts if name not in _COUNT_TITLES]
    rows = [[text_cell(_COUNT_TITLES.get(name, _title(name))), count_cell(counts[name])] for name in names]
    return build_table("Counts from reading the files", ["What", "Count"], rows)


def find_count_faults(data: ReportData) -> list[str]:
    """Return a sentence for each way in which the ingest counts contradict each other or the tables."""
    counts = data.annotations_counts
    n_in, quarantined = counts.get("rows_in"), counts.get("rows_quarantined")
    kinds = {name.removeprefix("rows_"): counts[name] for name in _KINDS_OF_ROWS if name in counts}
    faults = []
    if n_in is not None and kinds and n_in != sum(kinds.values()):
        told = join_and([f"{n:,} {name}" for name, n in kinds.items()])
        faults.append(f"{n_in:,} rows were read, but {told} do not add up.")
    if quarantined is not None and quarantined != data.quarantine.height:
        faults.append(
            f"The counts name {quarantined:,} quarantined rows; the quarantine table holds {data.quarantine.height:,}."
        )
    return faults


def tabulate_quarantine_reasons(quarantine: pl.DataFrame) -> Table:
    """Return how many rows were quarantined by file, field and reason, most frequent first."""
    keys = ["source_file", "field", "reason"]
    counted = quarantine.group_by(keys).len("n").sort(["n", *keys], descending=[True, False, False, False])
    rows = [
        [text_cell(row["reason"]), text_cell(row["field"]), text_cell(row["source_file"]), count_cell(row["n"])]
        for row in counted.iter_rows(named=True)
    ]
    empty = "No row was quarantined."
    return build_table("Why rows were quarantined", ["Reason", "Field", "File", "Rows"], rows, empty_text=empty)


def tabulate_quarantine_rows(quarantine: pl.DataFrame) -> Table:
    """Return the first quarantined rows with file, line, annotator and what to do."""
    shown = quarantine.sort("source_file", "source_line", "field", "reason").head(N_QUARANTINE_ROWS)
    rows = [
        [
            text_cell(f"{row['source_file']}:{row['source_line']}"),
            text_cell(row["source_id"]),
            text_cell(row["annotator_id"]),
            text_cell(row["reason"]),
            text_cell(row["detail"]),
        ]
        for row in shown.iter_rows(named=True)
    ]
    caption = f"First {shown.height} of {plural(quarantine.height, 'quarantined row')}"
    return build_table(caption, ["File:line", "Item in file", "Annotator", "Reason", "Detail"], rows)


def tabulate_annotators(data: ReportData) -> Table:
    """Return per annotator the annotations, the median length of an explanation and the share of each label."""
    labels = data.config.task.labels.names
    rows = [_annotator_row(data.corpus, annotator_id, labels) for annotator_id in data.annotators]
    return build_table(
        "Annotators: how much they wrote and which labels they gave",
        ["Annotator", "Annotations", "Median words", *labels],
        rows,
        notes=("Label columns: share of the annotator's annotations.",),
    )


def _annotator_row(corpus: pl.DataFrame, annotator_id: str, labels: tuple[str, ...]) -> list[Cell]:
    """Return one annotator's row."""
    own = corpus.filter(pl.col("annotator_id") == annotator_id)
    counts = dict(own.group_by("label").len().iter_rows())
    length = statistics.median(len(words(text)) for text in own["explanation"])
    shares = [
        heat_cell(counts.get(label, 0) / own.height, text=format_percent(counts.get(label, 0), own.height))
        for label in labels
    ]
    return [text_cell(annotator_id), count_cell(own.height), Cell(f"{length:g}", numeric=True), *shares]


def tabulate_splits(corpus: pl.DataFrame) -> Table:
    """Return items, contexts, annotators and annotations of each split."""
    present = set(corpus["split"].unique().to_list())
    names = [*(name for name in SPLITS if name in present), *sorted(present - set(SPLITS))]
    rows = []
    for name in names:
        part = corpus.filter(pl.col("split") == name)
        counts = [part[column].n_unique() for column in ("item_id", "context_id", "annotator_id")]
        rows.append([text_cell(name), *(count_cell(n) for n in counts), count_cell(part.height)])
    return build_table("Splits", ["Split", "Items", "Contexts", "Annotators", "Annotations"], rows)


def check_splits(corpus: pl.DataFrame) -> tuple[bool, str]:
    """Return whether no context stands in two splits, with a sentence that says so."""
    per_context = corpus.group_by("context_id").agg(pl.col("split").n_unique().alias("n"))
    torn = per_context.filter(pl.col("n") > 1).height
    if torn:
        return False, f"{plural(torn, 'context')} of {per_context.height:,} stand in more than one split: figures leak."
    return True, f"No context stands in two splits (checked: {plural(per_context.height, 'context')})."


def tabulate_pairs(pair_counts: Mapping[str, Any]) -> Table:
    """Return the counts of preference pairs, mappings spread into rows."""
    rows = [
        [text_cell(_title(name)), count_cell(value) if isinstance(value, int) else text_cell(value)]
        for name, value in flatten_mapping(pair_counts)
    ]
    return build_table("Preference pairs: chosen by the target annotator, rejected by another", ["What", "Count"], rows)


def flatten_mapping(mapping: Mapping[str, Any], prefix: str = "", *, spell: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of every leaf; nested names are joined by ` · ` and, by default, spelt in words."""
    for key, value in mapping.items():
        name = prefix + (_spell(str(key)) if spell else str(key))
        if isinstance(value, Mapping):
            yield from flatten_mapping(value, f"{name} · ", spell=spell)
        else:
            yield name, value


def _spell(name: str) -> str:
    """Return a count's name in words: `n_pairs` as `pairs`, `white_space` as `white space`."""
    return name.removeprefix("n_").replace("_", " ")


def _title(name: str) -> str:
    """Return a count's name in words, beginning in upper case."""
    text = _spell(name)
    return text[:1].upper() + text[1:]
