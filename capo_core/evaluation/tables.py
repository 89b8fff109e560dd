"""Scores as rows of METRICS and COMPARISONS: values, intervals, paired tests, and how much was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from capo_core.evaluation.scores import Resampling, Scores, swap_p_value
from capo_core.evaluation.significance import bootstrap_p_value, mean_of_defined, percentile_interval
from schemas.frames import COMPARISONS, METRICS, check_columns

ALL = "all"
METHOD_ORDER = ("human", "majority", "zero_shot", "history", "sft", "capo")
LADDER = ("zero_shot", "history", "sft", "capo")
"""Methods in the order in which each is compared with the one before it."""

COMPARED_METRICS = (
    "label_agreement",
    "ordinal_distance",
    "rouge_l",
    "embedding_similarity",
    "attribution_accuracy",
)


def metric_rows(scores: Scores, annotators: Sequence[str], resampling: Resampling) -> list[tuple]:
    """Return the METRICS rows of one figure: the mean over annotators, then each annotator.

    The mean is over the annotators measured; its interval resamples the same items for all of them at once. n is the
    number of items that enter. Not measured: value and bounds null, n and n_seeds 0. n_seeds is 1 where no seed enters.
    """
    replicates = _replicates(scores, resampling)
    columns = np.concatenate([mean_of_defined(replicates)[:, None], replicates], axis=1)
    measured = scores.measured()
    entering = [measured.any(axis=1), *np.moveaxis(measured, 1, 0)]  # each [S, I]
    name = scores.name
    rows = []
    for column, (annotator, cells) in enumerate(zip((ALL, *annotators), entering, strict=True)):
        figures = _interval(columns[:, column], resampling.config.confidence)
        n_items, n_seeds = int(cells.any(axis=0).sum()), _count_seeds(scores, cells)
        keys = (name.method, annotator, name.decision, name.metric, name.condition, name.group_size)
        rows.append((*keys, *figures, n_items, n_seeds))
    return rows


def comparison_row(first: Scores, second: Scores, resampling: Resampling) -> tuple:
    """Return the COMPARISONS row of `first` minus `second`, mean over annotators, on the cells both have.

    Paired: both are measured on the same items, annotators and seeds, and meet the same resamples and groups. The
    interval is hierarchical over seeds and items. p is the greater of two: that of swapping the methods item by item,
    which holds for few items but takes the trained seeds as given, and that of the bootstrap, which knows the spread
    between seeds but is approximate. So p < .05 never goes with a 95% interval that holds 0. Null without a common
    seed or cell.
    """
    seeds = tuple(seed for seed in first.seeds if seed in second.seeds)
    name = first.name
    keys = (name.method, second.name.method, name.decision, name.metric, name.condition, name.group_size)
    if not seeds:
        return (*keys, None, None, None, None, 0, 0)
    a, b = first.at_seeds(seeds), second.at_seeds(seeds)
    cells = a.present() & b.present()
    a, b = a.only(cells), b.only(cells)
    measured = a.measured()
    differences = mean_of_defined(_replicates(a, resampling)) - mean_of_defined(_replicates(b, resampling))
    p_value = np.max([swap_p_value(a, b, resampling), bootstrap_p_value(differences[1:])])  # NaN if either is
    figures = _interval(differences, resampling.config.confidence)
    counts = int(measured.any(axis=(0, 1)).sum()), int(measured.any(axis=(1, 2)).sum())
    return (*keys, *figures, None if np.isnan(p_value) else float(p_value), *counts)


def compared_pairs(all_scores: Sequence[Scores]) -> list[tuple[Scores, Scores]]:
    """Return what is compared: each method with the one before it on the ladder, of those present, like with like."""
    present = [method for method in LADDER if any(scores.name.method == method for scores in all_scores)]
    by_name = {scores.name: scores for scores in all_scores}
    pairs = []
    for before, after in reversed(list(pairwise(present))):
        for name, scores in by_name.items():
            other = by_name.get(name._replace(method=before))
            if name.method == after and name.metric in COMPARED_METRICS and other is not None:
                pairs.append((scores, other))
    return pairs


def tabulate_metrics(rows: Iterable[tuple]) -> pl.DataFrame:
    """Return METRICS with methods in the usual order, the rest by name, the mean over annotators first."""
    frame = pl.DataFrame(list(rows), schema=METRICS, orient="row")
    method_rank = pl.col("method").replace_strict({m: i for i, m in enumerate(METHOD_ORDER)}, default=len(METHOD_ORDER))
    others = ["method", "decision", "metric", "condition", "group_size"]
    ordered = frame.sort(method_rank, *others, pl.col("annotator_id") != ALL, "annotator_id")
    return check_columns(ordered, METRICS, "metrics")


def tabulate_comparisons(rows: Iterable[tuple]) -> pl.DataFrame:
    """Return COMPARISONS in the order given."""
    return check_columns(pl.DataFrame(list(rows), schema=COMPARISONS, orient="row"), COMPARISONS, "comparisons")


def _replicates(scores: Scores, resampling: Resampling) -> np.ndarray:
    """Return the point estimate and under it every resample's, [1 + B, A]."""
    n_slices = scores.n_slices if scores.seeds else 1
    draws = (resampling.whole(n_slices), resampling.bootstrap(n_slices))
    return np.concatenate([scores.estimate(draw) for draw in draws])


def _interval(replicates: np.ndarray, confidence: float) -> tuple[float | None, float | None, float | None]:
    """Return value and bounds of replicates whose first is the point estimate; None for what is undefined."""
    if np.isnan(replicates[0]):
        return None, None, None
    low, high = (None if np.isnan(bound) else bound for bound in percentile_interval(replicates[1:], confidence))
    return float(replicates[0]), low, high


def _count_seeds(scores: Scores, cells: np.ndarray) -> int:
    """Return the number of seeds with anything measured, [S, I] booleans; 1 for what no seed enters."""
    n_slices = int(cells.any(axis=1).sum())
    return n_slices if scores.seeds else min(n_slices, 1)
