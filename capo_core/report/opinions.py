"""What judges and human raters say, in sentences: a judge's worth on people's own text comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from capo_core.report.data import ALL, Estimate, ReportData, find_difference, find_estimate, is_finite, matching
from capo_core.report.findings import chance_of, quote, say_difference
from capo_core.report.formats import format_value, join_and
from capo_core.report.terms import (
    OTHER_ANNOTATOR,
    SHUFFLED,
    condition_title,
    method_title,
    order_conditions,
    order_methods,
)

RATED = "human_attribution_accuracy"


class JudgeProtocol(NamedTuple):
    """One way of asking a judge.

    Attributes:
        title: what it is called.
        prefix: of its metrics.
        ceiling: metric that people's own text has a right answer for.
        compared: metric of the comparisons of methods.
        says: what a judge does who is right, before the figure.
    """

    title: str
    prefix: str
    ceiling: str
    compared: str
    says: str


PROTOCOLS = (
    JudgeProtocol(
        "Attribution",
        "judge",
        "judge_accuracy",
        "judge_accuracy",
        "it names the right author of real human text for {} of groups",
    ),
    JudgeProtocol(
        "Pairwise",
        "judge_pairwise",
        "judge_pairwise_accuracy",
        "judge_win_rate",
        "it prefers a person's own group to another annotator's in {} of pairs",
    ),
    JudgeProtocol(
        "Same author",
        "judge_same_author",
        "judge_same_author_balanced_accuracy",
        "judge_same_author_acceptance",
        "it tells a person's own groups from another annotator's with a balanced accuracy of {}",
    ),
)
"""Ways of asking, in the order of the page."""


@dataclass(frozen=True)
class Worth:
    """What one judge makes of people's own text in one protocol and under one condition.

    Attributes:
        judge: who was asked; None where the table names nobody.
        protocol: how.
        condition: raw or surface_normalised.
        ceiling: figure on people's own text; None where not measured.
        chance: what guessing would score.
        informative: whether the judge tells real people apart; None where that is not known.
    """

    judge: str | None
    protocol: JudgeProtocol
    condition: str
    ceiling: Estimate | None
    chance: float
    informative: bool | None


def list_worths(data: ReportData) -> list[Worth]:
    """Return what every judge makes of people's own text, by judge, protocol and condition."""
    metrics = data.judge_metrics
    if metrics is None or metrics.is_empty():
        return []
    overall = matching(metrics, annotator_id=ALL)
    judges = sorted(overall["classifier"].unique().to_list(), key=lambda name: name or "")
    return [
        _weigh(data, matching(overall, classifier=judge), judge, protocol, condition)
        for judge in judges
        for protocol in PROTOCOLS
        for condition in _list_conditions(matching(overall, classifier=judge), protocol)
    ]


def _list_conditions(rows: pl.DataFrame, protocol: JudgeProtocol) -> list[str]:
    """Return the conditions under which a judge was asked in a protocol, its floors left out."""
    names = [protocol.ceiling, f"{protocol.prefix}_informative"]
    asked = rows.filter(pl.col("metric").is_in(names))["condition"].drop_nulls().to_list()
    floors = (SHUFFLED, OTHER_ANNOTATOR)
    return [name for name in order_conditions(asked) if name and not name.startswith(floors)]


def _weigh(data: ReportData, rows: pl.DataFrame, judge: str | None, protocol: JudgeProtocol, condition: str) -> Worth:
    """Return a judge's worth: as its flag says or, where there is none, whether its interval lies above chance."""
    own = matching(rows, condition=condition)
    ceiling = find_smallest(matching(own, metric=protocol.ceiling, method="human"))
    chance = find_smallest(matching(rows, metric=f"{protocol.prefix}_chance"))
    among = 1 / max(len(data.annotators), 1) if protocol.prefix == "judge" else 0.5
    chance_value = chance.value if chance else among
    flags = matching(own, metric=f"{protocol.prefix}_informative")
    values = flags.filter(is_finite("value"))["value"].to_list()
    informative: bool | None = min(values) >= 0.5 if values else None
    if flags.is_empty() and ceiling and ceiling.low is not None:
        informative = ceiling.low > chance_value
    return Worth(judge, protocol, condition, ceiling, chance_value, informative)


def find_smallest(rows: pl.DataFrame) -> Estimate | None:
    """Return the measured figure of the smallest group size, sampled before other decisions; None without any."""
    measured = rows.filter(is_finite("value"))
    ordered = measured.sort("group_size", pl.col("decision") != "sampled", "decision", "method", nulls_last=False)
    return find_estimate(ordered.head(1))


def weigh_judge(data: ReportData) -> tuple[bool | None, str]:
    """Return whether any judge tells the real annotators apart (None: unknown), and the sentence that says so."""
    worths = list_worths(data)
    if not worths:
        return None, "Not measured."
    told = [worth for worth in worths if worth.informative]
    # Every way of asking stands in the table; of many the sentence names those as written only.
    as_written = [worth for worth in worths if worth.condition == "raw"]
    named = worths if len(worths) <= len(PROTOCOLS) else as_written or worths
    listed = "; ".join(_say_worth(worth, len({one.judge for one in worths}) > 1) for worth in named)
    if told:
        if len(told) == len(worths):
            return True, f"Informative: {listed}."
        part = f"Informative in {len(told)} of {len(worths)} ways of asking"
        return True, f"{part}: {listed}. What the others say of models says nothing."
    n_failed = sum(worth.informative is False for worth in worths)
    if n_failed:
        sentence = f"Not informative. The judge does not tell the real annotators apart: {listed}."
        if n_failed < len(worths):
            open_ways = f"{len(worths) - n_failed} of {len(worths)} ways of asking"
            sentence += f" For {open_ways} there were too few groups of human text to tell."
        return False, f"{sentence} Its verdicts on models say nothing."
    unknown = "Whether the judge tells the real annotators apart is not known, for want of enough groups of human text"
    return None, f"{unknown}: {listed}. Its verdicts on models carry no weight."


def _say_worth(worth: Worth, several: bool) -> str:
    """Return what one judge does in one protocol, with chance."""
    name = f"{worth.judge}: " if several and worth.judge else ""
    how = "" if worth.condition == "raw" else f", {condition_title(worth.condition)}"
    said = worth.protocol.says.format(quote(worth.ceiling))
    return f"{name}{said}{how} (chance {format_value(worth.chance, share=True)})"


def say_judge(data: ReportData) -> str:
    """Return the judge's worth and, only where it is informative, what it says of SFT and CAPO."""
    informative, sentence = weigh_judge(data)
    if not informative or data.judge_metrics is None:
        return sentence
    parts = [sentence]
    for worth in list_worths(data):
        if worth.informative and worth.condition == "raw":
            is_pairwise = worth.protocol.prefix == "judge_pairwise"
            parts.append(_say_preference(data, worth) if is_pairwise else _say_methods(data.judge_metrics, worth))
    return " ".join(part for part in parts if part)


def _say_methods(metrics: pl.DataFrame, worth: Worth) -> str:
    """Return what an informative judge makes of SFT's and CAPO's text; empty where it saw neither."""
    rows = matching(metrics, metric=worth.protocol.compared, classifier=worth.judge, annotator_id=ALL)
    rows = rows.filter(pl.col("condition").is_null() | (pl.col("condition") == worth.condition))
    found = {name: find_smallest(matching(rows, method=name)) for name in ("sft", "capo")}
    if not any(found.values()):
        return ""
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found.items()])
    attributes = worth.protocol.prefix == "judge"
    verb = "It names the person imitated for" if attributes else "It takes for the person's own"
    return f"{verb} {figures}."


def _say_preference(data: ReportData, worth: Worth) -> str:
    """Return whose text an informative judge prefers, CAPO's or SFT's; empty where they were not compared."""
    if data.judge_comparisons is None:
        return ""
    rows = matching(data.judge_comparisons, metric=worth.protocol.compared, classifier=worth.judge)
    found = find_difference(rows, "capo", "sft", condition=worth.condition)
    if found is None:
        return ""
    return f"Share of pairs in which it prefers either: {say_difference(data.alpha, found, 'CAPO', 'SFT')}."


def say_raters(data: ReportData) -> str:
    """Return what human raters found, or that they have not rated yet."""
    if data.ratings_metrics is None or data.ratings_metrics.is_empty():
        return "Not yet rated."
    rows = matching(data.ratings_metrics, metric=RATED, annotator_id=ALL)
    rows = rows.filter(pl.col("condition").is_null() | (pl.col("condition") == "raw"))
    names = order_methods(rows["method"].to_list())
    found = [(name, find_smallest(matching(rows, method=name))) for name in names]
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found]) or format_value(None)
    sentence = (
        f"Share of blinded tasks in which a rater names the person imitated: {figures} (chance {chance_of(data)})"
    )
    if data.ratings_comparisons is None:
        return f"{sentence}."
    compared = matching(data.ratings_comparisons, metric=RATED)
    compared = compared.filter(pl.col("condition").is_null() | (pl.col("condition") == "raw"))
    return f"{sentence}; {say_difference(data.alpha, find_difference(compared, 'capo', 'sft'), 'CAPO', 'SFT')}."
