"""What methods, metrics and conditions are called in the report, what they mean and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricTerm:
    """How one metric is shown.

    Attributes:
        name: as in the METRICS table.
        title: for headings.
        meaning: one sentence for a reader who does not know the metric; empty for an unknown one.
        better: which way is closer to the person; None where neither is.
        share: whether values lie between 0 and 1 and are written as .71.
        flag: whether the value is 1 for yes and 0 for no.
    """

    name: str
    title: str
    meaning: str = ""
    better: Literal["higher", "lower", "nearer one"] | None = None
    share: bool = False
    flag: bool = False


METRICS: tuple[MetricTerm, ...] = (
    MetricTerm(
        "attribution_accuracy",
        "Attribution accuracy",
        "Share of groups of k explanations that a classifier, trained on human text of other items only, gives to the "
        "person imitated. Human text is the ceiling; text whose authors were shuffled within items is the floor.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "label_agreement",
        "Label agreement",
        "Share of items on which the label is the person's; a label that cannot be read is not. The floor is always "
        "giving the person's commonest (ordinal: median) training label.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "label_parse_rate", "Readable labels", "Share of responses whose label is one of the task's.", share=True
    ),
    MetricTerm(
        "ordinal_distance",
        "Distance of scores",
        "Mean distance between the score and the person's, as a share of the scale's length; readable labels only.",
        "lower",
        share=True,
    ),
    MetricTerm(
        "parse_rate",
        "Readable responses",
        "Share of responses that state a label and an explanation in the form asked for.",
        share=True,
    ),
    MetricTerm(
        "rouge_l", "ROUGE-L", "Overlap of words, in order, with the person's explanation.", "higher", share=True
    ),
    MetricTerm(
        "rouge_l_specificity",
        "ROUGE-L specificity",
        "ROUGE-L to the person's explanation minus ROUGE-L to the other annotators' explanations of the same item. "
        "0: no closer to the person than to the others.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "embedding_similarity",
        "Embedding similarity",
        "Cosine of the sentence embeddings of the explanation and the person's.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "embedding_specificity",
        "Embedding specificity",
        "Embedding similarity to the person's explanation minus that to the other annotators'. "
        "0: no closer to the person than to the others.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "length_ratio",
        "Length ratio",
        "Length of the explanation divided by the person's. 1 is the person's own length.",
        "nearer one",
    ),
    MetricTerm(
        "judge_accuracy",
        "Judge accuracy",
        "Share of groups of k explanations for which the LLM judge names the person imitated; ties count in part.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "judge_informative", "Judge informative", "Whether the judge tells the real annotators apart.", flag=True
    ),
    MetricTerm(
        "judge_tie_rate",
        "Judge ties",
        "Share of groups for which the orders of the candidates name several people equally often.",
        share=True,
    ),
    MetricTerm(
        "judge_parse_rate", "Readable verdicts", "Share of questions answered by naming a candidate.", share=True
    ),
    MetricTerm(
        "judge_position_bias",
        "Judge position bias",
        "How far the judge prefers a position in the list over the others; 0 is none.",
        share=True,
    ),
    MetricTerm("judge_failure_rate", "Judge failures", "Share of questions that got no answer at all.", share=True),
    MetricTerm("judge_group_shortfall", "Judge groups missing", "Groups asked for less groups judged."),
    MetricTerm("judge_chance", "Judge chance", "1 divided by the number of candidates.", share=True),
    MetricTerm(
        "human_attribution_accuracy",
        "Human attribution",
        "Share of blinded tasks in which a human rater names the person imitated.",
        "higher",
        share=True,
    ),
    MetricTerm("human_answer_rate", "Tasks answered", "Share of blinded tasks with an answer.", share=True),
    MetricTerm("human_chance", "Human chance", "1 divided by the number of candidates.", share=True),
    MetricTerm("rater_alpha", "Agreement of raters", "Krippendorff's α between raters, nominal.", share=True),
)
"""Known metrics in the order in which the report shows them."""

EXPECTED_METRICS = (
    "attribution_accuracy",
    "label_agreement",
    "ordinal_distance",
    "parse_rate",
    "rouge_l",
    "rouge_l_specificity",
    "embedding_similarity",
    "embedding_specificity",
    "length_ratio",
    "judge_accuracy",
    "human_attribution_accuracy",
)
"""Metrics whose absence the summary states."""

_METRIC_RANK = {term.name: rank for rank, term in enumerate(METRICS)}
_METRIC_BY_NAME = {term.name: term for term in METRICS}

METHOD_TITLES = {
    "human": "Human text",
    "majority": "Majority label",
    "zero_shot": "Zero-shot",
    "history": "In-context history",
    "sft": "SFT",
    "capo": "CAPO",
    "all": "All methods",
}
"""Known methods in the order in which the report shows them."""

CONDITION_TITLES = {
    "raw": "as written",
    "surface_normalised": "surface removed",
    "shuffled": "authors shuffled (floor)",
    "other_annotator": "another annotator in the person's place",
}

REDUCTION_TITLES = {
    "none": "Whole text",
    "shared_words_masked": "Words shared with the input masked",
    "embedding_minus_item_mean": "Sentence embedding minus the item's mean",
}

NORMALISATION_TITLES = {"none": "as written", "surface": "surface removed"}

SPLITS = ("train", "validation", "test")

TRAINING_TITLES = {
    "loss": "Loss",
    "accuracy": "Preference accuracy",
    "margin": "Margin, chosen over rejected",
    "chosen_logps": "Log-probability of chosen",
    "rejected_logps": "Log-probability of rejected",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
}

PARSE_TITLES = {
    "ok": "read",
    "no_label": "no label",
    "unknown_label": "label outside the task's set",
    "no_explanation": "no explanation",
}


def metric_term(name: str) -> MetricTerm:
    """Return how metric `name` is shown; an unknown one keeps its own name and has no meaning or direction."""
    return _METRIC_BY_NAME.get(name, MetricTerm(name, name))


def method_title(name: str) -> str:
    """Return what a method is called; an unknown one keeps its own name."""
    return METHOD_TITLES.get(name, name)


def method_class(name: str) -> str:
    """Return the style class of a method: one of the known names or `other`; never text from the data."""
    return name if name in METHOD_TITLES and name != "all" else "other"


def condition_title(name: str | None) -> str:
    """Return what a condition is called, empty where none applies."""
    return "" if name is None else CONDITION_TITLES.get(name, name)


def order_methods(names: Iterable[str]) -> list[str]:
    """Return the distinct method names, known ones first in the report's order, others by name."""
    return _order(names, {name: rank for rank, name in enumerate(METHOD_TITLES)})


def order_metrics(names: Iterable[str]) -> list[str]:
    """Return the distinct metric names, known ones first in the report's order, others by name."""
    return _order(names, _METRIC_RANK)


def order_conditions(names: Iterable[str | None]) -> list[str | None]:
    """Return the distinct conditions: none, then raw, surface_normalised, shuffled, then others by name."""
    distinct = set(names)
    known = {name: rank for rank, name in enumerate(CONDITION_TITLES)}
    return [*([None] if None in distinct else []), *_order((name for name in distinct if name is not None), known)]


def decision_rank(name: str | None) -> tuple[int, str]:
    """Return what decisions are sorted by: none, sampled, constrained, then others by name."""
    known = (None, "sampled", "constrained")
    return (known.index(name), "") if name in known else (len(known), name or "")


def _order(names: Iterable[str], known: dict[str, int]) -> list[str]:
    """Return the distinct names by their known rank, unknown ones last by name."""
    return sorted(set(names), key=lambda name: (known.get(name, len(known)), name))
