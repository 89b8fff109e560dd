"""The page on two runs: the same methods side by side, with paired tests over the items that both answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from capo_core.evaluation.run_comparison import RunComparison
from capo_core.report.assets import render_report_page
from capo_core.report.comparison_tables import list_key_figures, read_difference, tabulate_pair
from capo_core.report.data import Difference, Estimate, matching
from capo_core.report.examples import Author, Examples, collect_examples
from capo_core.report.findings import format_test, quote, say_difference
from capo_core.report.formats import format_difference, format_interval, plural, write_p
from capo_core.report.key_figures import FigureKey, KeyFigures, choose_key_figures
from capo_core.report.metric_terms import metric_term
from capo_core.report.run_figures import draw_runs
from capo_core.report.tables import Cell, RowGroup, Table, build_table, count_cell, text_cell, value_cell
from capo_core.report.terms import GENERATED, method_class, method_title
from schemas.config import EvaluationConfig, TaskSpec

RUN_NAMES = ("Run A", "Run B")

_SECTIONS = (
    ("summary", "Summary"),
    ("results", "Results"),
    ("comparisons", "Every comparison"),
    ("examples", "Examples"),
    ("provenance", "How the runs differ"),
)


@dataclass(frozen=True)
class RunRecord:
    """One of the two runs.

    Attributes:
        title: what the run is called.
        reference: its evaluation's reference.
        settings: every setting of the steps that led there, by `step · setting`.
    """

    title: str
    reference: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class ComparisonData:
    """Everything that a page on two runs shows.

    Attributes:
        runs: run A and run B.
        task: what both were asked.
        evaluation: resamples and confidence of the comparison.
        corpus: CORPUS of both.
        generations: GENERATIONS of each.
        found: what `compare_runs` found.
        command: what made this page.
    """

    runs: tuple[RunRecord, RunRecord]
    task: TaskSpec
    evaluation: EvaluationConfig
    corpus: pl.DataFrame
    generations: tuple[pl.DataFrame, pl.DataFrame]
    found: RunComparison
    command: str

    @property
    def alpha(self) -> float:
        """The level of tests that agrees with the intervals' confidence."""
        return 1 - self.evaluation.confidence

    @property
    def methods(self) -> list[str]:
        """Methods that both runs have, in the report's order."""
        present = [set(metrics["method"].to_list()) for metrics in (self.found.first, self.found.second)]
        return [name for name in GENERATED if name in present[0] & present[1]]

    def find(self, key: FigureKey, method: str) -> tuple[Estimate | None, Estimate | None]:
        """Return a method's figure in run A and in run B."""
        return key.find(self.found.first, method), key.find(self.found.second, method)

    def compare(self, key: FigureKey, method: str) -> Difference | None:
        """Return run A minus run B."""
        return key.compare(self.found.comparisons, method, method)


def render_comparison(data: ComparisonData) -> str:
    """Return the page on two runs as one self-contained HTML document; equal data give equal documents."""
    keys = choose_key_figures(data.found.first)
    shown, not_shown = list_differences(data, keys)
    titles = [f"{name}: {run.title}" for name, run in zip(RUN_NAMES, data.runs, strict=True)]
    context: dict[str, Any] = {
        "title": " against ".join(run.title for run in data.runs),
        "kicker": "capo comparison of two runs",
        "sections": _SECTIONS,
        "facts": [*titles, f"task {data.task.name}", plural(data.found.n_items, "item") + " in common"],
        "headline": say_headline(data, keys),
        "shown": shown,
        "not_shown": not_shown,
        "cautions": list_cautions(data),
        "figure": draw_runs(data.found.first, data.found.second, data.methods, list_key_figures(keys)),
        "key_table": tabulate_key_figures(data, keys),
        "comparisons": tabulate_methods(data),
        "examples": collect_run_examples(data),
        "settings": tabulate_settings(data),
        "references": tabulate_references(data),
        "command": data.command,
        "confidence": f"{100 * data.evaluation.confidence:g}%",
    }
    return render_report_page("comparison.html.j2", context)


def say_headline(data: ComparisonData, keys: KeyFigures | None) -> str:
    """Return the sentence to remember: attribution of the last method that both runs have."""
    if keys is None or not data.methods:
        return "Attribution was not measured in both runs."
    method = "capo" if "capo" in data.methods else data.methods[-1]
    pair = data.find(keys.leading, method)
    said = say_difference(data.alpha, data.compare(keys.leading, method), "run A", "run B")
    return (
        f"{method_title(method)}, groups of {keys.group_size} attributed to the person imitated: run A "
        f"{quote(pair[0])}, run B {quote(pair[1])}; {said}."
    )


def list_differences(data: ComparisonData, keys: KeyFigures | None) -> tuple[list[str], list[str]]:
    """Return what differs in the key figures by method as far as it is shown, and what is not shown to differ."""
    shown, not_shown = [], []
    for method in data.methods:
        for key in list_key_figures(keys):
            difference = data.compare(key, method)
            if difference is None:
                continue
            share = metric_term(key.metric).share
            interval = format_interval(difference.low, difference.high, share=share) or "no interval"
            evidence = f"{format_difference(difference.value, share=share)} {interval}"
            evidence += f", {test}" if (test := format_test(difference)) else ""
            name = f"{method_title(method)}, {_name_figure(key)}"
            if difference.is_shown(data.alpha):
                shown.append(f"{name}: {'higher' if difference.value > 0 else 'lower'} in run A, {evidence}")
            else:
                not_shown.append(f"{name}: {evidence}")
    return shown, not_shown


def _name_figure(key: FigureKey) -> str:
    """Return what a figure is called in a sentence, its way of deciding included."""
    title = key.title[0].lower() + key.title[1:]
    return title + (f", {key.decision}" if key.decision else "")


def list_cautions(data: ComparisonData) -> list[str]:
    """Return what limits the comparison: items, seeds and methods that only one run has."""
    cautions = [f"Paired over {plural(data.found.n_items, 'item')} that both runs answered, and over common seeds."]
    if data.found.n_left_out:
        cautions.append(f"{plural(data.found.n_left_out, 'item')} answered in one run only: left out.")
    seeds = [_seeds_by_method(generations) for generations in data.generations]
    for method in sorted(set(seeds[0]) | set(seeds[1])):
        own = [one.get(method, set()) for one in seeds]
        title = method_title(method)
        if not (own[0] and own[1]):
            cautions.append(f"{title}: in run {'A' if own[0] else 'B'} only, not compared.")
        elif not own[0] & own[1]:
            listed = [", ".join(map(str, sorted(one))) for one in own]
            cautions.append(f"{title}: no seed in common (run A {listed[0]}, run B {listed[1]}), not compared.")
        elif len(own[0] & own[1]) == 1:
            cautions.append(f"{title}: one seed in common; what another training would change is not in the intervals.")
    return cautions


def _seeds_by_method(generations: pl.DataFrame) -> dict[str, set[int]]:
    """Return the seeds of every method."""
    grouped = generations.group_by("method").agg(pl.col("seed").unique())
    return {method: set(seeds) for method, seeds in grouped.iter_rows()}


def tabulate_key_figures(data: ComparisonData, keys: KeyFigures | None) -> Table:
    """Return the key figures: a group per figure, a row per method, both runs and their difference."""
    groups = []
    for key in list_key_figures(keys):
        rows = [_key_row(data, key, method) for method in data.methods if any(data.find(key, method))]
        term = metric_term(key.metric)
        if rows:
            groups.append(RowGroup(tuple(rows), _name_figure(key)[0].upper() + _name_figure(key)[1:], term.meaning))
    titles = ("Method", *RUN_NAMES, "A minus B", "p", "p, Holm", "n", "Seeds", "Reading")
    heads = tuple(Cell(title, numeric=title not in ("Method", "Reading")) for title in titles)
    return Table("Key figures of both runs", heads, tuple(groups))


def _key_row(data: ComparisonData, key: FigureKey, method: str) -> tuple[Cell, ...]:
    """Return one method's row for one figure."""
    term = metric_term(key.metric)
    values = [
        value_cell(one.value, one.low, one.high, share=term.share)
        if one
        else value_cell(None, None, None, share=term.share)
        for one in data.find(key, method)
    ]
    name = Cell(method_title(method), style=f"mark mark-{method_class(method)}")
    row = matching(data.found.comparisons, method_a=method, method_b=method, **key._asdict())
    if row.height != 1:
        return (name, *values, Cell("not compared", style="absent"), *(text_cell(None) for _ in range(5)))
    found: dict[str, Any] = {**row.row(0, named=True), **dict(zip(("method_a", "method_b"), RUN_NAMES, strict=True))}
    difference = Cell(
        format_difference(found["difference"], share=term.share),
        (format_interval(found["ci_low"], found["ci_high"], share=term.share) or "no interval",),
        numeric=True,
    )
    tests = [Cell(write_p(found[name]) or "not tested", numeric=True) for name in ("p_value", "p_holm")]
    counts = [count_cell(found["n"]), count_cell(found["n_seeds"])]
    return (name, *values, difference, *tests, *counts, read_difference(found, term, data.alpha))


def tabulate_methods(data: ComparisonData) -> list[Table]:
    """Return a table of every comparison per method."""
    names = dict(zip(("method_a", "method_b"), map(pl.lit, RUN_NAMES), strict=True))
    return [
        tabulate_pair(
            matching(data.found.comparisons, method_a=method).with_columns(**names),
            f"{method_title(method)}: run A minus run B",
            data.alpha,
        )
        for method in data.methods
    ]


def collect_run_examples(data: ComparisonData) -> Examples:
    """Return the examples of both runs, each method of run A above the same of run B."""
    authors = [
        Author(f"{letter}:{method}", f"{method_title(method)}, run {letter}", method_class(method))
        for method in data.methods
        for letter in "AB"
    ]
    parts = [
        generations.filter(pl.col("method").is_in(data.methods)).with_columns(
            method=pl.concat_str(pl.lit(f"{letter}:"), "method")
        )
        for letter, generations in zip("AB", data.generations, strict=True)
    ]
    return collect_examples(data.corpus, pl.concat(parts), data.task, authors)


def tabulate_settings(data: ComparisonData) -> Table:
    """Return the settings in which the steps of the two runs differ."""
    first, second = (run.settings for run in data.runs)
    names = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    rows = [
        [text_cell(name), *(Cell(settings.get(name, "–"), style="code") for settings in (first, second))]
        for name in names
    ]
    n_equal = len(first.keys() | second.keys()) - len(names)
    notes = (f"{plural(n_equal, 'setting')} are equal in both runs.",)
    empty = "none: both runs have the same settings."
    columns = ["Step and setting", *RUN_NAMES]
    return build_table("Settings that differ", columns, rows, notes=notes, empty_text=empty)


def tabulate_references(data: ComparisonData) -> Table:
    """Return the runs' names and evaluations."""
    rows = [
        [text_cell(name), text_cell(run.title), Cell(run.reference, style="code")]
        for name, run in zip(RUN_NAMES, data.runs, strict=True)
    ]
    return build_table("The two runs", ["Run", "Name", "Evaluation"], rows)
