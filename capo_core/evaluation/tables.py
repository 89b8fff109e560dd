"""Scores as rows of METRICS and COMPARISONS: values, intervals, paired tests, and how much was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import get_args

import numpy as np
import polars as pl

from capo_core.evaluation.scores import Draws, Resampling, Scores
from capo_core.statistics.multiplicity import holm_adjust
from capo_core.statistics.significance import (
    bootstrap_p_value,
    effect_size,
    mean_of_defined,
    percentile_interval,
    seeds_and_items_p_value,
)
from schemas.frames import COMPARISONS, METRICS, check_columns
from schemas.section import Method

ALL = "all"
LADDER: tuple[Method, ...] = get_args(Method)
"""Methods in the order in which each is compared with the one before it."""

METHOD_ORDER = ("human", "majority", *LADDER)

FURTHER_PAIRS = (("capo", "history"),)
"""Compared as well: the method with what needs no training."""

AGAINST_MAJORITY = ("sft", "capo")
MAJORITY_METRICS = ("label_agreement", "macro_f1", "ordinal_distance")
MAJORITY_DECISIONS = ("greedy", "constrained")
"""A sampled label pays for being sampled; these two say what the model holds most probable, as the majority does."""

NOT_COMPARED = frozenset({"classifier_agreement"})
"""About the classifiers, not about the methods."""

FAMILY = ("metric", "condition", "classifier", "group_size")
"""One figure: a family of comparisons for Holm's correction is all pairs and decisions of one of these."""


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
        keys = (name.decision, name.metric, name.condition, name.classifier, name.group_size)
        rows.append((name.method, annotator, *keys, *figures, n_items, n_seeds))
    return rows


def comparison_row(first: Scores, second: Scores, resampling: Resampling) -> tuple:
    """Return the COMPARISONS row of `first` minus `second`, mean over annotators, on the cells both have.

    Paired: both are measured on the same items, annotators and seeds, and meet the same resamples and groups; what no
    seed enters (majority) stands at every seed. The interval is hierarchical over seeds and items. p_value: as in
    `_test_difference`; effect_size: `statistics.significance.effect_size`. p_holm is null until
    `tabulate_comparisons`, which sees the family. Null without a common seed or cell.
    """
    seeds = first.seeds if not second.seeds else tuple(seed for seed in first.seeds if seed in second.seeds)
    name = first.name
    keys = (name.method, second.name.method, name.decision, *name[2:4], name.classifier, name.group_size)
    if not seeds:
        return (*keys, *[None] * 6, 0, 0)
    a, b = first.at_seeds(seeds), second.at_seeds(seeds)
    cells = a.present() & b.present()
    a, b = a.only(cells), b.only(cells)
    measured = a.measured()
    n_items, n_seeds = int(measured.any(axis=(0, 1)).sum()), int(measured.any(axis=(1, 2)).sum())
    differences = _differences(a, b, resampling.bootstrap(len(seeds)), resampling)
    effect, p_value = _test_difference(a, b, differences, n_items, resampling)
    return (*keys, *_interval(differences, resampling.config.confidence), effect, p_value, None, n_items, n_seeds)


def _test_difference(
    first: Scores, second: Scores, differences: np.ndarray, n_items: int, resampling: Resampling
) -> tuple[float | None, float | None]:
    """Return effect size and p-value of a difference, None where undefined.

    p is the greatest of those there are: of swapping the methods item by item, which holds for few items but takes the
    trained seeds as given; of the bootstrap, so that p < .05 never goes with a 95% interval that holds 0; with several
    seeds, of Student's t with seeds and items at random, which alone allows for how few the seeds are. Each tests a
    part of what is claimed; the greatest is below .05 no more often than each of them.

    Args:
        first: scores of one method.
        second: scores of the other, of the same cells.
        differences: [1 + B] the difference and under it that of every resample.
        n_items: items that enter.
        resampling: of the evaluation.
    """
    n_seeds = first.n_slices
    over_items = differences[1:]
    p_values = [first.swap_p_value(second, resampling), bootstrap_p_value(differences[1:])]
    if n_seeds > 1:
        over_items = _differences(first, second, resampling.bootstrap_items(n_seeds), resampling)[1:]
        by_seed = _differences(first, second, resampling.each_seed(n_seeds), resampling)[1:]
        by_seed = by_seed[~np.isnan(by_seed)]  # a seed at which nothing was measured
        p_values += [seeds_and_items_p_value(float(differences[0]), over_items, by_seed, n_items)] * (len(by_seed) > 1)
    found = effect_size(float(differences[0]), over_items, n_items), float(np.max(p_values))  # NaN if one is
    effect, p_value = (None if np.isnan(value) else value for value in found)
    return effect, p_value


def _differences(first: Scores, second: Scores, draws: Draws, resampling: Resampling) -> np.ndarray:
    """Return the difference of the means over annotators: of the whole sample, then of every resample, [1 + B]."""
    whole = resampling.whole(first.n_slices)
    means = [
        mean_of_defined(np.concatenate([scores.estimate(whole), scores.estimate(draws)])) for scores in (first, second)
    ]
    return means[0] - means[1]


def compared_pairs(all_scores: Sequence[Scores]) -> list[tuple[Scores, Scores]]:
    """Return what is compared, all fixed beforehand: like with like, in this order.

    Each method with the one before it on the ladder, of those present, from the top down; capo with history; sft and
    capo with the annotator's majority label, where the decision is the most probable one.
    """
    present = [method for method in LADDER if any(scores.name.method == method for scores in all_scores)]
    pairs = [(after, before) for before, after in reversed(list(pairwise(present)))]
    pairs += [pair for pair in FURTHER_PAIRS if pair not in pairs]
    by_name = {scores.name: scores for scores in all_scores}
    compared = []
    for after, before in pairs:
        for name, scores in by_name.items():
            other = by_name.get(name._replace(method=before))
            if name.method == after and name.metric not in NOT_COMPARED and other is not None:
                compared.append((scores, other))
    for name, scores in by_name.items():
        if name.method in AGAINST_MAJORITY and name.decision in MAJORITY_DECISIONS and name.metric in MAJORITY_METRICS:
            floor = by_name.get(name._replace(method="majority", decision=None))
            compared += [] if floor is None else [(scores, floor)]
    return compared


def tabulate_metrics(rows: Iterable[tuple]) -> pl.DataFrame:
    """Return METRICS with methods in the usual order, the rest by name, the mean over annotators first."""
    frame = pl.DataFrame(list(rows), schema=METRICS, orient="row")
    method_rank = pl.col("method").replace_strict({m: i for i, m in enumerate(METHOD_ORDER)}, default=len(METHOD_ORDER))
    others = ["method", "decision", "metric", "condition", "classifier", "group_size"]
    ordered = frame.sort(method_rank, *others, pl.col("annotator_id") != ALL, "annotator_id")
    return check_columns(ordered, METRICS, "metrics")


def tabulate_comparisons(rows: Iterable[tuple]) -> pl.DataFrame:
    """Return COMPARISONS in the order given, with p_holm.

    A family is every comparison of one figure (`FAMILY`): all planned pairs of methods under all ways of deciding.
    Those are the chances the figure gives to call some method better than another. The same pair under another group
    size, reduction or classifier is no further chance but the same claim looked at again: a claim names beforehand the
    figure it rests on, and the others say whether it is robust. One family over all of them would hold hundreds of
    tests that share their explanations; B resamples could not reach a corrected .05 there, whatever the difference
    (the smallest p is 2 / (B + 1); with B = 1000 a family may have 25 tests).
    """
    frame = pl.DataFrame(list(rows), schema=COMPARISONS, orient="row").with_row_index("row")
    corrected = []
    for family in frame.partition_by(*FAMILY):
        p_values = family["p_value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        p_holm = pl.Series("p_holm", holm_adjust(p_values), dtype=pl.Float64).fill_nan(None)
        corrected.append(family.with_columns(p_holm))
    ordered = pl.concat(corrected).sort("row") if corrected else frame
    return check_columns(ordered.drop("row"), COMPARISONS, "comparisons")


def _replicates(scores: Scores, resampling: Resampling) -> np.ndarray:
    """Return the point estimate and under it every resample's, [1 + B, A]."""
    n_slices = scores.n_slices if scores.seeds else 1
    return np.concatenate([scores.estimate(d) for d in (resampling.whole(n_slices), resampling.bootstrap(n_slices))])


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
