"""How agreement, label distribution and attribution settle as annotations accrue, and how many more are needed."""

from __future__ import annotations

import polars as pl

from capo_core.report.charts import Curve, Point, draw_curves
from capo_core.report.data import ReportData, is_finite, matching
from capo_core.report.figures import SHARE_DOMAIN, Figure, LegendEntry, Panel
from capo_core.report.formats import NOT_MEASURED, format_estimate, format_value
from capo_core.report.tables import Cell, Table, build_table, count_cell
from capo_core.report.terms import QUANTITY_TITLES, order_by, quantity_title

AXES = ("items", "annotators")


def draw_convergence(data: ReportData) -> Figure:
    """Return a panel per figure and axis: mean over sub-samples with their spread, and the fitted curve."""
    measured = data.convergence.filter(is_finite("mean"))
    panels = [
        _convergence_panel(matching(measured, quantity=quantity, axis=axis), quantity, axis)
        for axis in AXES
        for quantity in order_by(matching(measured, axis=axis)["quantity"].to_list(), QUANTITY_TITLES)
    ]
    legend = (
        LegendEntry("mean over sub-samples; band: 95% of them", "line line-accent", "var(--accent)"),
        LegendEntry("fitted curve", "line line-floor", "var(--floor)"),
    )
    return Figure("How the figures settle as items and annotators accrue", tuple(panels), legend)


def _convergence_panel(rows: pl.DataFrame, quantity: str, axis: str) -> Panel:
    """Return the curve of one figure."""
    ordered = rows.sort("n")
    share = quantity != "label_distribution_distance"
    points = tuple(
        Point(
            row["n"],
            row["mean"],
            row["ci_low"],
            row["ci_high"],
            f"{row['n']} {axis}, {row['n_repeats']} sub-samples: "
            f"{format_estimate(row['mean'], row['ci_low'], row['ci_high'], share=share)}",
        )
        for row in ordered.iter_rows(named=True)
    )
    fitted = tuple(
        Point(row["n"], row["fitted_mean"], None, None, "")
        for row in ordered.filter(is_finite("fitted_mean")).iter_rows(named=True)
    )
    curves = [
        Curve(fitted, "var(--floor)", (5, 4), width=1.5, has_dots=False),
        Curve(points, "var(--accent)"),
    ]
    title = f"{quantity_title(quantity)}, by {axis}"
    ticks = sorted(set(ordered["n"].to_list()))
    drawing = draw_curves(
        curves,
        description=f"{title}: mean over sub-samples with their spread, and the fitted curve. Figures in the table.",
        x_title=axis,
        x_ticks=ticks if len(ticks) > 1 else None,
        domain=SHARE_DOMAIN if quantity == "attribution_accuracy" else None,
    )
    return Panel(title, drawing)


def list_advice(data: ReportData) -> list[str]:
    """Return how many more annotations each figure needs, a sentence each, beginning in upper case."""
    fits = data.convergence_fits
    rank = {name: place for place, name in enumerate(order_by(fits["quantity"].to_list(), QUANTITY_TITLES))}
    rows = sorted(
        fits.iter_rows(named=True), key=lambda row: (row["axis"] != "items", row["axis"], rank[row["quantity"]])
    )
    return [row["advice"][:1].upper() + row["advice"][1:].rstrip(".") + "." for row in rows if row["advice"]]


def tabulate_fits(data: ReportData) -> Table:
    """Return the fitted curves: formula, where the mean tends to, width of the interval now and wanted."""
    fits = data.convergence_fits.sort("axis", "quantity", descending=[True, False])
    rows = [
        [
            Cell(quantity_title(row["quantity"]), (f"by {row['axis']}",)),
            Cell(row["formula"] or "could not be fitted", style="" if row["formula"] else "absent"),
            _number_cell(row["asymptote"]),
            _number_cell(row["rmse"]),
            count_cell(row["n_now"]),
            _number_cell(row["width_now"]),
            _number_cell(row["width_wanted"]),
            Cell("–", style="absent") if row["n_needed"] is None else count_cell(row["n_needed"]),
        ]
        for row in fits.iter_rows(named=True)
    ]
    columns = ["Figure", "Curve, n counts the axis", "Tends to", "RMSE", "n now", "Width now", "Wanted", "n needed"]
    return build_table("Fitted curves", columns, rows)


def _number_cell(value: float | None) -> Cell:
    text = format_value(value)
    return Cell(text, style="absent") if text == NOT_MEASURED else Cell(text, numeric=True)
