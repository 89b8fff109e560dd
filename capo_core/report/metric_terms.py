"""What every metric is called in the report, what it means, which way is better and in which order they stand."""

from __future__ import annotations

import re
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
    better: Literal["higher", "lower", "nearer one", "nearer half"] | None = None
    share: bool = False
    flag: bool = False


_SPECIFICITY = "The similarity to the person's explanation minus that to the other annotators' explanations of the same"
_SPECIFICITY += " item. 0: no closer to the person than to the others."

_IMITATION = (
    MetricTerm(
        "attribution_accuracy",
        "Attribution accuracy",
        "Share of groups of k explanations that a classifier, trained on human text of other items only, gives to the "
        "person imitated. Human text is the ceiling; text whose authors were shuffled within items is the floor.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "attribution_probability",
        "Attribution probability",
        "Mean probability that the same classifier gives to the person imitated.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "classifier_agreement",
        "Agreement of classifiers",
        "Share of single explanations that the classifiers on n-grams and on embeddings give to the same annotator.",
        share=True,
    ),
    MetricTerm(
        "distinguishability",
        "Told from the person",
        "How well a classifier tells generated text from the person's own (area under the ROC curve): .5 is perfect "
        "imitation, 1 is told apart always. Human text: two halves of the person's own text.",
        "nearer half",
        share=True,
    ),
    MetricTerm(
        "style_distance",
        "Style distance",
        "Mean over style features of the distance between the distributions in generated and in the person's text, in "
        "the person's standard deviations. Controls: two samples of his own text, and the other annotators' text.",
        "lower",
    ),
    MetricTerm(
        "length_ratio",
        "Length ratio",
        "Length of the explanation divided by the person's. 1 is the person's own length.",
        "nearer one",
    ),
)
_DECISIONS = (
    MetricTerm(
        "label_agreement",
        "Label agreement",
        "Share of items on which the label is the person's; a label that cannot be read is not. The floor is always "
        "giving the person's commonest training label.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "macro_f1",
        "Macro-F1",
        "F1 of each label the person gave, averaged over labels: a rare label counts as much as a common one.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "ordinal_error",
        "Error of scores",
        "Mean distance between the score and the person's, in points; readable labels only.",
        "lower",
    ),
    MetricTerm(
        "ordinal_distance",
        "Distance of scores",
        "Mean distance between the score and the person's, as a share of the scale's length; readable labels only.",
        "lower",
        share=True,
    ),
    MetricTerm("aer", "AER", "Average error rate of LeWiDi-2025, per annotator; readable labels only.", "lower", True),
    MetricTerm(
        "manhattan_distance",
        "Manhattan distance",
        "LeWiDi-2025: distance of the distribution of labels from all annotators' models to the people's, 0 to 2.",
        "lower",
    ),
    MetricTerm(
        "wasserstein_distance",
        "Wasserstein distance",
        "LeWiDi-2025: distance of the distribution of scores from all annotators' models to the people's, in points.",
        "lower",
    ),
    MetricTerm(
        "label_parse_rate", "Readable labels", "Share of responses whose label is one of the task's.", share=True
    ),
    MetricTerm(
        "parse_rate",
        "Readable responses",
        "Share of responses that state a label and an explanation in the form asked for.",
        share=True,
    ),
)
_SIMILARITY = (
    MetricTerm(
        "rouge_l", "ROUGE-L", "Overlap of words, in order, with the person's explanation.", "higher", share=True
    ),
    MetricTerm("rouge_l_specificity", "ROUGE-L specificity", _SPECIFICITY, "higher", share=True),
    MetricTerm("chrf", "chrF", "Overlap of character n-grams with the person's explanation.", "higher", share=True),
    MetricTerm("chrf_specificity", "chrF specificity", _SPECIFICITY, "higher", share=True),
    MetricTerm(
        "embedding_similarity",
        "Embedding similarity",
        "Cosine of the sentence embeddings of the explanation and the person's.",
        "higher",
        share=True,
    ),
    MetricTerm("embedding_specificity", "Embedding specificity", _SPECIFICITY, "higher", share=True),
    MetricTerm(
        "bertscore_f1",
        "BERTScore-style F1",
        "Greedy matching of token embeddings with the person's explanation, by capo's own encoder and without "
        "rescaling: not comparable with figures of other encoders.",
        "higher",
        share=True,
    ),
    MetricTerm("bertscore_specificity", "BERTScore-style specificity", _SPECIFICITY, "higher", share=True),
)
_GUARDS = (
    MetricTerm(
        "near_duplicate_rate",
        "Near duplicates",
        "Share of explanations that are nearly one of the person's training explanations.",
        "lower",
        share=True,
    ),
    MetricTerm(
        "longest_copied_run",
        "Longest copied run",
        "Longest run of words that also stands in a training explanation of the person, as a share of the words.",
        share=True,
    ),
    MetricTerm("empty_rate", "Empty explanations", "Share of responses without a word of explanation.", "lower", True),
    MetricTerm(
        "degenerate_rate",
        "Degenerate explanations",
        "Share of explanations without a letter, or more than half of which is one phrase repeated.",
        "lower",
        share=True,
    ),
    MetricTerm("distinct_1", "Distinct words", "Distinct words as a share of all words written.", share=True),
    MetricTerm("distinct_2", "Distinct pairs of words", "Distinct pairs of words as a share of all.", share=True),
)


def _judging_terms(prefix: str, protocol: str) -> tuple[MetricTerm, ...]:
    """Return the terms that every protocol of judging has, named after it."""
    apart = "Whether the judge tells the real annotators apart."
    ties = "Share of groups on which the orders of the candidates disagree."
    same = "Share of pairs of orders of the candidates that name the same one."
    position = "How far the judge prefers a position in the list over the others; 0 is none."
    return (
        MetricTerm(f"{prefix}_informative", f"Judge informative{protocol}", apart, flag=True),
        MetricTerm(f"{prefix}_tie_rate", f"Judge ties{protocol}", ties, share=True),
        MetricTerm(f"{prefix}_self_consistency", f"Same answer{protocol}", same, share=True),
        MetricTerm(
            f"{prefix}_parse_rate",
            f"Readable verdicts{protocol}",
            "Share of questions answered by naming a candidate.",
            share=True,
        ),
        MetricTerm(f"{prefix}_position_bias", f"Judge position bias{protocol}", position, share=True),
        MetricTerm(
            f"{prefix}_failure_rate", f"Judge failures{protocol}", "Share of questions that got no answer.", share=True
        ),
        MetricTerm(
            f"{prefix}_not_asked_rate",
            f"Questions not asked{protocol}",
            "Share of questions left out because the budget was spent.",
            share=True,
        ),
        MetricTerm(
            f"{prefix}_group_shortfall", f"Judge groups missing{protocol}", "Groups asked for less groups judged."
        ),
        MetricTerm(f"{prefix}_chance", f"Judge chance{protocol}", "What guessing would score.", share=True),
    )


_JUDGES = (
    MetricTerm(
        "judge_accuracy",
        "Judge accuracy",
        "Share of groups of k explanations for which the LLM judge names the person imitated; ties count in part.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "judge_pairwise_accuracy",
        "Judge pairwise accuracy",
        "Share of pairs in which the judge prefers a person's own group to another annotator's about the same items; "
        "ties count half.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "judge_win_rate",
        "Judge preference",
        "Share of pairs in which the judge prefers the first method less that in which it prefers the second.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "judge_same_author_acceptance",
        "Taken for the person's own",
        "Share of groups that the judge takes for the person's own; ties count half.",
        "higher",
        share=True,
    ),
    MetricTerm(
        "judge_same_author_balanced_accuracy",
        "Judge balanced accuracy",
        "Mean of the shares of own groups taken for the person's and of other annotators' groups that are not.",
        "higher",
        share=True,
    ),
    *_judging_terms("judge", ""),
    *_judging_terms("judge_pairwise", ", pairwise"),
    *_judging_terms("judge_same_author", ", same author"),
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
    MetricTerm("rater_kappa", "Agreement of pairs of raters", "Mean of Cohen's κ over pairs of raters.", share=True),
    MetricTerm("rater_attention", "Attention checks passed", "Mean over raters.", share=True),
    MetricTerm("rater_self_consistency", "Raters' self-consistency", "Share of repeats answered alike.", share=True),
    MetricTerm("rater_median_seconds", "Seconds per task", "Median over raters of their median."),
    MetricTerm("raters_excluded", "Raters left out", "Raters whom the rule stated beforehand leaves out."),
    MetricTerm(
        "human_judge_agreement",
        "Raters and judge agree",
        "Share of groups that most raters and most orders of the judge give to the same person.",
        share=True,
    ),
    MetricTerm("human_judge_kappa", "Raters and judge, Cohen's κ", "The same, corrected for chance.", share=True),
)

METRICS: tuple[MetricTerm, ...] = (*_IMITATION, *_DECISIONS, *_SIMILARITY, *_GUARDS, *_JUDGES)
"""Known metrics in the order in which the report shows them."""

EXPECTED_METRICS = (
    "attribution_accuracy",
    "distinguishability",
    "style_distance",
    "length_ratio",
    "label_agreement",
    "macro_f1",
    "ordinal_error",
    "parse_rate",
    "rouge_l_specificity",
    "embedding_specificity",
    "near_duplicate_rate",
    "judge_accuracy",
    "human_attribution_accuracy",
)
"""Metrics whose absence the summary states."""

ORDINAL_ONLY = frozenset({"ordinal_error", "ordinal_distance", "wasserstein_distance"})
"""Metrics that labels without an order do not have."""

_ANAD = re.compile(r"anad_(\d{1,3})")
_RANK = {term.name: rank for rank, term in enumerate(METRICS)}
_BY_NAME = {term.name: term for term in METRICS}


def metric_term(name: str) -> MetricTerm:
    """Return how metric `name` is shown; an unknown one keeps its own name and has no meaning or direction."""
    if found := _ANAD.fullmatch(name):
        meaning = f"Average normalised absolute distance of LeWiDi-2025: mean distance of scores over {found[1]}."
        return MetricTerm(name, f"ANAD, divided by {found[1]}", meaning, "lower", share=True)
    return _BY_NAME.get(name, MetricTerm(name, name))


def order_metrics(names: Iterable[str]) -> list[str]:
    """Return the distinct metric names, known ones first in the report's order, others by name."""
    # The LeWiDi figures stand together.
    known = {name: _RANK["aer"] if _ANAD.fullmatch(name) else _RANK.get(name, len(_RANK)) for name in set(names)}
    return sorted(known, key=lambda name: (known[name], name))
