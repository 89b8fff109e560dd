"""The evaluation of one set of generations: every figure with its interval, and the methods compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from capo_core.evaluation.caricature import score_style_distance, style_distances
from capo_core.evaluation.cross_attribution import cross_attribution
from capo_core.evaluation.decision import score_decisions, score_majority, score_other_annotators
from capo_core.evaluation.distinguishability import score_distinguishability
from capo_core.evaluation.exclusions import exclude_unreadable, find_exclusions
from capo_core.evaluation.guards import score_guards
from capo_core.evaluation.imitation import Attributed, attribute_writings, score_imitation
from capo_core.evaluation.scores import Resampling, Scores
from capo_core.evaluation.similarity import EmbedTokens, score_similarity
from capo_core.evaluation.soft_labels import score_soft_label_references, score_soft_labels
from capo_core.evaluation.style_distance_scores import StyleDistanceScores
from capo_core.evaluation.tables import (
    compared_pairs,
    comparison_row,
    metric_rows,
    tabulate_comparisons,
    tabulate_metrics,
)
from capo_core.evaluation.targets import HeldOut, Responses, main_decision, read_held_out, read_responses
from capo_core.progress import Progress, silent
from capo_core.stylometry.reduction import Embed, remember
from schemas.config import EvaluationConfig, TaskSpec


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: METRICS, methods in the order human, majority, zero_shot, history, profile, sft, capo.
        comparisons: COMPARISONS of the pairs `tables.compared_pairs` names, as far as present.
        style_distances: STYLE_DISTANCES, feature by feature.
        cross_attribution: CROSS_ATTRIBUTION, whose text each imitation is taken for.
        exclusions: EXCLUSIONS, what was left out and why.
    """

    metrics: pl.DataFrame
    comparisons: pl.DataFrame
    style_distances: pl.DataFrame
    cross_attribution: pl.DataFrame
    exclusions: pl.DataFrame


def evaluate_generations(
    corpus: pl.DataFrame,
    generations: pl.DataFrame,
    task: TaskSpec,
    config: EvaluationConfig,
    embed: Embed | None,
    embed_tokens: EmbedTokens | None = None,
    *,
    progress: Progress = silent,
) -> Evaluation:
    """Return every figure by method and annotator, the paired comparisons, and what was left out.

    Figures: of decisions (`decision`, `soft_labels`), similarity (`similarity`), imitation (`imitation`), caricature
    (`caricature`) and guards (`guards`). Controls: method majority (labels); human with condition other_annotator
    (labels, similarity); human as ceiling and shuffled as floor of attribution. Ways of deciding are kept apart
    throughout; distinguishability is of sampled text. Intervals and tests: `capo_core.statistics`,
    `tables`; exclusion rules: `exclusions`.

    Args:
        corpus: CORPUS with all splits.
        generations: GENERATIONS of any methods and seeds, for items of one held-out split. Rows without annotator_id
            (zero_shot) are held against each annotator in turn.
        task: what was asked.
        config: variants, group sizes, resamples, confidence, seed.
        embed: sentence encoder, n texts to [n, d]; None leaves what needs it unmeasured.
        embed_tokens: token encoder, n texts to n arrays [t, d]; None leaves bertscore_f1 unmeasured.
        progress: told of every figure and comparison done.

    Raises:
        CorpusError: if the generations do not fit the corpus, or nothing can be learnt about the people's text.
        ValueError: if a frame has other columns than its schema.
    """
    held_out = read_held_out(corpus, generations)
    all_responses = read_responses(generations, held_out)
    readable = exclude_unreadable(all_responses, config)
    embed = None if embed is None else remember(embed)
    resampling = Resampling(len(held_out.items), config)
    explanations = score_explanations(all_responses, readable, held_out, config, embed, embed_tokens)
    scores = [*_score_labels(all_responses, held_out, task), *explanations.scores]
    metrics, comparisons = _tabulate(scores, held_out.annotators, resampling, progress)
    return Evaluation(
        metrics=metrics,
        comparisons=comparisons,
        style_distances=style_distances(explanations.distances, held_out.annotators),
        cross_attribution=cross_attribution(explanations.attributed, held_out.annotators, resampling),
        exclusions=find_exclusions(all_responses, held_out, config),
    )


@dataclass(frozen=True)
class ExplanationScores:
    """What the explanations score, all together and what further tables are made of.

    Attributes:
        scores: similarity, style distance, distinguishability, guards, imitation.
        distances: those of style distance.
        attributed: whom every explanation is attributed to.
    """

    scores: list[Scores]
    distances: Sequence[StyleDistanceScores]
    attributed: Sequence[Attributed]


def score_explanations(
    answered: Sequence[Responses],
    readable: Sequence[Responses],
    held_out: HeldOut,
    config: EvaluationConfig,
    embed: Embed | None,
    embed_tokens: EmbedTokens | None = None,
) -> ExplanationScores:
    """Return what the methods' explanations score; decisions are scored apart.

    Args:
        answered: of `read_responses`.
        readable: of `exclude_unreadable`.
        held_out: people's text, to train on and to hold against.
        config: variants, group sizes, seed.
        embed: see `evaluate_generations`; likewise embed_tokens.
    """
    main = main_decision(readable)
    distances = score_style_distance(readable, held_out, held_out.texts, config.seed)
    attributed = attribute_writings(readable, held_out, config, embed)
    scores = [
        *score_similarity(readable, held_out, embed, embed_tokens),
        *distances,
        *score_distinguishability([r for r in readable if r.decision == main], held_out, config.seed),
        *score_guards(answered, held_out),
        *score_imitation(attributed, config),
    ]
    return ExplanationScores(scores, distances, attributed)


def _score_labels(all_responses: Sequence[Responses], held_out: HeldOut, task: TaskSpec) -> list[Scores]:
    """Return the scores of decisions and their controls."""
    scores: list[Scores] = [*score_majority(held_out, task), *score_other_annotators(held_out, task)]
    scores += score_soft_label_references(held_out, task)
    for responses in all_responses:
        scores += score_decisions(responses, held_out, task)
        scores += score_soft_labels(responses, held_out, task)
    return scores


def _tabulate(
    scores: Sequence[Scores], annotators: Sequence[str], resampling: Resampling, progress: Progress
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return METRICS and COMPARISONS, reporting every figure and comparison."""
    pairs = compared_pairs(scores)
    n_total = len(scores) + len(pairs)
    metrics, comparisons = [], []
    for n_done, one in enumerate(scores, start=1):
        metrics += metric_rows(one, annotators, resampling)
        progress(n_done, n_total)
    for n_done, (after, before) in enumerate(pairs, start=len(scores) + 1):
        comparisons.append(comparison_row(after, before, resampling))
        progress(n_done, n_total)
    return tabulate_metrics(metrics), tabulate_comparisons(comparisons)
