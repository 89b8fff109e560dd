"""Tables about the labels: how far people agree, on which items they do not, and what class of task that makes it."""

from __future__ import annotations

import polars as pl

from capo_core.report.data import ReportData, is_finite, matching
from capo_core.report.formats import format_interval, format_value, is_measured
from capo_core.report.tables import Cell, RowGroup, Table, build_table, count_cell, heat_cell, text_cell, value_cell
from capo_core.report.terms import QUANTITY_TITLES, SUBJECTIVITY_TITLES, order_by, quantity_title

N_CONTESTED = 8
"""Items shown of those that people disagree on most."""

_SHARES = ("krippendorff", "cohen", "percent", "label_entropy_normalised")
"""Beginnings of the figures that lie between −1 and 1 and are written as .71."""

_GROUPS = (
    ("Chance-corrected agreement", "krippendorff", "1 is full agreement, 0 what chance alone would give."),
    ("Equal labels", "percent", "Share of pairs of labels of one item that are equal."),
    ("Uncertainty of an item's label", "label_entropy", "0 where everybody gives the same label."),
    ("Habits of labelling", "label_jsd", "Mean Jensen-Shannon divergence of two annotators' label distributions."),
)


def tabulate_agreement(agreement: pl.DataFrame) -> Table:
    """Return agreement over all annotators, one row per metric, the divergence beside its shuffled floor."""
    overall = agreement.filter(pl.col("annotator_a").is_null() & pl.col("annotator_b").is_null())
    rows = {row["metric"]: row for row in overall.iter_rows(named=True)}
    left = order_by(rows, QUANTITY_TITLES)
    groups = []
    for title, beginning, meaning in (*_GROUPS, ("Other figures", "", "")):
        own = [name for name in left if name.startswith(beginning)]
        left = [name for name in left if name not in own]
        groups.append(RowGroup(tuple(_agreement_row(rows[name]) for name in own), title, meaning))
    numeric = [False, True, True, True]
    heads = [Cell(t, numeric=n) for t, n in zip(("Figure", "Value", "Items", "Labels"), numeric, strict=True)]
    return Table("Agreement over all annotators", tuple(heads), tuple(groups))


def _agreement_row(row: dict) -> tuple[Cell, ...]:
    counts = (count_cell(row["n_items"]), count_cell(row["n_annotations"]))
    return (text_cell(quantity_title(row["metric"])), _agreement_cell(row), *counts)


def _agreement_cell(row: dict) -> Cell:
    """Return a value with interval; agreement undefined for lack of variation says so instead of a number."""
    if not is_measured(row["value"]):
        return Cell("undefined", style="absent")
    return value_cell(row["value"], row["ci_low"], row["ci_high"], share=row["metric"].startswith(_SHARES))


def tabulate_agreement_pairs(agreement: pl.DataFrame) -> list[Table]:
    """Return one annotator × annotator matrix per metric that was measured between pairs."""
    pairs = agreement.filter(pl.col("annotator_a").is_not_null() & pl.col("annotator_b").is_not_null())
    return [
        _agreement_matrix(matching(pairs, metric=metric), metric)
        for metric in order_by(pairs["metric"].to_list(), ["cohen_kappa", "cohen_kappa_quadratic"])
    ]


def _agreement_matrix(pairs: pl.DataFrame, metric: str) -> Table:
    """Return the matrix of one metric, symmetric, with a dash on the diagonal."""
    found = {frozenset((row["annotator_a"], row["annotator_b"])): row for row in pairs.iter_rows(named=True)}
    people = sorted({person for pair in found for person in pair})
    rows = [[text_cell(person), *(_matrix_cell(found, person, other) for other in people)] for person in people]
    notes = ("Small: interval and number of items that both labelled.",)
    return build_table(f"{quantity_title(metric)} between pairs", ["Annotator", *people], rows, notes=notes)


def _matrix_cell(found: dict[frozenset[str], dict], person: str, other: str) -> Cell:
    """Return the cell of one pair."""
    row = found.get(frozenset((person, other)))
    if person == other or row is None:
        return text_cell(None)
    share = row["metric"].startswith(_SHARES)
    interval = format_interval(row["ci_low"], row["ci_high"], share=share)
    notes = tuple(note for note in (interval, f"n {row['n_items']:,}") if note)
    if not is_measured(row["value"]):
        return Cell("undefined", notes, style="absent")
    return heat_cell(row["value"], text=format_value(row["value"], share=share), notes=notes)


def tabulate_contested(data: ReportData) -> Table:
    """Return the items that people disagree on most, with everybody's labels."""
    texts = data.corpus.select("item_id", "text_b").unique("item_id")
    ranked = data.item_labels.filter(is_finite("entropy") & (pl.col("entropy") > 0))
    ranked = ranked.sort(["entropy", "item_id"], descending=[True, False]).head(N_CONTESTED)
    shown = ranked.join(texts, on="item_id", how="left", maintain_order="left")
    rows = [
        [
            text_cell(row["text_b"] or row["item_id"]),
            text_cell(", ".join(f"{one['label']} {one['n']}" for one in row["label_counts"])),
            Cell(format_value(row["entropy"]), numeric=True),
        ]
        for row in shown.iter_rows(named=True)
    ]
    name = data.config.task.text_b_name
    empty = "no item with several labels"
    return build_table("Items that people disagree on most", [name, "Labels", "Entropy, bits"], rows, empty_text=empty)


def describe_subjectivity(subjectivity: pl.DataFrame) -> tuple[str, str]:
    """Return the task's class in words and the rule with its figures; both empty where no class was proposed."""
    if subjectivity.is_empty():
        return "", ""
    row = subjectivity.row(0, named=True)
    titles = [
        SUBJECTIVITY_TITLES.get(row[name] or "", row[name] or "no class") for name in ("subjectivity", "proposed")
    ]
    text = titles[0][0].upper() + titles[0][1:] + "."
    if row["subjectivity"] != row["proposed"]:
        text += f" Set in the configuration; the rule proposes {titles[1]}."
    return text, row["rule"] or ""
