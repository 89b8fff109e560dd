"""Tables about the people: how far they agree and how well their writing tells them apart."""

from __future__ import annotations

import polars as pl

from capo_core.report.formats import format_interval, format_value, is_measured
from capo_core.report.tables import Cell, Table, build_table, count_cell, heat_cell, text_cell, value_cell
from capo_core.report.terms import NORMALISATION_TITLES, REDUCTION_TITLES

AGREEMENT_TITLES = {
    "krippendorff_alpha_nominal": "Krippendorff's α, nominal",
    "krippendorff_alpha_ordinal": "Krippendorff's α, ordinal",
    "krippendorff_alpha_interval": "Krippendorff's α, interval",
    "cohen_kappa": "Cohen's κ",
    "percent_agreement": "Share of equal labels",
}

CURVE_TITLES = {"human": "human text", "shuffled": "authors shuffled (floor)"}


def agreement_title(metric: str) -> str:
    """Return what an agreement metric is called; an unknown one keeps its own name."""
    return AGREEMENT_TITLES.get(metric, metric)


def tabulate_agreement(agreement: pl.DataFrame) -> Table:
    """Return agreement over all annotators, one row per metric."""
    overall = agreement.filter(pl.col("annotator_a").is_null() & pl.col("annotator_b").is_null()).sort("metric")
    rows = [
        [
            text_cell(agreement_title(row["metric"])),
            _agreement_cell(row),
            count_cell(row["n_items"]),
            count_cell(row["n_annotations"]),
        ]
        for row in overall.iter_rows(named=True)
    ]
    return build_table("Agreement over all annotators", ["Metric", "Value", "Items", "Annotations"], rows)


def _agreement_cell(row: dict) -> Cell:
    """Return a value with interval; agreement undefined for lack of variation says so instead of a number."""
    if not is_measured(row["value"]):
        return Cell("undefined", style="absent")
    return value_cell(row["value"], row["ci_low"], row["ci_high"], share=True)


def tabulate_agreement_pairs(agreement: pl.DataFrame) -> list[Table]:
    """Return one annotator × annotator matrix per metric that was measured between pairs."""
    pairs = agreement.filter(pl.col("annotator_a").is_not_null() & pl.col("annotator_b").is_not_null())
    return [
        _agreement_matrix(pairs.filter(pl.col("metric") == metric), metric)
        for metric in sorted(pairs["metric"].unique())
    ]


def _agreement_matrix(pairs: pl.DataFrame, metric: str) -> Table:
    """Return the matrix of one metric, symmetric, with a dash on the diagonal."""
    found = {frozenset((row["annotator_a"], row["annotator_b"])): row for row in pairs.iter_rows(named=True)}
    people = sorted({person for pair in found for person in pair})
    rows = [[text_cell(person), *(_matrix_cell(found, person, other) for other in people)] for person in people]
    notes = ("Small: interval and number of items that both labelled.",)
    return build_table(f"{agreement_title(metric)} between pairs", ["Annotator", *people], rows, notes=notes)


def _matrix_cell(found: dict[frozenset[str], dict], person: str, other: str) -> Cell:
    """Return the cell of one pair."""
    row = found.get(frozenset((person, other)))
    if person == other or row is None:
        return text_cell(None)
    interval = format_interval(row["ci_low"], row["ci_high"], share=True)
    notes = tuple(note for note in (interval, f"n {row['n_items']:,}") if note)
    if not is_measured(row["value"]):
        return Cell("undefined", notes, style="absent")
    return heat_cell(row["value"], text=format_value(row["value"], share=True), notes=notes)


def tabulate_stability(stability: pl.DataFrame) -> Table:
    """Return every point of the stability curves."""
    rows = [
        [
            text_cell(REDUCTION_TITLES.get(row["reduction"], row["reduction"])),
            text_cell(NORMALISATION_TITLES.get(row["normalisation"], row["normalisation"])),
            text_cell(CURVE_TITLES.get(row["condition"], row["condition"])),
            count_cell(row["group_size"]),
            value_cell(row["accuracy"], row["ci_low"], row["ci_high"], share=True),
            count_cell(row["n_groups"]),
            count_cell(row["n_items"]),
            count_cell(row["n_repeats"]),
            Cell(format_value(row["chance"], share=True), numeric=True),
        ]
        for row in stability.sort("reduction", "normalisation", "condition", "group_size").iter_rows(named=True)
    ]
    columns = ["Text", "Surface", "Authors", "k", "Accuracy", "Groups", "Items", "Repeats", "Chance"]
    return build_table("Attribution of held-out human text, every point", columns, rows)
