"""What was found, one sentence or two per topic, made from the data.

No sentence claims a difference unless its interval excludes 0 and its test, corrected for the number of comparisons
where that was done, agrees; no gain in attribution is reported without the distances that tell it from caricature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from capo_core.report.data import Difference, Estimate, ReportData
from capo_core.report.formats import (
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_value,
    join_and,
)
from capo_core.report.key_figures import LABEL_AGREEMENT, LENGTH_RATIO, FigureKey, KeyFigures, choose_key_figures
from capo_core.report.metric_terms import metric_term
from capo_core.report.terms import DECISIONS, GENERATED, OTHER_ANNOTATOR, condition_title, method_title


@dataclass(frozen=True)
class Finding:
    """What was found on one topic."""

    topic: str
    text: str


@dataclass(frozen=True)
class Gain:
    """What CAPO's attribution is worth beside its distances.

    Attributes:
        kind: none: no gain is shown; closer, caricature: a gain whose distance is shown smaller, or greater;
            undecided: a gain without a distance shown different; unmeasured: a gain without a distance measured.
        text: the sentences that say so, every figure with interval and test.
    """

    kind: Literal["none", "closer", "caricature", "undecided", "unmeasured"]
    text: str


_GAIN_VERDICTS = {
    "caricature": "The gain goes with a greater distance from the person's own text: it is exaggeration at least in "
    "part, not closer imitation alone.",
    "closer": "Its text is also shown closer to the person's own: the gain is no caricature.",
    "undecided": "A greater distance is not shown, which does not prove that there is none.",
    "unmeasured": "Whether that is imitation or caricature is not known: no distance was measured.",
}


def quote(estimate: Estimate | None, *, share: bool = True) -> str:
    """Return `.71 [.60, .80]`, or `not measured`."""
    if estimate is None:
        return format_value(None)
    return format_estimate(estimate.value, estimate.low, estimate.high, share=share)


def chance_of(data: ReportData) -> str:
    """Return the chance level of attribution among the corpus's annotators."""
    return format_value(1 / len(data.annotators) if data.annotators else None, share=True)


def format_test(difference: Difference) -> str:
    """Return the p value that counts, `p = .012, Holm` where it was corrected; an empty string without a test."""
    corrected = format_p(difference.p_holm)
    return f"{corrected}, Holm" if corrected else format_p(difference.p_value)


def say_difference(alpha: float, difference: Difference | None, first: str, second: str, *, share: bool = True) -> str:
    """Return what a difference shows, claiming one only where interval and test exclude 0."""
    if difference is None:
        return f"the difference between {first} and {second} was not tested"
    value = format_difference(difference.value, share=share)
    interval = format_interval(difference.low, difference.high, share=share) or "no interval"
    test = format_test(difference)
    evidence = f"{value} {interval}" + (f", {test}" if test else "")
    if difference.is_shown(alpha):
        return f"{first} is {'higher' if difference.value > 0 else 'lower'} than {second} ({evidence})"
    return f"no difference between {first} and {second} is shown ({evidence})"


def list_findings(data: ReportData) -> list[Finding]:
    """Return what was found, from the people themselves to the length of explanations."""
    keys = choose_key_figures(data.metrics)
    texts = {
        "The people": say_people(data, keys) if keys else None,
        "The imitations": say_methods(data, keys) if keys else None,
        "Imitation or caricature": weigh_gain(data, keys).text if keys else None,
        "Labels": say_labels(data),
        "Length": say_length(data, keys.decision if keys else None),
    }
    return [Finding(topic, text) for topic, text in texts.items() if text]


def say_people(data: ReportData, keys: KeyFigures) -> str:
    """Return how well the people themselves can be told apart."""
    surface = "" if keys.condition == "raw" else f", {condition_title(keys.condition)}"
    raw = "" if keys.condition == "raw" else f" (as written {quote(_find(data, keys.attribution('raw'), 'human'))})"
    return (
        "Trained on the people's own explanations of other items, the classifier names the right one of "
        f"{len(data.annotators)} for {quote(_find(data, keys.leading, 'human'))} of groups of {keys.group_size} "
        f"held-out human explanations{surface}{raw}. Chance is {chance_of(data)}; with the authors shuffled within "
        f"items the figure is {quote(_find(data, keys.leading.floor(), 'human'))}."
    )


def say_methods(data: ReportData, keys: KeyFigures) -> str | None:
    """Return every method's attribution, and whether one exceeds human text itself."""
    found = {name: e for name in GENERATED if (e := _find(data, keys.leading, name))}
    if not found:
        return None
    figures = join_and([f"{method_title(name)} {quote(estimate)}" for name, estimate in found.items()])
    how = ", ".join(part for part in (keys.decision, condition_title(keys.condition)) if part)
    sentences = [f"Groups of {keys.group_size} ({how}) given to the person imitated: {figures}."]
    ceiling = _find(data, keys.leading, "human")
    for name, estimate in found.items():
        if ceiling and estimate.low is not None and ceiling.high is not None and estimate.low > ceiling.high:
            sentences.append(
                f"{method_title(name)} is attributed more often than the people's own text, and the intervals do not "
                "overlap: it copies or exaggerates."
            )
    if keys.condition != "raw":
        raw = [f"{method_title(name)} {quote(_find(data, keys.attribution('raw'), name))}" for name in found]
        sentences.append(f"As written, with case, punctuation and spacing: {join_and(raw)}.")
    return " ".join(sentences)


def weigh_gain(data: ReportData, keys: KeyFigures) -> Gain:
    """Return what CAPO gains over SFT in attribution, always beside what it gains or loses in distance."""
    alpha = data.alpha
    gain = keys.leading.compare(data.comparisons)
    said = say_difference(data.alpha, gain, "CAPO", "SFT")
    distances = [key.compare(data.comparisons) for key in keys.distances]
    beside = "; ".join(_say_distance(data, key) for key in (*keys.distances, keys.plain(LENGTH_RATIO)))
    sentences = [f"Attribution: {said}.", f"Beside it: {beside}."]
    if gain is None or not gain.is_shown(alpha) or gain.value <= 0:
        return Gain("none", " ".join([*sentences, "No gain in imitation is shown."]))
    shown = [one.value for one in distances if one is not None and one.is_shown(alpha)]
    kind: Literal["unmeasured", "caricature", "closer", "undecided"]
    if not any(distances):
        kind = "unmeasured"
    elif any(value > 0 for value in shown):
        kind = "caricature"
    else:
        kind = "closer" if shown else "undecided"
    return Gain(kind, " ".join([*sentences, _GAIN_VERDICTS[kind]]))


def _say_distance(data: ReportData, key: FigureKey) -> str:
    """Return one figure of SFT and CAPO with what their difference shows."""
    share = metric_term(key.metric).share
    sft, capo = (quote(_find(data, key, name), share=share) for name in ("sft", "capo"))
    title = key.title[0].lower() + key.title[1:]
    difference = key.compare(data.comparisons)
    if difference is None:
        said = "not compared"
    elif difference.is_shown(data.alpha):
        said = f"{'higher' if difference.value > 0 else 'lower'} under CAPO"
    else:
        said = "no difference shown"
    test = format_test(difference) if difference else ""
    return f"{title} SFT {sft}, CAPO {capo}, {said}" + (f" ({test})" if test else "")


def _find(data: ReportData, key: FigureKey, method: str) -> Estimate | None:
    return key.find(data.metrics, method)


def say_labels(data: ReportData) -> str:
    """Return label agreement beside its floors under each decision; the constrained one is fairest to a small model."""
    keys = {decision: FigureKey(LABEL_AGREEMENT, decision) for decision in DECISIONS}
    found = {d: {m: _find(data, key, m) for m in ("sft", "capo")} for d, key in keys.items()}
    measured = [decision for decision, figures in found.items() if any(figures.values())]
    floor = FigureKey(LABEL_AGREEMENT).find(data.metrics, "majority")
    if not measured and floor is None:
        return "Agreement with the person's label: not measured."
    figures = [f"{d} SFT {quote(found[d]['sft'])}, CAPO {quote(found[d]['capo'])}" for d in reversed(measured)]
    other = FigureKey(LABEL_AGREEMENT, condition=OTHER_ANNOTATOR).find(data.metrics, "human")
    controls = f"always giving the person's commonest training label: {quote(floor)}"
    controls += f"; another annotator's label: {quote(other)}" if other else ""
    what = f"The label equals the person's ({'; '.join(figures)})." if figures else "No label was decided."
    sentences = [f"{what} Controls: {controls}."]
    if measured:
        said = [_say_against(data, keys[measured[-1]], name) for name in ("majority", "sft")]
        sentences.append(f"{measured[-1].capitalize()}: {'; '.join(said)}.")
    return " ".join(sentences)


def _say_against(data: ReportData, key: FigureKey, other: str) -> str:
    title = "always the commonest label" if other == "majority" else method_title(other)
    return say_difference(data.alpha, key.compare(data.comparisons, "capo", other), "CAPO", title)


def say_length(data: ReportData, decision: str | None) -> str | None:
    """Return a warning where explanations are shorter or longer than the person's, the interval excluding 1."""
    sentences = []
    for name in ("sft", "capo"):
        ratio = _find(data, FigureKey(LENGTH_RATIO, decision), name)
        if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
            continue
        way = "longer" if ratio.value > 1 else "shorter"
        times = quote(ratio, share=False)
        sentences.append(f"{method_title(name)}'s explanations are {way} than the person's own, {times} times as long.")
    return " ".join(sentences) or None
