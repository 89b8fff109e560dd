"""The results table of an experiment in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import polars as pl

from capo_core.markdown import escape_markdown, write_markdown_table
from capo_core.report.formats import (
    DOES_NOT_APPLY,
    MINUS,
    NO_BREAK,
    NOT_MEASURED,
    format_count,
    format_difference,
    format_estimate,
    format_interval,
    format_value,
    write_p,
)
from capo_core.results import FIGURES, ArmTable, Figure, Row, check_bars, split_arms, transfer_figures

ANY = "any"


Conditions = tuple[str | None, ...]


def _as_it_is(condition: str | None) -> Conditions:
    return (condition,)


def _of_own(condition: str | None) -> Conditions:
    """Return the conditions of people's text; for some figures that is their other text against their held-out text."""
    return (None, "split_half") if condition is None else (condition,)


def _of_others(condition: str | None) -> Conditions:
    """Return the condition of the figures that hold another annotator's answers against each person's."""
    return ("other_annotator",) if condition is None else ()


def _of_shuffled(condition: str | None) -> Conditions:
    """Return the condition of an attribution figure's floor."""
    if condition is None:
        return ()
    return ("shuffled" if condition == "raw" else f"shuffled:{condition}",)


class _Line(NamedTuple):
    """A line of the table of methods: its name, whose rows it shows, and which of a figure's conditions, best first."""

    title: str
    method: str
    conditions: Callable[[str | None], Conditions] = _as_it_is


_LINES = (
    _Line("human text (ceiling)", "human", _of_own),
    _Line("another annotator", "human", _of_others),
    _Line("annotators shuffled (floor)", "human", _of_shuffled),
    _Line("commonest label (floor)", "majority"),
    _Line("zero-shot", "zero_shot"),
    _Line("history", "history"),
    _Line("profile", "profile"),
    _Line("SFT", "sft"),
    _Line("CAPO", "capo"),
)
_PEOPLE = ("human", "majority")

_NOTE = (
    "Means over annotators with intervals over items and seeds. Every figure's rows, with n, seeds and the evaluation "
    "they were read from, stand in the table's Parquet file. Lines that are the same under several layouts or pair "
    f"strategies stand once; “{ANY}” means under all of them. “{DOES_NOT_APPLY}” does not apply."
)
_DIFFERENCE_NOTE = (
    "Paired by item over all seeds. p: not corrected; p (Holm): corrected over the comparisons of its metric's family; "
    "d: difference over the standard deviation of the paired differences."
)
_TRANSFER_NOTE = (
    "Adapters answer the held-out items of another corpus; a classifier of the people's own text on their corpus, "
    "content words masked and surface normalised, attributes the answers. Floor: the other persons' adapters' answers."
)


class _Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]


def _tabulate_methods(arms: Sequence[ArmTable]) -> _Table:
    """Return one row per corpus, model, layout, pair strategy and method."""
    rows = []
    for (corpus, model), part in groupby(arms, key=lambda arm: (arm.identity["corpus"], arm.identity["model"])):
        of_corpus = list(part)
        for line in _LINES:
            places: dict[tuple[str, ...], list[ArmTable]] = {}
            for arm in of_corpus:
                cells = tuple(_write_figure(arm, line, figure) for figure in FIGURES)
                if set(cells) - {DOES_NOT_APPLY}:
                    places.setdefault(cells, []).append(arm)
            for cells, found in places.items():
                where = [_name_place(found, of_corpus, name) for name in ("layout", "pair_strategy")]
                rows.append([corpus, model, *where, line.title, *cells])
    header = ["Corpus", "Model", "Layout", "Pairs", "Method", *(figure.title for figure in FIGURES)]
    return _Table(header, rows)


def _write_figure(arm: ArmTable, line: _Line, figure: Figure) -> str:
    found = (arm.find(replace(figure, condition=name), line.method) for name in line.conditions(figure.condition))
    row = next((row for row in found if row is not None), None)
    if row is not None:
        return _write_cell(row, figure.share)
    return DOES_NOT_APPLY if line.method in _PEOPLE or line.method not in arm.methods else NOT_MEASURED


def _name_place(found: Sequence[ArmTable], of_corpus: Sequence[ArmTable], name: str) -> str:
    """Return the layouts or strategies of `found`; `any` where these are all of several."""
    here, all_of_them = ({arm.identity[name]: None for arm in arms} for arms in (found, of_corpus))
    return ANY if len(here) > 1 and here.keys() == all_of_them.keys() else "; ".join(here)


def _tabulate_differences(arms: Sequence[ArmTable]) -> _Table:
    """Return CAPO − SFT in every figure that was compared."""
    rows = []
    for arm in arms:
        for figure in FIGURES:
            row = arm.compare(figure)
            if row is not None:
                rows.append([*arm.identity.values(), figure.title, *_write_difference(row, figure)])
    header = [
        "Corpus",
        "Model",
        "Layout",
        "Pairs",
        "Figure",
        "CAPO − SFT",
        "Interval",
        "p",
        "p (Holm)",
        "d",
        "n",
        "Seeds",
    ]
    return _Table(header, rows)


def _write_difference(row: Row, figure: Figure) -> list[str]:
    interval = format_interval(row["ci_low"], row["ci_high"], share=figure.share)
    tests = [write_p(row["p_value"]), write_p(row["p_holm"]), format_value(row["effect_size"])]
    return [
        format_difference(row["value"], share=figure.share),
        *(text or NOT_MEASURED for text in (interval, *tests)),
        format_count(row["n"]),
        format_count(row["n_seeds"]),
    ]


def _tabulate_transfer(arms: Sequence[ArmTable]) -> _Table:
    """Return what shows of the people in their adapters' answers to other corpora."""
    rows = []
    for arm in arms:
        for target in arm.transfer_targets:
            for title, method in (("SFT", "sft"), ("CAPO", "capo")):
                found = [(arm.find(figure, method), figure.share) for figure in transfer_figures(target)]
                if any(row is not None for row, _ in found):
                    rows.append([*arm.identity.values(), target, title, *(_write_cell(*cell) for cell in found)])
    titles = [figure.title for figure in transfer_figures("")]
    return _Table(["Corpus", "Model", "Layout", "Pairs", "Answered", "Method", *titles], rows)


def _write_cell(row: Row | None, share: bool) -> str:
    return format_estimate(row["value"], row["ci_low"], row["ci_high"], share=share) if row else NOT_MEASURED


def _list_checks(arms: Sequence[ArmTable]) -> list[tuple[str, list[str]]]:
    """Return each arm's name and a sentence per bar."""
    listed = []
    for arm in arms:
        sentences = [f"{check.bar}: {check.found} – {check.verdict}" for check in check_bars(arm)]
        if sentences:
            listed.append((", ".join(arm.identity.values()), sentences))
    return listed


def render_markdown(results: pl.DataFrame) -> str:
    """Return a RESULTS frame as Markdown: methods, CAPO − SFT with its tests, and whether each bar is met."""
    arms = split_arms(results)
    parts = ["# Results", _NOTE, write_markdown_table(*_tabulate_methods(arms))]
    differences = _tabulate_differences(arms)
    if differences.rows:
        parts += ["## CAPO − SFT", _DIFFERENCE_NOTE, write_markdown_table(*differences)]
    transfer = _tabulate_transfer(arms)
    if transfer.rows:
        parts += ["## Transfer", _TRANSFER_NOTE, write_markdown_table(*transfer)]
    if checks := _list_checks(arms):
        parts.append("## Bars set beforehand")
        for name, sentences in checks:
            parts += [f"**{escape_markdown(name)}**", "\n".join(f"- {escape_markdown(text)}" for text in sentences)]
    return "\n\n".join(parts) + "\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # An opening bracket at the start of a row would be read as the argument of \\.
        "[": "{[}",
        "]": "{]}",
        MINUS: "$-$",
        "–": "--",
        "“": "``",
        "”": "''",
        NO_BREAK: "~",
        "\n": " ",
    }
)


def _escape_latex(text: str) -> str:
    """Return text in which every character that LaTeX reads as a command stands for itself."""
    return text.translate(_LATEX)


def render_latex(results: pl.DataFrame) -> str:
    """Return a RESULTS frame as LaTeX to be read by \\input; needs the packages booktabs and graphicx."""
    arms = split_arms(results)
    parts = ["% Needs \\usepackage{booktabs} and \\usepackage{graphicx}."]
    parts.append(_write_latex_table(_tabulate_methods(arms), _NOTE))
    differences = _tabulate_differences(arms)
    if differences.rows:
        parts.append(_write_latex_table(differences, f"CAPO {MINUS} SFT. {_DIFFERENCE_NOTE}"))
    transfer = _tabulate_transfer(arms)
    if transfer.rows:
        parts.append(_write_latex_table(transfer, f"Transfer. {_TRANSFER_NOTE}"))
    for name, sentences in _list_checks(arms):
        items = "\n".join(f"  \\item {_escape_latex(text)}" for text in sentences)
        parts.append(f"\\paragraph{{{_escape_latex(name)}}}\n\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    return "\n\n".join(parts) + "\n"


def _write_latex_table(table: _Table, caption: str) -> str:
    lines = [" & ".join(_escape_latex(cell) for cell in line) + r" \\" for line in (table.header, *table.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(caption)}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(table.header)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )
