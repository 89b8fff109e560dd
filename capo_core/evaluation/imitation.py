"""Whether a classifier that knows the people only from their own text takes generated text for theirs.

The attributor (`capo_core.stylometry.attribution`) learns from people's training explanations (and validation, where
test items were generated for). It is then given groups of k explanations that one method with one seed wrote for one
annotator, and people's own held-out explanations: the ceiling (method human) and, with the annotators shuffled within
items, the floor.

Conditions: what is taken away from every text, people's in training included (`capo_core.stylometry.reduction`).
Without a reduction they are called raw and surface_normalised (no case, punctuation or white-space habits); else by
the reduction, with `+surface` where the surface goes as well. The floor of raw is called shuffled, that of any other
condition shuffled:<condition>. In all of them white space around an explanation is removed first, from people's text
too: the response format cannot carry it, and a person known by a leading space could otherwise not be imitated.
Generated text is reduced with its item's texts, and by the mean of *people's* explanations of the item.

Classifiers: linear on character n-grams, linear on sentence embeddings. classifier_agreement is the share of single
explanations that both attribute to the same annotator, right or wrong: a figure that holds under one of them only is
about that classifier. Sampled text (`targets.main_decision`) is attributed under every variant; greedy and constrained
text by n-grams without reduction.

The attributor knows the training explanations, which trained methods have seen as well. Text copied from them is
attributed as surely as it was learnt, so an accuracy above the human ceiling is a sign of copying or of caricature,
not of better imitation; style distance and the guards stand beside it for that reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl

from capo_core.evaluation.group_scores import FIGURES, Attributions, GroupScores
from capo_core.evaluation.scores import ScoreName, Scores, mean_scores
from capo_core.evaluation.targets import HeldOut, Responses, choose_explanations, explained_rows, main_decision
from capo_core.stylometry.attribution import fit_attributor
from capo_core.stylometry.controls import shuffle_within_items
from capo_core.stylometry.reduction import Embed, Reducer, Variant, fit_reducer, list_variants
from schemas.config import EvaluationConfig

SHUFFLED = "shuffled"
N_SHUFFLES = 30
"""Shuffles averaged over for the floor.

One shuffle leaves an annotator some of his own texts, which large groups magnify: at k = 20 of 60 items ten shuffles
came to .28 to .30 for a chance of .25.
"""


@dataclass(frozen=True)
class Writing:
    """Explanations of one source: [S, A, I] texts, None where there is none; seeds () for people.

    `in_full`: attributed under every variant. `shuffled`: people's, their authors shuffled within items.
    """

    method: str
    decision: str | None
    seeds: tuple[int, ...]
    explanations: np.ndarray
    in_full: bool = True
    shuffled: bool = False


@dataclass(frozen=True)
class Attributed:
    """Explanations of one source with what one classifier says of them under one condition."""

    writing: Writing
    variant: Variant
    attributions: Attributions

    @property
    def condition(self) -> str:
        """Name of the condition as in METRICS."""
        condition = name_condition(self.variant)
        if not self.writing.shuffled:
            return condition
        return SHUFFLED if condition == "raw" else f"{SHUFFLED}:{condition}"


def name_condition(variant: Variant) -> str:
    """Return the condition's name: raw, surface_normalised, <reduction> or <reduction>+surface."""
    if variant.reduction == "none":
        return "raw" if variant.normalisation == "none" else "surface_normalised"
    return variant.reduction if variant.normalisation == "none" else f"{variant.reduction}+surface"


def attribute_writings(
    all_responses: Sequence[Responses], held_out: HeldOut, config: EvaluationConfig, embed: Embed | None
) -> list[Attributed]:
    """Return what every classifier says of every method's explanations, people's, and shuffled people's.

    Where the person wrote several explanations of an item one of them, drawn at random, stands for it. What needs the
    encoder has log-probabilities NaN without it: not measured.

    Raises:
        CorpusError: if fewer than two annotators have training explanations.
    """
    rng = np.random.default_rng([config.seed, 3])
    human = choose_explanations(held_out, rng)
    shuffled = np.stack([_shuffle_authors(human, rng) for _ in range(N_SHUFFLES)])
    main = main_decision(all_responses)
    writings = [Writing(r.method, r.decision, r.seeds, r.explanations, r.decision == main) for r in all_responses]
    writings += [Writing("human", None, (), human[None]), Writing("human", None, (), shuffled, shuffled=True)]
    attributed = []
    for variant in list_variants(config.reductions, config.normalisations, config.classifiers):
        plain = variant.reduction == "none" and variant.classifier == "ngrams"
        attributed += _attribute_under(variant, [w for w in writings if plain or w.in_full], held_out, embed)
    return attributed


def score_imitation(all_attributed: Sequence[Attributed], config: EvaluationConfig) -> list[Scores]:
    """Return attribution_accuracy and attribution_probability by group size, and classifier_agreement."""
    # By source and size, variants last: they meet the same groups, which are remembered for a while only.
    by_source: dict[tuple[str, str | None, bool], list[Attributed]] = {}
    for one in all_attributed:
        by_source.setdefault((one.writing.method, one.writing.decision, one.writing.shuffled), []).append(one)
    scores: list[Scores] = []
    for (method, decision, _), variants in by_source.items():
        for size, one, metric in product(config.group_sizes, variants, FIGURES):
            name = ScoreName(method, decision, metric, one.condition, size, one.variant.classifier)
            scores.append(GroupScores(name, one.writing.seeds, one.attributions))
    return scores + _score_agreement(all_attributed)


def _attribute_under(
    variant: Variant, writings: Sequence[Writing], held_out: HeldOut, embed: Embed | None
) -> list[Attributed]:
    """Return the attributions of `writings` under one variant; every text is classified once."""
    seen = explained_rows(held_out.seen)
    reducer = fit_reducer(variant, seen, embed)
    known = {} if reducer is None else _classify(_list_texts(writings, held_out), seen, reducer, held_out)
    attributed = []
    for writing in writings:
        shape = writing.explanations.shape
        log_probabilities = np.full((*shape, len(held_out.annotators)), np.nan)
        for cell in np.ndindex(*shape):
            if (scores := known.get((held_out.items[cell[-1]], writing.explanations.item(*cell)))) is not None:
                log_probabilities[cell] = scores
        attributed.append(Attributed(writing, variant, Attributions(log_probabilities)))
    return attributed


def _classify(
    texts: pl.DataFrame, seen: pl.DataFrame, reducer: Reducer, held_out: HeldOut
) -> dict[tuple[str, str], np.ndarray]:
    """Return the log-probabilities, [A], by item and text."""
    attributor = fit_attributor(reducer.apply(seen), seen["annotator_id"].to_list())
    people = explained_rows(held_out.people)
    if reducer.variant.reduction == "embedding_minus_item_mean":  # items nobody explained have no mean
        texts = texts.filter(pl.col("item_id").is_in(people["item_id"].unique().to_list()))
    if texts.is_empty():
        return {}
    scores = attributor.log_probabilities(reducer.apply(texts, people), held_out.annotators)
    return dict(zip(texts.select("item_id", "explanation").iter_rows(), scores, strict=True))


def _list_texts(writings: Sequence[Writing], held_out: HeldOut) -> pl.DataFrame:
    """Return every text with its item once: columns item_id, explanation, text_a, text_b, sorted by the first two."""
    pairs: set[tuple[str, str]] = set()
    for writing in writings:
        for cell in np.ndindex(*writing.explanations.shape):
            if (text := writing.explanations.item(*cell)) is not None:
                pairs.add((held_out.items[cell[-1]], text))
    frame = pl.DataFrame(sorted(pairs), schema={"item_id": pl.String, "explanation": pl.String}, orient="row")
    return frame.join(held_out.texts, on="item_id", how="left", maintain_order="left")


def _score_agreement(all_attributed: Iterable[Attributed]) -> list[Scores]:
    """Return the share of single explanations both classifiers attribute to the same annotator, without reduction."""
    by_classifier: dict[tuple[str, str, str | None], dict[str, Attributed]] = {}
    for one in all_attributed:
        if one.variant.reduction == "none" and not one.writing.shuffled:
            source = (one.condition, one.writing.method, one.writing.decision)
            by_classifier.setdefault(source, {})[one.variant.classifier] = one
    scores: list[Scores] = []
    for (condition, method, decision), families in by_classifier.items():
        if len(families) < 2:
            continue
        first, second = families["ngrams"].attributions, families["embeddings"].attributions
        both = first.present() & second.present()
        verdicts = [np.nan_to_num(part.log_probabilities).argmax(axis=3) for part in (first, second)]
        alike = np.where(both, verdicts[0] == verdicts[1], np.nan)
        name = ScoreName(method, decision, "classifier_agreement", condition)
        scores.append(mean_scores(name, families["ngrams"].writing.seeds, alike))
    return scores


def _shuffle_authors(explanations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the explanations with the authors of each item permuted among those who wrote one, [A, I]."""
    written = np.array([text is not None for text in explanations.flat]).reshape(explanations.shape)
    authors, items = np.nonzero(written)
    shuffled = np.full(explanations.shape, None, dtype=object)
    shuffled[shuffle_within_items(authors, items, rng), items] = explanations[authors, items]
    return shuffled
