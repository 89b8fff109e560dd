"""The report's first page: the sentence to remember, the main figures, what was found, and what limits it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from capo_core.report.data import Difference, Estimate, ReportData, is_finite
from capo_core.report.findings import (
    Finding,
    format_test,
    list_findings,
    quote,
    say_difference,
    weigh_gain,
)
from capo_core.report.formats import (
    NOT_MEASURED,
    format_count,
    format_difference,
    format_interval,
    format_value,
    join_and,
    plural,
)
from capo_core.report.key_figures import ATTRIBUTION, KeyFigures, choose_key_figures
from capo_core.report.metric_terms import EXPECTED_METRICS, ORDINAL_ONLY, metric_term, order_metrics
from capo_core.report.opinions import say_judge, say_raters
from capo_core.report.terms import GENERATED, condition_title, floor_of, method_title

_GAIN_IN_SHORT = {
    "caricature": "The gain goes with a greater distance from the person's own text",
    "closer": "Its text is also shown closer to the person's own",
    "undecided": "A greater distance from the person's own text is not shown",
    "unmeasured": "Its distance from the person's own text was not measured",
}


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
    keys = choose_key_figures(data.metrics)
    opinions = (Finding("LLM judge", say_judge(data)), Finding("Human raters", say_raters(data)))
    findings, cautions = (*list_findings(data), *opinions), tuple(list_cautions(data))
    if keys is None:
        headline = "How well the imitations can be attributed to the people imitated was not measured."
        return Summary(headline, (), "", findings, cautions)
    decision = f", {keys.decision}" if keys.decision else ""
    note = (
        f"Share of groups of {keys.group_size} explanations that a classifier, trained on human text only, gives to "
        f"the person imitated{decision}, {condition_title(keys.condition)}; {data.confidence_percent} intervals. "
        "“Told apart” is how well a classifier tells the text from the person's own: .5 is perfect."
    )
    return Summary(say_headline(data, keys), build_tiles(data, keys), note, findings, cautions)


def write_summary(data: ReportData) -> str:
    """Return the first page's text as Markdown; what comes from the data is escaped."""
    summary = summarise(data)
    lines = [f"# {_escape(data.config.name)}", "", _escape(summary.headline), ""]
    if summary.tiles:
        lines += ["| Figure | Value | Interval | |", "|---|---|---|---|"]
        for tile in summary.tiles:
            lines.append(
                "| " + " | ".join(_escape(t) for t in (tile.title, tile.value, tile.interval, tile.note)) + " |"
            )
        lines += ["", _escape(summary.tiles_note), ""]
    lines += [f"- **{_escape(finding.topic)}**: {_escape(finding.text)}" for finding in summary.findings]
    lines += ["", "## What limits these figures", ""]
    lines += [f"- {_escape(caution)}" for caution in summary.cautions]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Return text in which no character begins Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|&])", r"\\\1", text.replace("\n", " "))


def say_headline(data: ReportData, keys: KeyFigures) -> str:
    """Return the sentence to remember: what CAPO changed over SFT beside its distance, or that no change is shown."""
    found = {name: e for name in GENERATED if (e := keys.leading.find(data.metrics, name))}
    how = "" if keys.condition == "raw" else f" ({condition_title(keys.condition)})"
    opening = f"Attribution of groups of {keys.group_size}{how} to the person imitated"
    if "sft" in found and "capo" in found:
        said = say_difference(data.alpha, keys.leading.compare(data.comparisons), "CAPO", "SFT")
        price = _GAIN_IN_SHORT.get(weigh_gain(data, keys).kind)
        return f"{opening}: SFT {quote(found['sft'])}, CAPO {quote(found['capo'])}; {said}." + (
            f" {price}." if price else ""
        )
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found.items()]) or NOT_MEASURED
    missing = join_and([method_title(name) for name in ("sft", "capo") if name not in found])
    return f"{opening}: {figures}. {missing}: not measured, so CAPO and SFT are not compared."


def build_tiles(data: ReportData, keys: KeyFigures) -> tuple[Tile, ...]:
    """Return the main figures: ceiling, SFT, CAPO, their difference, floor; distances stand beside attribution."""
    told = keys.told_apart(keys.condition)
    apart = {name: _say_apart(told.find(data.metrics, name)) for name in ("human", "sft", "capo")}
    return (
        _tile("Human text (ceiling)", keys.leading.find(data.metrics, "human"), "human", apart["human"]),
        _tile("SFT", keys.leading.find(data.metrics, "sft"), "sft", apart["sft"]),
        _tile("CAPO", keys.leading.find(data.metrics, "capo"), "capo", apart["capo"]),
        _difference_tile(data, keys.leading.compare(data.comparisons)),
        _tile("Authors shuffled (floor)", keys.leading.floor().find(data.metrics, "human"), "floor"),
    )


def _say_apart(estimate: Estimate | None) -> str:
    """Return how well a method's text is told from the person's own."""
    if estimate is None:
        return f"told apart: {NOT_MEASURED}"
    return f"told apart {format_value(estimate.value, share=True)}"


def _tile(title: str, estimate: Estimate | None, style: str, beside: str = "") -> Tile:
    """Return an estimate as a tile, with what must stand beside it."""
    if estimate is None:
        return Tile(title, NOT_MEASURED, "", "", "absent")
    interval = format_interval(estimate.low, estimate.high, share=True) or "no interval"
    n = "" if estimate.n is None else f"n {format_count(estimate.n)}"
    seeds = "" if estimate.n_seeds is None else plural(estimate.n_seeds, "seed")
    note = " · ".join(part for part in (beside, n, seeds) if part)
    return Tile(title, format_value(estimate.value, share=True), interval, note, style)


def _difference_tile(data: ReportData, difference: Difference | None) -> Tile:
    """Return CAPO minus SFT as a tile that says when nothing is shown."""
    title = "CAPO − SFT"
    if difference is None:
        return Tile(title, NOT_MEASURED, "", "", "absent")
    value = format_difference(difference.value, share=True)
    interval = format_interval(difference.low, difference.high, share=True) or "no interval"
    if difference.is_shown(data.alpha):
        return Tile(title, value, interval, format_test(difference), "accent")
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
    if n_left_out := data.exclusions.height:
        cautions.append(f"{plural(n_left_out, 'exclusion')} by rule; they are listed under the results.")
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
    expected = {*EXPECTED_METRICS, *asked["metric"].to_list()}
    wanted = {name for name in expected if ordinal or name not in ORDINAL_ONLY}
    missing = [metric_term(name).title for name in order_metrics(wanted - names)]
    if ATTRIBUTION in names:
        controls = {
            "surface_normalised": "attribution with the surface removed",
            floor_of("raw"): "the shuffled floor of attribution",
        }
        missing += [title for condition, title in controls.items() if (ATTRIBUTION, condition) not in measured]
    if data.stability.filter(is_finite("accuracy")).is_empty():
        missing.append("stability of the people's style")
    if data.convergence_fits.is_empty():
        missing.append("how the figures settle with more annotations")
    if data.retention.is_empty() and data.training_logs:
        missing.append("what the adapters leave of the base model")
    if data.agreement.filter(is_finite("value")).is_empty():
        missing.append("agreement between annotators")
    return missing
