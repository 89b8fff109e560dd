"""The report's first page: the sentence to remember, the main figures, what was found, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from capo_core.report.data import Difference, Estimate, ReportData, is_finite
from capo_core.report.findings import (
    ATTRIBUTION,
    GENERATED,
    Finding,
    Headline,
    choose_headline,
    list_findings,
    quote,
    say_difference,
)
from capo_core.report.formats import (
    NOT_MEASURED,
    format_count,
    format_difference,
    format_interval,
    format_p,
    format_value,
    join_and,
    plural,
)
from capo_core.report.terms import EXPECTED_METRICS, method_title, metric_term, order_methods, order_metrics


@dataclass(frozen=True)
class Tile:
    """One main figure: title, value, interval and a note. `style` names a style class of the page."""

    title: str
    value: str
    interval: str
    note: str
    style: str


@dataclass(frozen=True)
class Summary:
    """What the first page says.

    Attributes:
        headline: the sentence to remember.
        tiles: the main figures; none where attribution was not measured.
        tiles_note: what the tiles are measures of.
        findings: what was found, by topic.
        cautions: what was not measured and what limits the rest.
    """

    headline: str
    tiles: tuple[Tile, ...]
    tiles_note: str
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...]


def summarise(data: ReportData) -> Summary:
    """Return the first page's text and figures."""
    main = choose_headline(data)
    findings, cautions = tuple(list_findings(data)), tuple(list_cautions(data))
    if main is None:
        headline = "How well the imitations can be attributed to the people imitated was not measured."
        return Summary(headline, (), "", findings, cautions)
    decision = f", {main.decision}" if main.decision else ""
    note = (
        f"Share of groups of {main.group_size} explanations that a classifier, trained on human text only, gives to "
        f"the person imitated{decision}, as written; {data.confidence_percent} intervals."
    )
    return Summary(say_headline(data, main), build_tiles(data, main), note, findings, cautions)


def say_headline(data: ReportData, main: Headline) -> str:
    """Return the sentence to remember: what CAPO changed over SFT, or that no change is shown."""
    sft, capo = main.find(data, "sft"), main.find(data, "capo")
    if sft and capo:
        return (
            f"Attribution of groups of {main.group_size} to the person imitated: SFT {quote(sft)}, CAPO {quote(capo)}; "
            f"{say_difference(data, main.compare(data), 'CAPO', 'SFT')}."
        )
    measured = [f"{method_title(m)} {quote(e)}" for m in order_methods(GENERATED) if (e := main.find(data, m))]
    missing = join_and([name for name, found in (("SFT", sft), ("CAPO", capo)) if not found])
    figures = join_and(measured) or NOT_MEASURED
    return (
        f"Attribution of groups of {main.group_size} to the person imitated: {figures}. "
        f"{missing}: not measured, so CAPO and SFT are not compared."
    )


def build_tiles(data: ReportData, main: Headline) -> tuple[Tile, ...]:
    """Return the main figures: ceiling, SFT, CAPO, their difference, floor."""
    return (
        _tile("Human text (ceiling)", main.find(data, "human"), "human"),
        _tile("SFT", main.find(data, "sft"), "sft"),
        _tile("CAPO", main.find(data, "capo"), "capo"),
        _difference_tile(data, main.compare(data)),
        _tile("Authors shuffled (floor)", main.find(data, "human", "shuffled"), "floor"),
    )


def _tile(title: str, estimate: Estimate | None, style: str) -> Tile:
    """Return an estimate as a tile."""
    if estimate is None:
        return Tile(title, NOT_MEASURED, "", "", "absent")
    interval = format_interval(estimate.low, estimate.high, share=True) or "no interval"
    n = "" if estimate.n is None else f"n {format_count(estimate.n)}"
    seeds = "" if estimate.n_seeds is None else plural(estimate.n_seeds, "seed")
    note = " · ".join(part for part in (n, seeds) if part)
    return Tile(title, format_value(estimate.value, share=True), interval, note, style)


def _difference_tile(data: ReportData, difference: Difference | None) -> Tile:
    """Return CAPO minus SFT as a tile that says when nothing is shown."""
    title = "CAPO − SFT"
    if difference is None:
        return Tile(title, NOT_MEASURED, "", "", "absent")
    value = format_difference(difference.value, share=True)
    interval = format_interval(difference.low, difference.high, share=True) or "no interval"
    if difference.is_shown(1 - data.config.evaluation.confidence):
        return Tile(title, value, interval, format_p(difference.p_value), "accent")
    return Tile(title, value, interval, "no difference shown", "quiet")


def list_cautions(data: ReportData) -> list[str]:
    """Return what was not measured and what limits the figures."""
    cautions = []
    if missing := list_unmeasured(data):
        cautions.append(f"Not measured: {'; '.join(missing)}.")
    people = plural(len(data.annotators), "annotator")
    cautions.append(f"Intervals resample items or groups, not people: the figures speak of these {people} only.")
    if max(data.generations["seed"].n_unique(), 1) == 1:
        cautions.append("One seed: how much another training run would differ is not in the intervals.")
    responses = plural(data.generations.height, "response")
    if n_unread := data.generations.filter(pl.col("parse_status") != "ok").height:
        cautions.append(
            f"{n_unread:,} of {responses} could not be read as label and explanation: counted, never guessed."
        )
    if n_cut := data.generations.filter(pl.col("truncated")).height:
        cautions.append(f"{n_cut:,} of {responses} were cut at the limit of tokens.")
    if data.config.corpus.max_items is not None:
        cautions.append(f"The corpus was sampled down to at most {plural(data.config.corpus.max_items, 'item')}.")
    return cautions


def list_unmeasured(data: ReportData) -> list[str]:
    """Return the titles of figures that are known or asked for and have no value in any table."""
    asked = pl.concat(
        [frame for frame in (data.metrics, data.judge_metrics, data.ratings_metrics) if frame is not None]
    )
    known = asked.filter(is_finite("value"))
    measured = set(known.select("metric", "condition").rows())
    names = {metric for metric, _ in measured}
    ordinal = data.config.task.labels.level == "ordinal"
    wanted = {name for name in EXPECTED_METRICS if ordinal or name != "ordinal_distance"} | set(
        asked["metric"].to_list()
    )
    missing = [metric_term(name).title for name in order_metrics(wanted - names)]
    if ATTRIBUTION in names:
        controls = {
            "surface_normalised": "attribution with the surface removed",
            "shuffled": "the shuffled floor of attribution",
        }
        missing += [title for condition, title in controls.items() if (ATTRIBUTION, condition) not in measured]
    if data.stability.filter(is_finite("accuracy")).is_empty():
        missing.append("stability of the people's style")
    if data.agreement.filter(is_finite("value")).is_empty():
        missing.append("agreement between annotators")
    return missing
