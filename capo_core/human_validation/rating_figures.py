"""What the ratings say: attribution by method, agreement of raters, and methods against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from capo_core.agreement.alpha import weighted_alphas
from capo_core.agreement.pairs import confusions, kappas
from capo_core.agreement.ratings import read_ratings as read_units
from capo_core.human_validation.crossed_test import compare_crossed
from capo_core.human_validation.rater_quality import assess_raters
from capo_core.judging.groups import HUMAN
from capo_core.judging.intervals import NOT_MEASURED, Estimate, none_if_nan
from capo_core.seeding import derive_seed
from capo_core.statistics.multiplicity import holm_adjust
from capo_core.statistics.significance import (
    Resamples,
    hierarchical_ratios,
    mean_of_defined,
    percentile_interval,
    resample_counts,
)
from schemas.frames import COMPARISONS, METRICS, check_columns
from schemas.human_validation import HumanValidationConfig

ALL = "all"
KEPT, EVERYBODY = "raw", "all_raters"
"""Conditions: raters who fail the rule left out; nobody left out."""

LADDER = ("capo", "sft", "profile", "history", "zero_shot", HUMAN)
"""Every method is compared with those after it; capo with sft comes first."""

_Figure = tuple[str, str, str, Estimate]  # method, annotator, metric


@dataclass(frozen=True)
class RatingFigures:
    """What `summarise_ratings` finds.

    Attributes:
        metrics: METRICS.
        comparisons: COMPARISONS.
        raters: RATERS.
    """

    metrics: pl.DataFrame
    comparisons: pl.DataFrame
    raters: pl.DataFrame


def summarise_ratings(
    ratings: pl.DataFrame,
    key: pl.DataFrame,
    config: HumanValidationConfig,
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> RatingFigures:
    """Return the figures of the ratings, each without the raters who fail the rule and with everybody.

    The condition `raw` is without them, `all_raters` with them. Attention checks and repeats enter no figure of a
    method. Metrics, sorted by method, metric, condition (`raw` first) and annotator:

    `human_attribution_accuracy`: per method, for each annotator and over `all` (mean of the annotators' means), the
    share of answers that name the right annotator; n counts tasks. Tasks within annotators and raters are resampled
    (crossed: Owen 2007); a single rater is not. `human_answer_rate`: share of the method's rows with an answer (n:
    rows). `human_chance`: mean of 1 / number of candidates. With the method `all`: `rater_alpha`, Krippendorff's
    nominal α between raters over the people they name, and `rater_kappa`, the mean of Cohen's κ over pairs of raters
    (n: tasks answered by two or more; intervals over tasks); `rater_attention` and `rater_self_consistency`, means over
    raters, `rater_median_seconds`, their median (n: raters who have one); `raters_excluded`, how many the rule excludes
    (n: raters; under `all_raters` only).

    Comparisons: paired differences of `human_attribution_accuracy` between methods, on the groups of the same
    annotator's same items and by the same raters (seeds averaged), tested with groups and raters random; see
    `compare_crossed`, of which the interval is too. n: pairs of groups. p_holm is over the pairs of one condition.

    Args:
        ratings: RATINGS.
        key: VALIDATION_KEY of the same set; methods nobody has rated appear with null values.
        config: the rule for raters; its seed draws the resamples.
        n_bootstrap: resamples.
        confidence: of the intervals.
    """
    raters = assess_raters(ratings, config)
    kept = ratings.join(raters.filter(~pl.col("excluded")), on="rater_id", how="semi")
    metrics, comparisons = [], []
    rng_seed = derive_seed(config.seed, "ratings bootstrap")
    for condition, rows in ((KEPT, kept), (EVERYBODY, ratings)):
        of_condition = raters if condition == EVERYBODY else raters.filter(~pl.col("excluded"))
        found = [
            *_measure_methods(rows, key, rng_seed, n_bootstrap, confidence),
            *_measure_agreement(rows, rng_seed, n_bootstrap, confidence),
            *_measure_raters(of_condition, condition),
        ]
        metrics += [_to_metric(*figure, condition, key) for figure in found]
        comparisons += _compare_methods(rows, key, condition, confidence)
    order = ["method", "metric", pl.col("condition") != KEPT, "annotator_id"]
    return RatingFigures(
        check_columns(pl.DataFrame(metrics, schema=METRICS).sort(*order), METRICS, "ratings metrics"),
        check_columns(pl.DataFrame(comparisons, schema=COMPARISONS), COMPARISONS, "ratings comparisons"),
        raters,
    )


def pair_differences(ratings: pl.DataFrame, method_a: str, method_b: str) -> np.ndarray:
    """Return the paired differences of two methods, [R, U], NaN where a rater did not answer both.

    A cell is the share of right answers (over seeds) to method_a's group of an annotator's items less that to
    method_b's group of the same items. Rows are raters, columns (annotator, items), both sorted; units of which only
    one method was rated are left out.

    Args:
        ratings: RATINGS.
        method_a: one of its methods.
        method_b: another.
    """
    rated = ratings.filter((pl.col("kind") == "rating") & (pl.col("answer") != ""))
    unit = pl.col("author_id") + "\x1f" + pl.col("item_ids").list.join("\x1f")
    cells = rated.group_by("rater_id", unit.alias("unit"), "method").agg(pl.col("correct").cast(pl.Float64).mean())
    first, second = (cells.filter(pl.col("method") == method) for method in (method_a, method_b))
    both = first.join(second, on=["rater_id", "unit"]).with_columns(
        (pl.col("correct") - pl.col("correct_right")).alias("difference")
    )
    raters, units = (sorted(both[name].unique()) for name in ("rater_id", "unit"))
    differences = np.full((len(raters), len(units)), np.nan)
    for rater, one, value in both.select("rater_id", "unit", "difference").iter_rows():
        differences[raters.index(rater), units.index(one)] = value
    return differences


def _measure_methods(
    ratings: pl.DataFrame, key: pl.DataFrame, seed: int, n_bootstrap: int, confidence: float
) -> Iterator[_Figure]:
    """Yield what is measured of each method."""
    rated = key.filter(pl.col("kind") == "rating")
    for method in sorted(rated["method"].unique()):
        tasks = rated.filter(pl.col("method") == method)
        rows = ratings.filter((pl.col("kind") == "rating") & (pl.col("method") == method))
        annotators = sorted(tasks["annotator_id"].unique())
        replicates, n_tasks = _resample_accuracy(rows, annotators, n_bootstrap, seed)
        for place, who in enumerate(annotators):
            yield (
                method,
                who,
                "human_attribution_accuracy",
                _estimate(replicates[:, place], n_tasks[place], confidence),
            )
        overall = mean_of_defined(replicates)
        yield method, ALL, "human_attribution_accuracy", _estimate(overall, sum(n_tasks), confidence)
        rate = float((rows["answer"] != "").sum()) / len(rows) if len(rows) else None
        yield method, ALL, "human_answer_rate", Estimate(rate, None, None, len(rows))
        chance = (1 / tasks["candidate_annotators"].list.len()).mean()
        yield method, ALL, "human_chance", Estimate(float(chance), None, None, tasks.height)  # type: ignore[arg-type]


def _resample_accuracy(
    rows: pl.DataFrame, annotators: Sequence[str], n_bootstrap: int, seed: int
) -> tuple[np.ndarray, list[int]]:
    """Return each annotator's share of right answers, of the whole sample and of every resample, [1 + B, A], and tasks.

    A task counts by how many raters answered it; one draw of raters serves all annotators.
    """
    answered = rows.filter(pl.col("answer") != "")
    raters = sorted(answered["rater_id"].unique())
    rng = np.random.default_rng(seed)
    rater_counts = _with_whole(len(raters), n_bootstrap, rng)
    columns, n_tasks = [], []
    for who in annotators:
        own = answered.filter(pl.col("author_id") == who)
        tasks = sorted(own["task_id"].unique())
        n_tasks.append(len(tasks))
        right, given = np.zeros((2, len(raters), 1, len(tasks)))
        for rater, task, correct in own.select("rater_id", "task_id", "correct").iter_rows():
            place = raters.index(rater), 0, tasks.index(task)
            right[place], given[place] = float(correct), 1.0
        if not tasks:
            columns.append(np.full(1 + n_bootstrap, np.nan))
            continue
        resamples = Resamples(_with_whole(len(tasks), n_bootstrap, rng), rater_counts)
        columns.append(hierarchical_ratios(right, given, resamples)[:, 0])
    return np.stack(columns, axis=1), n_tasks


def _measure_agreement(ratings: pl.DataFrame, seed: int, n_bootstrap: int, confidence: float) -> Iterator[_Figure]:
    """Yield α and mean pairwise κ between raters, null where no task has two answers."""
    answered = ratings.filter((pl.col("answer") != "") & (pl.col("kind") == "rating"))
    shared = answered.filter(pl.len().over("task_id") > 1)
    n_tasks = shared["task_id"].n_unique()
    if n_tasks == 0:
        yield ALL, ALL, "rater_alpha", NOT_MEASURED
        yield ALL, ALL, "rater_kappa", NOT_MEASURED
        return
    units = read_units(
        shared.select(
            pl.col("task_id").alias("item_id"),
            pl.col("rater_id").alias("annotator_id"),
            pl.col("annotator_id").alias("label"),
        ),
        "nominal",
    )
    weights = _with_whole(len(units.items), n_bootstrap, np.random.default_rng(seed))
    yield ALL, ALL, "rater_alpha", _estimate(weighted_alphas(units, "nominal", weights), n_tasks, confidence)
    by_pair = [kappas(confusions(units, pair, weights)) for pair in combinations(range(len(units.annotators)), 2)]
    # The mean is over the pairs that have a κ in the whole sample.
    yield ALL, ALL, "rater_kappa", _estimate(mean_of_defined(np.stack(by_pair, axis=1)), n_tasks, confidence)


def _measure_raters(raters: pl.DataFrame, condition: str) -> Iterator[_Figure]:
    """Yield what the raters' quality comes to."""
    for name, metric in (("attention_passed", "rater_attention"), ("self_consistency", "rater_self_consistency")):
        values = raters[name].drop_nulls()
        mean = float(values.mean()) if len(values) else None  # type: ignore[arg-type]
        yield ALL, ALL, metric, Estimate(mean, None, None, len(values))
    seconds = raters["median_seconds"].drop_nulls()
    median = float(seconds.median()) if len(seconds) else None  # type: ignore[arg-type]
    yield ALL, ALL, "rater_median_seconds", Estimate(median, None, None, len(seconds))
    if condition == EVERYBODY:
        n_excluded = float(raters["excluded"].sum())
        yield ALL, ALL, "raters_excluded", Estimate(n_excluded, None, None, raters.height)


def _compare_methods(
    ratings: pl.DataFrame, key: pl.DataFrame, condition: str, confidence: float
) -> list[dict[str, Any]]:
    """Return the COMPARISONS rows of all pairs of methods of the set."""
    of_set = set(key.filter(pl.col("kind") == "rating")["method"])
    rows = []
    for method_a, method_b in combinations([method for method in LADDER if method in of_set], 2):
        differences = pair_differences(ratings, method_a, method_b)
        found = compare_crossed(differences)
        low, high = found.interval(confidence)
        values = (found.difference, low, high, found.effect_size, found.p_value)
        difference, low, high, effect, p_value = (none_if_nan(float(value)) for value in values)
        rows.append(
            {
                "method_a": method_a,
                "method_b": method_b,
                "decision": "sampled",
                "metric": "human_attribution_accuracy",
                "condition": condition,
                "group_size": _group_size(key),
                "difference": difference,
                "ci_low": low,
                "ci_high": high,
                "effect_size": effect,
                "p_value": p_value,
                "n": int(found.n_units),
                "n_seeds": _count_seeds(key, method_a),
            }
        )
    p_values = np.array([np.nan if row["p_value"] is None else row["p_value"] for row in rows])
    return [row | {"p_holm": none_if_nan(float(p))} for row, p in zip(rows, holm_adjust(p_values), strict=True)]


def _with_whole(n: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Return the whole sample and under it resamples of it, [1 + B, n]."""
    if n == 0:
        return np.zeros((1 + n_bootstrap, 0), dtype=int)
    return np.concatenate([np.ones((1, n), dtype=int), resample_counts(n, n_bootstrap, rng)])


def _estimate(replicates: np.ndarray, n: int, confidence: float) -> Estimate:
    """Return the first replicate as the value, with the interval of the others."""
    if np.isnan(replicates[0]):
        return Estimate(None, None, None, n)
    low, high = percentile_interval(replicates[1:], confidence)
    return Estimate(float(replicates[0]), none_if_nan(low), none_if_nan(high), n)


def _group_size(key: pl.DataFrame) -> int | None:
    """Return how many explanations a rated task shows."""
    sizes = key.filter(pl.col("kind") == "rating")["item_ids"].list.len()
    return int(sizes.max()) if len(sizes) else None  # type: ignore[arg-type]


def _count_seeds(key: pl.DataFrame, method: str) -> int:
    """Return the number of seeds of a method's text; of all methods' generated text, 1 where there is none."""
    of_method = pl.col("method") != HUMAN if method == ALL else pl.col("method") == method
    return max(1, key.filter((pl.col("kind") == "rating") & of_method)["seed"].n_unique())


def _to_metric(
    method: str, annotator: str, metric: str, estimate: Estimate, condition: str, key: pl.DataFrame
) -> dict[str, Any]:
    return {
        "method": method,
        "annotator_id": annotator,
        "decision": None if method in (HUMAN, ALL) else "sampled",
        "metric": metric,
        "condition": condition,
        "group_size": _group_size(key),
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n": estimate.n,
        "n_seeds": _count_seeds(key, method),
    }
