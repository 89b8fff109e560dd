"""Tables about style: how well people are told apart by it, under which reductions, and whether labels explain it."""

from __future__ import annotations

import polars as pl

from capo_core.report.data import ReportData, choose_size, is_finite, matching
from capo_core.report.formats import format_interval, format_value, is_measured, write_p
from capo_core.report.tables import Cell, RowGroup, Table, build_table, count_cell, heat_cell, text_cell, value_cell
from capo_core.report.terms import (
    CLASSIFIER_TITLES,
    NORMALISATION_TITLES,
    P_VALUE_MEANINGS,
    P_VALUE_TITLES,
    REDUCTION_TITLES,
    SHUFFLED,
    order_by,
    variant_title,
)

Variant = tuple[str, str, str]
"""Reduction, normalisation and classifier."""

_STRATIFIED = {
    "label_fixed": "groups of one label only",
    "label_left_out": "label never seen by the classifier",
    "genre_left_out": "genre never seen by the classifier",
}


def order_variants(frame: pl.DataFrame) -> list[Variant]:
    """Return the variants of a frame: reductions in order, as written before surface removed, n-grams first."""
    known = (list(REDUCTION_TITLES), list(NORMALISATION_TITLES), list(CLASSIFIER_TITLES))
    variants = frame.select("reduction", "normalisation", "classifier").unique().rows()
    return sorted(variants, key=lambda one: [_rank(order, name) for order, name in zip(known, one, strict=True)])


def _rank(order: list[str], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def select_variant(frame: pl.DataFrame, variant: Variant) -> pl.DataFrame:
    """Return the rows of one variant."""
    return matching(frame, reduction=variant[0], normalisation=variant[1], classifier=variant[2])


def tabulate_stability(data: ReportData) -> Table:
    """Return accuracy by reduction, normalisation and classifier, sizes as columns, each beside its shuffled floor."""
    stability = data.stability.filter(pl.col("stratum").is_null())
    human = matching(stability, condition="human")
    sizes = sorted(human["group_size"].unique().to_list())
    groups = []
    for reduction in order_by(human["reduction"].to_list(), REDUCTION_TITLES):
        rows = []
        for variant in order_variants(matching(human, reduction=reduction)):
            own = select_variant(human, variant)
            floor = select_variant(matching(stability, condition=SHUFFLED), variant)
            cells = [_stability_cell(matching(own, group_size=k), matching(floor, group_size=k)) for k in sizes]
            name = NORMALISATION_TITLES.get(variant[1], variant[1])
            by = f"by {CLASSIFIER_TITLES.get(variant[2], variant[2])}"
            rows.append((Cell(name, (by,)), *cells, *_both_p_cells(own)))
        groups.append(RowGroup(tuple(rows), REDUCTION_TITLES.get(reduction, reduction)))
    heads = (Cell("Text"), *(_number_head(text) for text in (*(f"k = {k}" for k in sizes), *P_VALUE_TITLES.values())))
    chance = sorted(set(stability["chance"].drop_nulls().to_list()))
    notes = (
        f"Small: 95% interval, and the floor, the same with annotators "
        f"shuffled within items{f'; chance is {format_value(chance[0], share=True)}' if chance else ''}.",
        "p: two tests of whether style is there at all, authors permuted within items; each serves all group sizes.",
        *(f"{title}: {P_VALUE_MEANINGS[column]}" for column, title in P_VALUE_TITLES.items()),
    )
    return Table("Held-out human explanations attributed to their authors, groups of k", heads, tuple(groups), notes)


def _stability_cell(own: pl.DataFrame, floor: pl.DataFrame) -> Cell:
    """Return an accuracy with interval and floor, its ground deepening from chance to 1."""
    if own.height != 1 or not is_measured(own["accuracy"][0]):
        return Cell("not measured", style="absent")
    row = own.row(0, named=True)
    under = floor["accuracy"][0] if floor.height == 1 else None
    notes = (
        format_interval(row["ci_low"], row["ci_high"], share=True) or "no interval",
        f"floor {format_value(under, share=True)}",
    )
    text = format_value(row["accuracy"], share=True)
    return heat_cell(row["accuracy"], text=text, notes=notes, minimum=row["chance"] or 0.0)


def _both_p_cells(rows: pl.DataFrame) -> tuple[Cell, Cell]:
    """Return the p values of a variant by either test."""
    return _p_cell(rows), _p_cell(rows, "p_value_retrained", "not computed")


def _p_cell(rows: pl.DataFrame, column: str = "p_value", absent: str = "not tested") -> Cell:
    """Return the p value that all group sizes of a variant share."""
    values = sorted({value for value in rows[column].to_list() if is_measured(value)})
    return Cell(" to ".join(write_p(value) for value in values) or absent, numeric=True)


def tabulate_strata(data: ReportData) -> Table:
    """Return whether the style survives when the label or genre is held fixed or was never seen."""
    stability = data.stability
    strata = stability.filter(pl.col("condition").is_in(list(_STRATIFIED)))
    sizes = sorted(strata["group_size"].unique().to_list())
    groups = []
    for variant in order_variants(strata):
        own = select_variant(stability.filter(pl.col("condition") != SHUFFLED), variant)
        rows = [_strata_row(matching(own, condition="human", stratum=None), "any labels", sizes)]
        for condition in order_by(_list_conditions(strata, variant), _STRATIFIED):
            part = matching(own, condition=condition)
            names = sorted(part["stratum"].unique().to_list(), key=lambda name: (name is not None, name or ""))
            for stratum in names:
                title = _STRATIFIED[condition] if stratum is None else f"{_STRATIFIED[condition]}: {stratum}"
                rows.append(_strata_row(matching(part, stratum=stratum), title, sizes))
        groups.append(RowGroup(tuple(rows), variant_title(*variant)))
    titles = (*(f"k = {k}" for k in sizes), P_VALUE_TITLES["p_value"], "Items")
    heads = (Cell("Groups"), *map(_number_head, titles))
    notes = (
        f"{P_VALUE_TITLES['p_value']}: as above, but authors permuted within items and labels, or genres; for any "
        "labels, within items.",
    )
    return Table("Does the style survive when the label is held fixed", heads, tuple(groups), notes)


def _number_head(text: str) -> Cell:
    return Cell(text, numeric=True)


def _list_conditions(strata: pl.DataFrame, variant: Variant) -> list[str]:
    """Return the conditions measured for a variant."""
    return select_variant(strata, variant)["condition"].to_list()


def _strata_row(rows: pl.DataFrame, title: str, sizes: list[int]) -> tuple[Cell, ...]:
    """Return one condition's and stratum's accuracies."""
    cells = []
    for size in sizes:
        own = matching(rows, group_size=size)
        row = own.row(0, named=True) if own.height == 1 else {"accuracy": None}
        if not is_measured(row["accuracy"]):
            cells.append(Cell("not measured", style="absent"))
            continue
        plain = value_cell(row["accuracy"], row["ci_low"], row["ci_high"], share=True)
        cells.append(heat_cell(row["accuracy"], text=plain.text, notes=plain.notes, minimum=row["chance"] or 0.0))
    n_items = rows["n_items"].max() if rows.height else None
    return (text_cell(title), *cells, _p_cell(rows), count_cell(n_items if isinstance(n_items, int) else None))


def tabulate_annotator_stability(data: ReportData) -> Table:
    """Return each annotator's own accuracy under every variant, at the leading group size."""
    own = data.stability_annotators
    size = choose_size(own.filter(is_finite("accuracy"))["group_size"].to_list())
    people = sorted(own["annotator_id"].unique().to_list())
    rows = []
    at_size = own.filter(pl.col("group_size") == size) if size is not None else own.head(0)
    for variant in order_variants(at_size):
        part = select_variant(at_size, variant)
        cells = [_person_cell(matching(part, annotator_id=person)) for person in people]
        rows.append([text_cell(variant_title(*variant)), *cells])
    caption = f"Accuracy by annotator, groups of {size}" if size is not None else "Accuracy by annotator"
    return build_table(caption, ["Text", *people], rows)


def _person_cell(rows: pl.DataFrame) -> Cell:
    if rows.height != 1 or not is_measured(rows["accuracy"][0]):
        return Cell("not measured", style="absent")
    row = rows.row(0, named=True)
    plain = value_cell(row["accuracy"], row["ci_low"], row["ci_high"], share=True, notes=[f"n {row['n_items']:,}"])
    return heat_cell(row["accuracy"], text=plain.text, notes=plain.notes)
