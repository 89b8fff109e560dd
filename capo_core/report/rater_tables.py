"""Human raters: whom they take each method's text for, how sure they are, and CAPO against SFT."""

from __future__ import annotations

from dataclasses import dataclass, replace

from capo_core.report.comparison_tables import tabulate_comparisons
from capo_core.report.data import ALL, ReportData
from capo_core.report.figures import Figure
from capo_core.report.formats import format_value, is_measured
from capo_core.report.result_figures import draw_accuracy
from capo_core.report.result_tables import tabulate_metrics
from capo_core.report.tables import Cell, Table, build_table, count_cell, text_cell


@dataclass(frozen=True)
class RaterSection:
    """What the page shows of human raters.

    Attributes:
        figure: attribution rate by method; None where nobody has rated.
        figures: every figure; None where nobody has rated.
        comparisons: the methods against each other, CAPO and SFT first.
        raters: who answered how much and how reliably.
    """

    figure: Figure | None
    figures: Table | None
    comparisons: tuple[Table, ...]
    raters: Table


def collect_raters(data: ReportData) -> RaterSection:
    """Return what the page shows of human raters."""
    metrics = data.ratings_metrics
    if metrics is None or metrics.is_empty():
        return RaterSection(None, None, (), tabulate_raters(data))
    caption = f"Tasks in which raters name the person imitated, with {data.confidence_percent} intervals"
    compared = data.ratings_comparisons
    return RaterSection(
        draw_accuracy(metrics, "human_attribution_accuracy", caption, len(data.annotators)),
        tabulate_metrics(metrics, ALL, "Ratings, mean over annotators, by method"),
        ()
        if compared is None
        else tuple(
            replace(table, caption=f"By the raters: {table.caption}")
            for table in tabulate_comparisons(compared, data.alpha)
        ),
        tabulate_raters(data),
    )


def tabulate_raters(data: ReportData) -> Table:
    """Return per rater the answers, attention checks passed, consistency on repeated tasks, and whether he counts."""
    caption = "Raters"
    if data.raters is None or data.raters.is_empty():
        return build_table(caption, ["Rater"], [])
    rows = [
        [
            text_cell(row["rater_id"]),
            count_cell(row["n_answered"]),
            _share_cell(row["attention_passed"], row["n_attention"]),
            _share_cell(row["self_consistency"], row["n_repeats"]),
            Cell(format_value(row["median_seconds"]), numeric=is_measured(row["median_seconds"])),
            Cell(
                format_value(row["attribution_accuracy"], share=True), numeric=is_measured(row["attribution_accuracy"])
            ),
            Cell("left out", (row["reason"] or "",), style="quiet") if row["excluded"] else Cell("counted"),
        ]
        for row in data.raters.sort("rater_id").iter_rows(named=True)
    ]
    heads = [
        "Rater",
        "Answers",
        "Attention checks",
        "Self-consistency",
        "Median seconds",
        "Named the right one",
        "Reading",
    ]
    notes = (
        "Attention checks: tasks whose answer stands in the references. Self-consistency: repeated tasks answered with "
        "the same person. Who is left out is decided by a rule stated beforehand, not by how he answers.",
    )
    return build_table(caption, heads, rows, notes=notes)


def _share_cell(share: float | None, n: int | None) -> Cell:
    """Return a share with how many tasks it is of."""
    if not is_measured(share):
        return Cell("not measured", style="absent")
    return Cell(format_value(share, share=True), (f"of {n:,}",) if n else (), numeric=True)
