"""The evaluation of one set of generations: every figure with its interval, and the methods compared."""

from __future__ import annotations

import polars as pl

from capo_core.evaluation.decision import score_decisions, score_majority, score_other_annotators
from capo_core.evaluation.imitation import score_imitation
from capo_core.evaluation.scores import Resampling, Scores
from capo_core.evaluation.similarity import score_similarity
from capo_core.evaluation.tables import (
    compared_pairs,
    comparison_row,
    metric_rows,
    tabulate_comparisons,
    tabulate_metrics,
)
from capo_core.evaluation.targets import read_held_out, read_responses
from capo_core.progress import Progress, silent
from capo_core.stylometry.reduction import Embed
from schemas.config import EvaluationConfig, TaskSpec


def evaluate_generations(
    corpus: pl.DataFrame,
    generations: pl.DataFrame,
    task: TaskSpec,
    config: EvaluationConfig,
    embed: Embed | None,
    *,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return every figure by method and annotator, and the paired comparisons between methods.

    Figures: parse_rate, label_parse_rate, label_agreement, ordinal_distance (`decision`), rouge_l,
    embedding_similarity, their specificities, length_ratio (`similarity`), attribution_accuracy (`imitation`).
    Controls: method majority (labels); human with condition other_annotator (labels, similarity); human raw and
    surface_normalised (ceiling of attribution) and shuffled (its floor). Sampled and constrained decisions are kept
    apart throughout. Intervals and tests: `significance` and `stylometry.groups`.

    Args:
        corpus: CORPUS with all splits.
        generations: GENERATIONS of any methods and seeds, for items of one held-out split. Rows without annotator_id
            (zero_shot) are held against each annotator in turn.
        task: what was asked.
        config: group sizes, resamples, confidence, seed.
        embed: sentence encoder, n texts to [n, d]; None leaves the embedding metrics unmeasured.
        progress: told of every figure and comparison done.

    Returns:
        METRICS, methods in the order human, majority, zero_shot, history, sft, capo; and COMPARISONS of each method
        with the one before it among zero_shot, history, sft, capo, as far as present.

    Raises:
        CorpusError: if the generations do not fit the corpus, or nothing can be learnt about the people's text.
        ValueError: if a frame has other columns than its schema.
    """
    held_out = read_held_out(corpus, generations)
    all_responses = read_responses(generations, held_out)
    scores: list[Scores] = [*score_majority(held_out, task), *score_other_annotators(held_out, task)]
    for responses in all_responses:
        scores += score_decisions(responses, held_out, task)
    scores += score_similarity(all_responses, held_out, embed)
    scores += score_imitation(all_responses, held_out, config)
    resampling = Resampling(len(held_out.items), config)
    pairs = compared_pairs(scores)
    n_total = len(scores) + len(pairs)
    metrics, comparisons = [], []
    for one in scores:
        metrics += metric_rows(one, held_out.annotators, resampling)
        progress(len(metrics) // (1 + len(held_out.annotators)), n_total)
    for after, before in pairs:
        comparisons.append(comparison_row(after, before, resampling))
        progress(len(scores) + len(comparisons), n_total)
    return tabulate_metrics(metrics), tabulate_comparisons(comparisons)
