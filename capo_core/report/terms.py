"""What methods, conditions, reductions and quantities are called in the report, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from schemas.section import Method

METHOD_TITLES = {
    "human": "Human text",
    "majority": "Majority label",
    "zero_shot": "Zero-shot",
    "history": "In-context history",
    "profile": "Value profile",
    "sft": "SFT",
    "capo": "CAPO",
    "all": "All methods",
}
"""Known methods in the order in which the report shows them."""

GENERATED: tuple[str, ...] = get_args(Method)
"""Methods that write text, in order."""

OTHER_ANNOTATOR = "other_annotator"
SPLIT_HALF = "split_half"
SHUFFLED = "shuffled"
SURFACE = "surface_normalised"

REDUCTION_TITLES = {
    "none": "Whole text",
    "shared_words_masked": "Words shared with the input masked",
    "content_words_masked": "Function words only",
    "embedding_minus_item_mean": "Embedding minus the item's mean",
    "embedding_input_residual": "Embedding, what the input does not predict",
}

NORMALISATION_TITLES = {"none": "as written", "surface": "surface removed"}

CLASSIFIER_TITLES = {"ngrams": "n-grams", "embeddings": "embeddings"}

P_VALUE_TITLES = {"p_value": "p, verdicts kept", "p_value_retrained": "p, retrained"}
"""The tests whether there is style at all: two of one hypothesis."""

P_VALUE_MEANINGS = {
    "p_value": "the verdicts of the classifier shown stay; each fold is judged by a model of the folds before it.",
    "p_value_retrained": "a ridge classifier learns anew under each permutation; each fold is judged by a model of all "
    "others.",
}
"""How they differ, a line each."""

CONDITION_TITLES = {
    "raw": "as written",
    SURFACE: "surface removed",
    SPLIT_HALF: "two samples of the person's own text",
    OTHER_ANNOTATOR: "another annotator in the person's place",
    "training_distribution": "distribution of the training labels for every item",
    SHUFFLED: "authors shuffled (floor)",
    "all_raters": "raters left out by the rule included",
}

SUBJECTIVITY_TITLES = {
    "manifest": "manifest: the label lies on the surface of the text",
    "latent_pattern": "latent pattern: the label must be recognised from cues that readers share",
    "latent_projective": "latent projective: the label draws on each person's own standards",
}

QUANTITY_TITLES = {
    "krippendorff_alpha_nominal": "Krippendorff's α, nominal",
    "krippendorff_alpha_ordinal": "Krippendorff's α, ordinal",
    "krippendorff_alpha_interval": "Krippendorff's α, interval",
    "krippendorff_alpha_masi": "Krippendorff's α, MASI (sets of labels)",
    "percent_agreement": "Share of equal labels",
    "label_entropy": "Label entropy of an item, bits",
    "label_entropy_normalised": "Label entropy, share of the largest possible",
    "label_jsd": "Divergence of label distributions, bits",
    "label_jsd_shuffled": "the same, annotators shuffled (floor)",
    "cohen_kappa": "Cohen's κ",
    "cohen_kappa_quadratic": "Cohen's κ, quadratic weights",
    "label_distribution_distance": "Distance of the label distribution",
    "attribution_accuracy": "Attribution accuracy",
}
"""Figures of agreement and convergence, in order."""

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

DECISIONS = ("sampled", "greedy", "constrained")


def method_title(name: str) -> str:
    """Return what a method is called; an unknown one keeps its own name."""
    return METHOD_TITLES.get(name, name)


def method_class(name: str) -> str:
    """Return the style class of a method: one of the known names or `other`; never text from the data."""
    return name if name in METHOD_TITLES and name != "all" else "other"


def quantity_title(name: str) -> str:
    """Return what a figure of agreement or convergence is called; an unknown one keeps its own name."""
    return QUANTITY_TITLES.get(name, name)


def feature_title(name: str) -> str:
    """Return a style feature's name in words: `ends_with_full_stop` as `ends with full stop`."""
    return name.replace("_", " ")


def variant_title(reduction: str, normalisation: str, classifier: str | None) -> str:
    """Return a way of reading text, e.g. `Whole text, surface removed, by n-grams`."""
    parts = [REDUCTION_TITLES.get(reduction, reduction), NORMALISATION_TITLES.get(normalisation, normalisation)]
    return ", ".join(parts) + (f", by {CLASSIFIER_TITLES.get(classifier, classifier)}" if classifier else "")


def condition_title(name: str | None) -> str:
    """Return what a condition is called, empty where none applies."""
    if name is None or name in CONDITION_TITLES:
        return "" if name is None else CONDITION_TITLES[name]
    if name.startswith(f"{SHUFFLED}:"):
        return f"{condition_title(name.removeprefix(f'{SHUFFLED}:'))}, {CONDITION_TITLES[SHUFFLED]}"
    reduction = name.removesuffix("+surface")
    title = REDUCTION_TITLES.get(reduction, reduction).lower()
    return title + (f", {CONDITION_TITLES[SURFACE]}" if name != reduction else "")


def floor_of(condition: str) -> str:
    """Return the condition under which the shuffled floor of an attribution figure stands."""
    return SHUFFLED if condition == "raw" else f"{SHUFFLED}:{condition}"


def order_methods(names: Iterable[str]) -> list[str]:
    """Return the distinct method names, known ones first in the report's order, others by name."""
    return order_by(names, METHOD_TITLES)


def order_conditions(names: Iterable[str | None]) -> list[str | None]:
    """Return the distinct conditions: none, as written, surface removed, reductions, then the controls."""
    distinct = set(names)
    controls = (SPLIT_HALF, OTHER_ANNOTATOR, "training_distribution", SHUFFLED)
    reductions = [f"{name}{end}" for name in REDUCTION_TITLES for end in ("", "+surface")]
    known = ["raw", SURFACE, *reductions, *controls]
    ordered = order_by((name for name in distinct if name is not None), known)
    return [*([None] if None in distinct else []), *ordered]


def decision_rank(name: str | None) -> tuple[int, str]:
    """Return what decisions are sorted by: none, sampled, greedy, constrained, then others by name."""
    known = (None, *DECISIONS)
    return (known.index(name), "") if name in known else (len(known), name or "")


def order_by(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the distinct names in the order of the known ones, unknown ones last by name."""
    rank = {name: place for place, name in enumerate(known)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))
