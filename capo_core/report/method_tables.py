"""What else a method does: whom it is taken for, which features are off, what it forgets, what was left out."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from capo_core.report.data import ReportData, choose_size, is_finite, matching
from capo_core.report.formats import format_value, is_measured, plural
from capo_core.report.key_figures import CLASSIFIER, KeyFigures
from capo_core.report.tables import Cell, RowGroup, Table, build_table, count_cell, heat_cell, text_cell, value_cell
from capo_core.report.terms import (
    SURFACE,
    condition_title,
    decision_rank,
    feature_title,
    method_title,
    order_methods,
)

RETENTION_TERMS = {
    "neutral_perplexity": (
        "Perplexity of neutral text",
        "Change: with the adapter over without it; 1 is unchanged.",
    ),
    "zero_shot_label_agreement": (
        "Zero-shot label agreement",
        "Change: with the adapter minus without it. Share of people who gave the label decided without naming anybody.",
    ),
    "zero_shot_decision_kept": (
        "Zero-shot decisions kept",
        "Share of items decided as the base model decides them. An adapter of one annotator is meant to move them.",
    ),
}


@dataclass(frozen=True)
class Profile:
    """One value profile: whose, with which seed, how it was made, and its text."""

    title: str
    facts: str
    text: str


def tabulate_cross_attribution(data: ReportData, keys: KeyFigures | None) -> tuple[str, list[Table]]:
    """Return of what text and groups the matrices are, and one matrix per method.

    Rows: whom the text imitates; columns: whom it is attributed to.
    """
    table = matching(data.cross_attribution, classifier=CLASSIFIER)
    condition = SURFACE if SURFACE in table["condition"].to_list() else "raw"
    size = choose_size(table["group_size"].to_list(), keys.group_size if keys else 5)
    chosen = table.filter((pl.col("condition") == condition) & pl.col("group_size").eq_missing(pl.lit(size)))
    methods = order_methods(chosen["method"].to_list())
    described = f"Groups of {size}, {condition_title(condition)}, sampled text." if methods else ""
    return described, [_cross_matrix(matching(chosen, method=name), method_title(name)) for name in methods]


def _cross_matrix(rows: pl.DataFrame, caption: str) -> Table:
    """Return the matrix of one method; the mean probability stands below each share."""
    people = sorted(set(rows["imitated"].to_list()) | set(rows["attributed"].to_list()))
    found = {(row["imitated"], row["attributed"]): row for row in rows.iter_rows(named=True)}
    lines = []
    for imitated in people:
        cells = []
        for attributed in people:
            row = found.get((imitated, attributed))
            if row is None:
                cells.append(text_cell(None))
                continue
            notes = (format_value(row["probability"], share=True),)
            cells.append(heat_cell(row["share"], text=format_value(row["share"], share=True), notes=notes))
        lines.append([text_cell(imitated), *cells])
    return build_table(caption, ["Imitates", *people], lines)


def tabulate_style_distances(data: ReportData) -> Table:
    """Return every feature's distance to the person's text by method, mean over annotators, beside both controls."""
    table = data.style_distances
    decisions = sorted(table["decision"].unique().to_list(), key=decision_rank)
    chosen = matching(table, decision=decisions[0]) if decisions else table
    methods = order_methods(chosen["method"].to_list())
    means = chosen.group_by("feature", "method").agg(pl.col("distance").mean())
    controls = chosen.group_by("feature").agg(pl.col("halves_distance", "others_distance").mean())
    found = {(row["feature"], row["method"]): row["distance"] for row in means.iter_rows(named=True)}
    ranked = controls.join(
        means.filter(pl.col("method") == (methods[-1] if methods else "")), on="feature", how="left"
    ).sort(["distance", "feature"], descending=[True, False], nulls_last=True)
    rows = [
        [
            text_cell(feature_title(row["feature"])),
            _distance_cell(row["halves_distance"]),
            *(_distance_cell(found.get((row["feature"], method))) for method in methods),
            _distance_cell(row["others_distance"]),
        ]
        for row in ranked.iter_rows(named=True)
        if row["others_distance"] is not None
    ]
    caption = "Style distance feature by feature" + (f", {decisions[0]}" if decisions and decisions[0] else "")
    heads = ["Feature", "Person's own halves", *(method_title(name) for name in methods), "Another annotator"]
    notes = (
        "Wasserstein distance in the person's standard deviations, mean over annotators; intervals stand at their mean "
        "over features, in the tables above.",
    )
    return build_table(caption, heads, rows, notes=notes)


def _distance_cell(value: float | None) -> Cell:
    if value is None or not is_measured(value):
        return Cell("undefined", style="absent")
    return heat_cell(value, text=format_value(value))


def tabulate_exclusions(data: ReportData) -> Table:
    """Return every exclusion rule met, with the value that met it."""
    rows = [
        [
            text_cell(method_title(row["method"])),
            text_cell(row["decision"]),
            text_cell(row["annotator_id"]),
            text_cell(row["rule"]),
            Cell(f"{row['value']:g}" if is_measured(row["value"]) else "–", numeric=True),
            Cell(f"{row['threshold']:g}" if is_measured(row["threshold"]) else "–", numeric=True),
        ]
        for row in _order_rows(data.exclusions)
    ]
    columns = ["Method", "Decision", "Annotator", "Rule", "Value", "Threshold"]
    return build_table("What was left out, and by which rule", columns, rows, empty_text="nothing was left out.")


def _order_rows(frame: pl.DataFrame) -> list[dict]:
    rank = {name: place for place, name in enumerate(order_methods(frame["method"].to_list()))}
    rows = frame.sort(frame.columns).iter_rows(named=True)
    return sorted(rows, key=lambda row: (rank[row["method"]], decision_rank(row["decision"])))


def tabulate_retention(data: ReportData) -> Table:
    """Return what every adapter leaves of the base model: before, after, and the change with its interval."""
    groups = []
    names = [*RETENTION_TERMS, *sorted(set(data.retention["metric"].to_list()) - set(RETENTION_TERMS))]
    for name in names:
        own = matching(data.retention, metric=name)
        rank = {method: place for place, method in enumerate(order_methods(own["method"].to_list()))}
        rows = sorted(own.iter_rows(named=True), key=lambda row: (rank[row["method"]], row["target"], row["seed"]))
        title, meaning = RETENTION_TERMS.get(name, (name, ""))
        groups.append(RowGroup(tuple(_retention_row(row) for row in rows), title, meaning))
    heads = [Cell("Adapter"), *(Cell(title, numeric=True) for title in ("Base", "With adapter", "Change", "n"))]
    return Table("What the adapters leave of the base model", tuple(heads), tuple(groups))


def _retention_row(row: dict) -> tuple[Cell, ...]:
    share = row["metric"] != "neutral_perplexity"
    ends = (Cell(format_value(row[name], share=share), numeric=is_measured(row[name])) for name in ("base", "tuned"))
    change = value_cell(row["change"], row["ci_low"], row["ci_high"], share=share)
    name = Cell(f"{method_title(row['method'])}, {row['target']}", (f"seed {row['seed']}",))
    return (name, *ends, change, count_cell(row["n"]))


def tabulate_retention_means(data: ReportData) -> Table:
    """Return the mean change over adapters by method, with the least and the greatest."""
    rows = []
    measured = data.retention.filter(is_finite("change"))
    for name, (title, _) in RETENTION_TERMS.items():
        own = matching(measured, metric=name)
        for method in order_methods(own["method"].to_list()):
            changes = matching(own, method=method)["change"].sort()
            share = name != "neutral_perplexity"
            ends = [format_value(changes[place], share=share) for place in (0, -1)]
            figure = Cell(
                format_value(float(changes.to_numpy().mean()), share=share), (f"{ends[0]} to {ends[1]}",), numeric=True
            )
            rows.append([text_cell(title), text_cell(method_title(method)), figure, count_cell(changes.len())])
    notes = (
        "Small: least and greatest change of an adapter. Perplexity: times the base model's, 1 is unchanged; the other "
        "two: the difference to the base model, 0 is unchanged.",
    )
    columns = ["What", "Method", "Mean change", "Adapters"]
    return build_table("What fine-tuning leaves of the base model", columns, rows, notes=notes)


def list_profiles(data: ReportData) -> list[Profile]:
    """Return the value profiles by annotator and seed."""
    several = data.value_profiles["seed"].n_unique() > 1
    return [
        Profile(
            row["annotator_id"] + (f", seed {row['seed']}" if several else ""),
            f"from {plural(row['n_examples'], 'training annotation')}"
            + (", cut at the token limit" if row["truncated"] else ""),
            row["profile"].strip(),
        )
        for row in data.value_profiles.sort("annotator_id", "seed").iter_rows(named=True)
    ]
