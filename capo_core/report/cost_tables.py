"""What a run cost: time per step, tokens per method, tokens and money of the judges."""

from __future__ import annotations

import polars as pl

from capo_core.report.data import ReportData, matching
from capo_core.report.formats import NO_BREAK, format_count, plural
from capo_core.report.tables import Cell, Table, build_table, count_cell, text_cell
from capo_core.report.terms import decision_rank, method_title, order_methods
from schemas.judge import OpenAIJudge


def tabulate_timings(data: ReportData) -> Table:
    """Return per step how often it was computed and how long it took; the longest step first, the sum last."""
    caption = "Time per step"
    if data.timings is None or data.timings.is_empty():
        return build_table(caption, ["Step"], [])
    by_step = data.timings.group_by("step").agg(
        pl.len().alias("n"), pl.col("seconds").sum().alias("total"), pl.col("seconds").max().alias("longest")
    )
    ordered = by_step.sort(["total", "step"], descending=[True, False]).iter_rows(named=True)
    rows = [
        [text_cell(row["step"]), count_cell(row["n"]), _time_cell(row["total"]), _time_cell(row["longest"])]
        for row in ordered
    ]
    rows.append(
        [Cell("All steps"), count_cell(data.timings.height), _time_cell(float(data.timings["seconds"].sum())), Cell("")]
    )
    notes = (
        "Wall-clock time of each step when it was computed, beside whatever else ran on that machine then. A step from "
        "the cache keeps the time of its computation.",
    )
    return build_table(caption, ["Step", "Computed", "Time, all", "Longest"], rows, notes=notes)


def _time_cell(seconds: float) -> Cell:
    return Cell(format_time(seconds), numeric=True)


def format_time(seconds: float) -> str:
    """Return a time in the two largest units that matter: `.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
    if seconds < 10:
        return f"{seconds:.1f}{NO_BREAK}s".removeprefix("0")
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NO_BREAK}s"
    if whole < 3600:
        return f"{whole // 60}{NO_BREAK}min {whole % 60}{NO_BREAK}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{NO_BREAK}h {minutes % 60}{NO_BREAK}min"


def tabulate_tokens(data: ReportData) -> Table:
    """Return per method and decision the responses and the tokens read and written for them."""
    generations = data.generations
    ranks = {name: place for place, name in enumerate(order_methods(generations["method"].to_list()))}
    keys = generations.select("method", "decision").unique().rows()
    rows = []
    for method, decision in sorted(keys, key=lambda key: (ranks[key[0]], decision_rank(key[1]))):
        part = matching(generations, method=method, decision=decision)
        totals = [int(part[name].sum()) for name in ("n_prompt_tokens", "n_tokens")]
        counts = (count_cell(part.height), *(count_cell(total) for total in totals))
        rows.append([text_cell(method_title(method)), text_cell(decision), *counts])
    columns = ["Method", "Decision", "Responses", "Prompt tokens", "Tokens written"]
    return build_table("Tokens of the models under test", columns, rows, empty_text="Nothing was generated.")


def tabulate_judge_usage(data: ReportData) -> Table:
    """Return per judge the questions by outcome, the tokens, and the cost where the configuration states prices."""
    caption = "What judging used"
    usage = data.judge_usage
    if usage is None or usage.is_empty():
        return build_table(caption, ["Judge"], [], empty_text="No judge was asked.")
    rows = []
    for judge in sorted(usage["judge"].unique().to_list()):
        own = matching(usage, judge=judge)
        by_status = dict(own.group_by("status").agg(pl.col("n_questions").sum()).iter_rows())
        prompt, answer = (_sum_known(own[name]) for name in ("n_prompt_tokens", "n_answer_tokens"))
        counts = [count_cell(by_status.get(status, 0)) for status in ("ok", "unparseable", "failed", "not_asked")]
        tokens = [count_cell(prompt), count_cell(answer)]
        rows.append([text_cell(judge), *counts, *tokens, _cost_cell(data, judge, prompt, answer)])
    columns = ["Judge", "Answered", "Unreadable", "Failed", "Not asked", "Prompt tokens", "Answer tokens", "Cost"]
    notes = (
        "Not asked: the budget was spent before the question's turn came. Cost: in the currency of the prices that the "
        "configuration states.",
    )
    return build_table(caption, columns, rows, notes=notes)


def _sum_known(column: pl.Series) -> int | None:
    """Return the sum of what is known, None where nothing is."""
    known = column.drop_nulls()
    return int(known.sum()) if known.len() else None


def _cost_cell(data: ReportData, judge: str, prompt: int | None, answer: int | None) -> Cell:
    """Return tokens times prices; a model of this machine, or one without stated prices, has no price."""
    priced = [
        backend
        for backend in data.config.judge.backends
        if isinstance(backend, OpenAIJudge) and backend.model in judge and backend.price_per_million_prompt_tokens
    ]
    if len(priced) != 1 or prompt is None:
        return Cell("no price stated", style="absent")
    (backend,) = priced
    cost = prompt * (backend.price_per_million_prompt_tokens or 0) / 1e6
    cost += (answer or 0) * (backend.price_per_million_answer_tokens or 0) / 1e6
    return Cell(f"{cost:,.2f}" if cost >= 0.01 else "under .01", numeric=True)


def say_cost(data: ReportData) -> str:
    """Return in a sentence how long the steps took together; empty where nothing is recorded."""
    if data.timings is None or data.timings.is_empty():
        return ""
    total = format_time(float(data.timings["seconds"].sum()))
    steps = plural(data.timings.height, "step")
    tokens = int(data.generations["n_tokens"].sum())
    return f"{steps} took {total} together; the models under test wrote {format_count(tokens)} tokens."
