"""Two runs against each other: the same methods on the items that both answered, differences paired item by item."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from capo_core.errors import CorpusError
from capo_core.evaluation.decision import score_decisions
from capo_core.evaluation.evaluate import score_explanations
from capo_core.evaluation.exclusions import exclude_unreadable
from capo_core.evaluation.scores import Resampling, Scores
from capo_core.evaluation.tables import (
    NOT_COMPARED,
    comparison_row,
    metric_rows,
    tabulate_comparisons,
    tabulate_metrics,
)
from capo_core.evaluation.targets import HeldOut, read_held_out, read_responses
from capo_core.progress import Progress, silent
from schemas.config import EvaluationConfig, TaskSpec


@dataclass(frozen=True)
class RunComparison:
    """What two runs' generations measure on the items that both have.

    Attributes:
        first: METRICS of the first run, people's text (ceiling and floor) included.
        second: METRICS of the second run.
        comparisons: COMPARISONS of the first minus the second run; method_a and method_b are the same method.
        n_items: items that both runs answered.
        n_left_out: items that only one of them answered.
    """

    first: pl.DataFrame
    second: pl.DataFrame
    comparisons: pl.DataFrame
    n_items: int
    n_left_out: int


def compare_runs(
    corpus: pl.DataFrame,
    first: pl.DataFrame,
    second: pl.DataFrame,
    task: TaskSpec,
    config: EvaluationConfig,
    *,
    progress: Progress = silent,
) -> RunComparison:
    """Return both runs' figures and the paired difference of every figure of every method that both have.

    Measured is what needs no encoder, on whole text as written and with the surface removed: decisions, similarity by
    words and letters, style distance, distinguishability, guards, and attribution by character n-grams. Both runs are
    held against the same targets, classifiers, resamples and groups, so that differences are paired by item, annotator
    and seed; intervals and tests are those of `tables.comparison_row`, and a family for Holm's correction is one figure
    of all methods and ways of deciding. Where a method was run with other seeds in either run there is no comparison.

    Args:
        corpus: CORPUS with all splits, the same for both runs.
        first: GENERATIONS of the first run.
        second: GENERATIONS of the second run.
        task: what was asked.
        config: group sizes, normalisations, resamples, confidence, seed.
        progress: told of every comparison done.

    Raises:
        CorpusError: if the runs have no item or no method in common, or their generations do not fit the corpus.
    """
    kept, n_left_out = _keep_common(first, second)
    held_out = read_held_out(corpus, pl.concat(kept))
    narrow = config.model_copy(update={"reductions": ("none",), "classifiers": ("ngrams",)})
    resampling = Resampling(len(held_out.items), narrow)
    scored = [_score_run(generations, held_out, task, narrow) for generations in kept]
    by_name = {score.name: score for score in scored[1]}
    pairs = [
        (score, by_name[score.name])
        for score in scored[0]
        if score.name in by_name and score.seeds and score.name.metric not in NOT_COMPARED
    ]
    rows = []
    for n_done, (one, other) in enumerate(pairs, start=1):
        rows.append(comparison_row(one, other, resampling))
        progress(n_done, len(pairs))
    metrics = [
        tabulate_metrics(row for score in scores for row in metric_rows(score, held_out.annotators, resampling))
        for scores in scored
    ]
    return RunComparison(metrics[0], metrics[1], tabulate_comparisons(rows), len(held_out.items), n_left_out)


def _keep_common(first: pl.DataFrame, second: pl.DataFrame) -> tuple[list[pl.DataFrame], int]:
    """Return both runs' generations of common methods for common items, and how many items are left out.

    Raises:
        CorpusError: if there is no common method or item.
    """
    runs = (first, second)
    methods, items = (
        [set(generations[column].unique().to_list()) for generations in runs] for column in ("method", "item_id")
    )
    if not methods[0] & methods[1]:
        raise CorpusError(
            f"the first run has methods {sorted(methods[0])}, the second {sorted(methods[1])}: compare runs with a "
            "method in common"
        )
    common = items[0] & items[1]
    if not common:
        raise CorpusError("the two runs answered no item in common: compare runs of the same split of the same corpus")
    kept = pl.col("item_id").is_in(sorted(common)) & pl.col("method").is_in(sorted(methods[0] & methods[1]))
    return [generations.filter(kept) for generations in runs], len(items[0] ^ items[1])


def _score_run(generations: pl.DataFrame, held_out: HeldOut, task: TaskSpec, config: EvaluationConfig) -> list[Scores]:
    """Return the scores of one run's methods, and of people's text beside them."""
    answered = read_responses(generations, held_out)
    readable = exclude_unreadable(answered, config)
    scores: list[Scores] = [score for responses in answered for score in score_decisions(responses, held_out, task)]
    return [*scores, *score_explanations(answered, readable, held_out, config, None).scores]
