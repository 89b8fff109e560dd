"""What was found, one sentence or two per topic, made from the data.

No sentence claims a difference unless its interval excludes 0 (and its test, where there is one, agrees).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from capo_core.report.data import (
    ALL,
    Difference,
    Estimate,
    ReportData,
    choose_decision,
    choose_group_size,
    find_difference,
    find_estimate,
    is_finite,
    matching,
)
from capo_core.report.formats import (
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_value,
    join_and,
)
from capo_core.report.terms import method_title, order_methods

GENERATED = ("zero_shot", "history", "sft", "capo")
ATTRIBUTION = "attribution_accuracy"


@dataclass(frozen=True)
class Finding:
    """What was found on one topic."""

    topic: str
    text: str


@dataclass(frozen=True)
class Headline:
    """Which attribution figure the summary quotes: of groups of this size, under this decision."""

    group_size: int
    decision: str | None

    def find(self, data: ReportData, method: str, condition: str = "raw") -> Estimate | None:
        """Return one method's attribution accuracy; human text has no decision."""
        keys = {"condition": condition, "group_size": self.group_size}
        return find_by_decision(data.metrics, ATTRIBUTION, method, self.decision, **keys)

    def compare(self, data: ReportData, condition: str = "raw") -> Difference | None:
        """Return CAPO minus SFT."""
        keys = {"metric": ATTRIBUTION, "condition": condition, "group_size": self.group_size}
        return find_difference(data.comparisons, "capo", "sft", decision=self.decision, **keys)


def choose_headline(data: ReportData) -> Headline | None:
    """Return the figure to quote: groups of 5 or the size nearest to it, sampled where that was done."""
    size = choose_group_size(data.metrics)
    return None if size is None else Headline(size, choose_decision(data.metrics, ATTRIBUTION, "sampled"))


def find_by_decision(
    metrics: pl.DataFrame, metric: str, method: str, decision: str | None, **wanted: str | int | None
) -> Estimate | None:
    """Return a method's mean over annotators under `decision`, or without one where the method decides nothing."""
    keys = {"metric": metric, "method": method, "annotator_id": ALL, **wanted}
    return find_estimate(metrics, decision=decision, **keys) or find_estimate(metrics, decision=None, **keys)


def find_first(metrics: pl.DataFrame, metric: str, method: str) -> Estimate | None:
    """Return a method's mean over annotators as written, at the smallest group size it was measured for."""
    rows = metrics.filter(
        (pl.col("metric") == metric) & (pl.col("method") == method) & (pl.col("annotator_id") == ALL),
        pl.col("condition").is_null() | (pl.col("condition") == "raw"),
        is_finite("value"),
    )
    rows = rows.sort("group_size", pl.col("decision") != "sampled", "decision", nulls_last=False)
    return find_estimate(rows.head(1))


def quote(estimate: Estimate | None, *, share: bool = True) -> str:
    """Return `.71 [.60, .80]`, or `not measured`."""
    if estimate is None:
        return format_value(None)
    return format_estimate(estimate.value, estimate.low, estimate.high, share=share)


def chance_of(data: ReportData) -> str:
    """Return the chance level of attribution among the corpus's annotators."""
    return format_value(1 / len(data.annotators) if data.annotators else None, share=True)


def say_difference(data: ReportData, difference: Difference | None, first: str, second: str) -> str:
    """Return what a difference of shares shows, claiming one only where interval and test exclude 0."""
    if difference is None:
        return f"the difference between {first} and {second} was not tested"
    value = format_difference(difference.value, share=True)
    interval = format_interval(difference.low, difference.high, share=True) or "no interval"
    p = format_p(difference.p_value)
    evidence = f"{value} {interval}" + (f", {p}" if p else "")
    if difference.is_shown(1 - data.config.evaluation.confidence):
        return f"{first} is {'higher' if difference.value > 0 else 'lower'} than {second} ({evidence})"
    return f"no difference between {first} and {second} is shown ({evidence})"


def list_findings(data: ReportData) -> list[Finding]:
    """Return what was found, from the people themselves to the human raters."""
    main = choose_headline(data)
    texts = {
        "The people": say_people(data, main) if main else None,
        "The imitations": say_methods(data, main) if main else None,
        "Surface": say_surface(data, main) if main else None,
        "Labels": say_labels(data),
        "Length": say_length(data, main.decision if main else None),
        "LLM judge": say_judge(data),
        "Human raters": say_raters(data),
    }
    return [Finding(topic, text) for topic, text in texts.items() if text]


def say_people(data: ReportData, main: Headline) -> str:
    """Return how well the people themselves can be told apart."""
    return (
        "Trained on the people's own explanations of other items, the classifier names the right one of "
        f"{len(data.annotators)} for {quote(main.find(data, 'human'))} of groups of {main.group_size} held-out human "
        f"explanations. Chance is {chance_of(data)}; with the authors shuffled within items the figure is "
        f"{quote(main.find(data, 'human', 'shuffled'))}."
    )


def say_methods(data: ReportData, main: Headline) -> str | None:
    """Return every method's attribution, and whether one exceeds human text itself."""
    found = {name: estimate for name in order_methods(GENERATED) if (estimate := main.find(data, name))}
    if not found:
        return None
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found.items()])
    decision = f" ({main.decision})" if main.decision else ""
    sentences = [f"Groups of {main.group_size}{decision} given to the person imitated: {figures}."]
    ceiling = main.find(data, "human")
    for name, estimate in found.items():
        if ceiling and estimate.low is not None and ceiling.high is not None and estimate.low > ceiling.high:
            sentences.append(
                f"{method_title(name)} is attributed more often than the people's own text, and the intervals do not "
                "overlap: it may exaggerate their habits."
            )
    return " ".join(sentences)


def say_surface(data: ReportData, main: Headline) -> str:
    """Return what remains once case, punctuation and spacing are removed."""
    condition = "surface_normalised"
    found = {name: main.find(data, name, condition) for name in ("human", "sft", "capo")}
    if not any(found.values()):
        return "Attribution without case, punctuation and spacing: not measured."
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found.items()])
    difference = say_difference(data, main.compare(data, condition), "CAPO", "SFT")
    return f"Without case, punctuation and spacing: {figures}; {difference}."


def say_labels(data: ReportData) -> str:
    """Return label agreement beside its floor; the constrained decision is the fairer one for a small model."""
    keys = {"metric": "label_agreement", "condition": None, "group_size": None}
    decision = choose_decision(data.metrics, "label_agreement", "constrained")
    found = {
        name: find_by_decision(data.metrics, "label_agreement", name, decision) for name in ("sft", "capo", "majority")
    }
    if not any(found.values()):
        return "Agreement with the person's label: not measured."
    typical = "median" if data.config.task.labels.level == "ordinal" else "commonest"
    another = {**keys, "condition": "other_annotator", "method": "human", "annotator_id": ALL, "decision": None}
    person = find_estimate(data.metrics, **another)
    sentence = (
        f"The label{f' ({decision} decision)' if decision else ''} equals the person's in {quote(found['sft'])} of "
        f"items for SFT and {quote(found['capo'])} for CAPO; always giving the person's {typical} training label: "
        f"{quote(found['majority'])}" + (f"; another annotator's label: {quote(person)}." if person else ".")
    )
    said = []
    for other, title in (("majority", "that floor"), ("sft", "SFT")):
        difference = find_difference(data.comparisons, "capo", other, decision=decision, **keys)
        said.append(say_difference(data, difference, "CAPO", title))
    text = "; ".join(said)
    return f"{sentence} {text[0].upper()}{text[1:]}."


def say_length(data: ReportData, decision: str | None) -> str | None:
    """Return a warning where explanations are shorter or longer than the person's, the interval excluding 1."""
    sentences = []
    for name in ("sft", "capo"):
        ratio = find_by_decision(data.metrics, "length_ratio", name, decision)
        if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
            continue
        way = "longer" if ratio.value > 1 else "shorter"
        times = quote(ratio, share=False)
        sentences.append(f"{method_title(name)}'s explanations are {way} than the person's own, {times} times as long.")
    return " ".join(sentences) or None


def weigh_judge(data: ReportData) -> tuple[bool | None, str]:
    """Return whether the LLM judge tells the real annotators apart (None: unknown), and the sentence that says so.

    It does where `judge_informative` says so, or, where that figure was not asked for, where the interval of the
    judge's accuracy on real human text lies above chance.
    """
    if data.judge_metrics is None or data.judge_metrics.is_empty():
        return None, "Not measured."
    ceiling = find_first(data.judge_metrics, "judge_accuracy", "human")
    flags = matching(data.judge_metrics, metric="judge_informative", annotator_id=ALL)
    values = flags.filter(is_finite("value"))["value"].to_list()
    informative: bool | None = min(values) >= 0.5 if values else None
    chance = find_first(data.judge_metrics, "judge_chance", "human")
    chance_value = chance.value if chance else 1 / max(len(data.annotators), 1)
    if flags.is_empty() and ceiling and ceiling.low is not None:
        informative = ceiling.low > chance_value
    text = (
        f"it names the right author of real human text for {quote(ceiling)} of groups "
        f"(chance {format_value(chance_value, share=True)})"
    )
    if informative is None:
        unknown = (
            "Whether the judge tells the real annotators apart is not known, for want of enough groups of human text"
        )
        return None, f"{unknown}: {text}. Its verdicts on models carry no weight."
    if not informative:
        plain = "Not informative. The judge does not tell the real annotators apart"
        return False, f"{plain}: {text}. Its verdicts on models say nothing."
    return True, f"Informative: {text}."


def say_judge(data: ReportData) -> str:
    """Return the judge's worth and, only where it is informative, what it says of SFT and CAPO."""
    informative, sentence = weigh_judge(data)
    if not informative or data.judge_metrics is None:
        return sentence
    found = {name: find_first(data.judge_metrics, "judge_accuracy", name) for name in ("sft", "capo")}
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found.items()])
    return f"{sentence} It names the person imitated for {figures}."


def say_raters(data: ReportData) -> str:
    """Return what human raters found, or that they have not rated yet."""
    if data.ratings_metrics is None or data.ratings_metrics.is_empty():
        return "Not yet rated."
    metric = "human_attribution_accuracy"
    rows = data.ratings_metrics.filter((pl.col("metric") == metric) & (pl.col("annotator_id") == ALL))
    names = order_methods(rows["method"].to_list())
    found = [(name, find_first(data.ratings_metrics, metric, name)) for name in names]
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found]) or format_value(None)
    chance = chance_of(data)
    return f"Share of blinded tasks in which a rater names the person imitated: {figures} (chance {chance})."
