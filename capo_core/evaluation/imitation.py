"""Whether a classifier that knows the people only from their own text takes generated text for theirs.

The attributor (`capo_core.stylometry.attribution`) learns from people's training explanations (and validation, where
test items were generated for). It is then given groups of k explanations that one method with one seed wrote for one
annotator, and people's own held-out explanations: the ceiling (method human) and, with the annotators shuffled within
items, the floor (condition shuffled).

Conditions: raw, as written; surface_normalised, without case, punctuation and white-space habits, in training as well.
In both, white space around an explanation is removed first, from people's text too: the response format cannot carry
it, and a person known by a leading space could otherwise not be imitated.

The attributor knows the training explanations, which trained methods have seen as well. Text copied from them is
attributed as surely as it was learnt, so an accuracy above the human ceiling is a sign of copying or of caricature,
not of better imitation; similarity and length stand beside it for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from capo_core.evaluation.scores import GroupScores, ScoreName
from capo_core.evaluation.targets import HeldOut, Responses
from capo_core.stylometry.attribution import Attributor, fit_attributor
from capo_core.stylometry.controls import shuffle_within_items
from capo_core.text import surface_normalise
from schemas.config import EvaluationConfig

CONDITIONS: dict[str, Callable[[str], str]] = {"raw": str.strip, "surface_normalised": surface_normalise}
SHUFFLED = "shuffled"
N_SHUFFLES = 10
"""Shuffles averaged over for the floor."""


def score_imitation(
    all_responses: Sequence[Responses], held_out: HeldOut, config: EvaluationConfig
) -> list[GroupScores]:
    """Return attribution_accuracy of every method and of people, per condition and group size.

    Where the person wrote several explanations of an item one of them, drawn at random, stands for it.

    Raises:
        CorpusError: if fewer than two annotators have training explanations.
    """
    rng = np.random.default_rng([config.seed, 3])
    human = _choose_explanations(held_out, rng)
    shuffled = np.stack([_shuffle_authors(human, rng) for _ in range(N_SHUFFLES)])
    scores: list[GroupScores] = []
    for condition, normalise in CONDITIONS.items():
        attributor = _fit(held_out, normalise)
        texts: list[tuple[tuple[str, str | None], tuple[int, ...], str, np.ndarray]] = [
            ((r.method, r.decision), r.seeds, condition, r.explanations) for r in all_responses
        ]
        texts.append((("human", None), (), condition, human[None]))
        if condition == "raw":
            texts.append((("human", None), (), SHUFFLED, shuffled))
        for (method, decision), seeds, shown, explanations in texts:
            log_probabilities = _attribute(attributor, explanations, normalise, held_out.annotators)
            scores += [
                GroupScores(ScoreName(method, decision, "attribution_accuracy", shown, size), seeds, log_probabilities)
                for size in config.group_sizes
            ]
    return scores


def _fit(held_out: HeldOut, normalise: Callable[[str], str]) -> Attributor:
    """Return the attributor of one condition, fitted on people's text that may be learnt from."""
    written = held_out.seen.drop_nulls("explanation")
    texts = [normalise(text) for text in written["explanation"]]
    return fit_attributor(texts, written["annotator_id"].to_list())


def _attribute(
    attributor: Attributor, explanations: np.ndarray, normalise: Callable[[str], str], annotators: Sequence[str]
) -> np.ndarray:
    """Return the log-probabilities of every explanation, [S, A, I] -> [S, A, I, A], NaN where there is none."""
    texts = sorted({text for text in explanations.flat if text is not None})
    known = attributor.log_probabilities([normalise(text) for text in texts], annotators)
    row = {text: i for i, text in enumerate(texts)}
    scores = np.full((*explanations.shape, len(annotators)), np.nan)
    for cell in np.ndindex(*explanations.shape):
        if explanations[cell] is not None:
            scores[cell] = known[row[explanations[cell]]]
    return scores


def _choose_explanations(held_out: HeldOut, rng: np.random.Generator) -> np.ndarray:
    """Return one explanation per annotator and item, [A, I], None where there is none."""
    chosen = np.empty(held_out.explanations.shape, dtype=object)
    for cell in np.ndindex(*chosen.shape):
        written = held_out.explanations[cell]
        chosen[cell] = written[int(rng.integers(len(written)))] if written else None
    return chosen


def _shuffle_authors(explanations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the explanations with the authors of each item permuted among those who wrote one, [A, I]."""
    written = np.array([text is not None for text in explanations.flat]).reshape(explanations.shape)
    authors, items = np.nonzero(written)
    shuffled = np.full(explanations.shape, None, dtype=object)
    shuffled[shuffle_within_items(authors, items, rng), items] = explanations[authors, items]
    return shuffled
