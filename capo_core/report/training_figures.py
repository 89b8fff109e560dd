"""The curves of training: every run's loss, margin and preference accuracy, on training and validation items."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from capo_core.report.charts import Curve, Point, Reference, draw_curves
from capo_core.report.data import ReportData, matching
from capo_core.report.figures import Figure, LegendEntry, Panel
from capo_core.report.formats import format_value
from capo_core.report.tables import Cell, Table, build_table, count_cell, text_cell
from capo_core.report.terms import TRAINING_TITLES, method_title, order_methods

N_COLOURS = 7
"""Colours for people; more people than that are drawn in one colour."""

N_POINTS = 120
"""Points drawn per curve; longer logs are averaged over equal runs of steps."""

_METRICS = ("loss", "accuracy", "margin")
_REFERENCES = {"accuracy": 0.5, "margin": 0.0}


@dataclass(frozen=True)
class _Run:
    """One training run's rows of one metric and split."""

    person: str
    seed: int
    split: str
    rows: pl.DataFrame


def draw_training(data: ReportData) -> Figure:
    """Return a panel per method and metric; a person is a colour, validation stands out over training."""
    people = sorted({annotator_id for _, annotator_id, _, _ in data.training_logs})
    panels = []
    for method in order_methods(method for method, _, _, _ in data.training_logs):
        for metric in _METRICS:
            runs = _select_runs(data, method, metric)
            if runs:
                panels.append(_training_panel(runs, method, metric, people))
    legend = [LegendEntry("validation items", "line line-solid"), LegendEntry("training items", "line line-faint")]
    if len(people) <= N_COLOURS:
        persons = [
            LegendEntry(person, f"line line-person-{i}", f"var(--person-{i})") for i, person in enumerate(people)
        ]
        legend = [*persons, *legend]
    return Figure("Training curves by step, one line per adapter and seed", tuple(panels), tuple(legend))


def _select_runs(data: ReportData, method: str, metric: str) -> list[_Run]:
    """Return the runs of a method that logged finite values of a metric."""
    runs = []
    for log_method, person, seed, log in data.training_logs:
        rows = log.filter((pl.col("metric") == metric) & pl.col("value").is_finite())
        if log_method == method:
            runs += [_Run(person, seed, str(split), matching(rows, split=split)) for split in rows["split"].unique()]
    return sorted(runs, key=lambda run: (run.split != "train", run.person, run.seed))


def _training_panel(runs: list[_Run], method: str, metric: str, people: list[str]) -> Panel:
    """Return the panel of one method and metric."""
    curves = [_training_curve(run, metric, people) for run in runs]
    title = f"{method_title(method)}: {TRAINING_TITLES.get(metric, metric)}"
    references = [Reference(_REFERENCES[metric])] if metric in _REFERENCES else []
    domain = (0.0, 1.0) if metric == "accuracy" else None
    description = f"{title} by step, training and validation. First and last values stand in the table below."
    return Panel(
        title, draw_curves(curves, description=description, x_title="step", domain=domain, references=references)
    )


def _training_curve(run: _Run, metric: str, people: list[str]) -> Curve:
    """Return one run as a curve: faint for training items, with dots for validation items."""
    colour = f"var(--person-{people.index(run.person)})" if len(people) <= N_COLOURS else "var(--accent)"
    points = tuple(
        Point(
            row["step"],
            row["value"],
            None,
            None,
            f"{run.person}, seed {run.seed}, {run.split}, step {row['step']:g}: {metric} {format_value(row['value'])}",
        )
        for row in thin_log(run.rows).iter_rows(named=True)
    )
    if run.split == "train":
        return Curve(points, colour, width=1.25, opacity=0.5, has_dots=False)
    return Curve(points, colour, width=2.0, has_dots=len(points) <= 20)


def thin_log(rows: pl.DataFrame, n_points: int = N_POINTS) -> pl.DataFrame:
    """Return (step, value) with at most `n_points` rows: means over equal runs of steps."""
    ordered = rows.sort("step").select(pl.col("step").cast(pl.Float64), "value")
    if ordered.height <= n_points:
        return ordered
    place = pl.int_range(pl.len()) * n_points // pl.len()
    return ordered.with_columns(place.alias("bin")).group_by("bin").mean().sort("bin").drop("bin")


def tabulate_training(data: ReportData) -> Table:
    """Return steps and the first and last value of every metric of every run."""
    rows = []
    for method in order_methods(method for method, _, _, _ in data.training_logs):
        own = [(person, seed, log) for name, person, seed, log in data.training_logs if name == method]
        for person, seed, log in sorted(own, key=lambda run: run[:2]):
            for (split, metric), part in sorted(log.group_by("split", "metric"), key=lambda pair: pair[0]):
                if metric in _METRICS:
                    rows.append(_training_row(method, person, seed, str(split), str(metric), part.sort("step")))
    columns = ["Method", "Adapter of", "Seed", "Items", "Metric", "Steps", "First", "Last"]
    return build_table("Training runs, first and last values", columns, rows, empty_text="No adapter was trained.")


def _training_row(method: str, person: str, seed: int, split: str, metric: str, part: pl.DataFrame) -> list[Cell]:
    """Return one run's row for one metric."""
    ends = [Cell(format_value(part["value"][i]), numeric=True) for i in (0, -1)]
    title = TRAINING_TITLES.get(metric, metric)
    return [
        text_cell(method_title(method)),
        text_cell(person),
        Cell(str(seed), numeric=True),
        text_cell(split),
        text_cell(title),
        count_cell(part["step"][-1]),
        *ends,
    ]
