"""Human raters against LLM judges, on the groups both attributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from capo_core.agreement.pairs import confusions, kappas
from capo_core.agreement.ratings import read_ratings as read_units
from capo_core.judging.groups import HUMAN
from capo_core.judging.intervals import none_if_nan
from capo_core.seeding import derive_seed
from capo_core.statistics.significance import percentile_interval, resample_counts
from schemas.frames import METRICS, check_columns

ALL = "all"

_Group = tuple[str, int, str, tuple[str, ...]]  # method, seed, annotator, items


def compare_with_judges(
    ratings: pl.DataFrame,
    verdicts: pl.DataFrame,
    *,
    seed: int,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Return how far raters and each judge attribute the same groups alike, a METRICS frame; `classifier` is the judge.

    A group (method, seed, annotator, items) counts where both have a verdict on it: the annotator whom most raters
    name, and whom most of the judge's orders name; a tie on either side is none. Per method and over `all`:
    `human_judge_agreement`, the share of groups with equal verdicts, and `human_judge_kappa`, Cohen's κ of the two.
    n counts the groups; intervals resample them. A figure without a group is null. Rows are sorted by judge, method
    and metric.

    Args:
        ratings: RATINGS; attention checks and repeats do not enter.
        verdicts: VERDICTS; attributions of text that is not normalised are used.
        seed: of the bootstrap.
        n_bootstrap: resamples.
        confidence: of the intervals.
    """
    rated = ratings.filter((pl.col("kind") == "rating") & (pl.col("answer") != ""))
    of_raters = _vote(rated.select("method", "seed", "author_id", "item_ids", "annotator_id").iter_rows())
    attributed = verdicts.filter(
        (pl.col("protocol") == "attribution") & (pl.col("normalisation") == "none") & (pl.col("status") == "ok")
    )
    rows = []
    for judge in sorted(verdicts["judge"].unique()):
        own = attributed.filter(pl.col("judge") == judge)
        of_judge = _vote(own.select("method", "seed", "annotator_id", "item_ids", "verdict").iter_rows())
        common = sorted(of_raters.keys() & of_judge.keys())
        for method in [*sorted(rated["method"].unique()), ALL]:
            groups = [group for group in common if method in (group[0], ALL)]
            pairs = [(of_raters[group], of_judge[group]) for group in groups]
            for metric, replicates in _measure(pairs, derive_seed(seed, "judge agreement", method), n_bootstrap):
                rows.append(_to_metric(judge, method, groups, metric, replicates, confidence))
    frame = pl.DataFrame(rows, schema=METRICS).sort("classifier", "method", "metric")
    return check_columns(frame, METRICS, "judge agreement")


def _to_metric(
    judge: str, method: str, groups: list[_Group], metric: str, replicates: np.ndarray, confidence: float
) -> dict[str, Any]:
    low, high = percentile_interval(replicates[1:], confidence)
    return {
        "method": method,
        "annotator_id": ALL,
        "decision": None if method in (HUMAN, ALL) else "sampled",
        "metric": metric,
        "condition": "raw",
        "classifier": judge,
        "group_size": max((len(items) for *_, items in groups), default=None),
        "value": none_if_nan(float(replicates[0])),
        "ci_low": none_if_nan(low),
        "ci_high": none_if_nan(high),
        "n": len(groups),
        "n_seeds": len({group[1] for group in groups}),
    }


def _vote(rows: Iterable[tuple[Any, ...]]) -> Mapping[_Group, str]:
    """Return whom each group is attributed to most often; groups with a tie are left out."""
    named: dict[_Group, Counter[str]] = {}
    for method, seed, annotator, item_ids, verdict in rows:
        # The order of items within a group is not part of what was judged.
        named.setdefault((method, seed, annotator, tuple(sorted(item_ids))), Counter())[verdict] += 1
    votes = {}
    for group, counts in named.items():
        (first, n_first), *others = counts.most_common()
        if not others or others[0][1] < n_first:
            votes[group] = first
    return votes


def _measure(pairs: list[tuple[str, str]], seed: int, n_bootstrap: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each figure of the whole sample and of every resample of groups, [1 + B]."""
    if not pairs:
        for metric in ("human_judge_agreement", "human_judge_kappa"):
            yield metric, np.full(1 + n_bootstrap, np.nan)
        return
    n = len(pairs)
    draws = resample_counts(n, n_bootstrap, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, n), dtype=int), draws])
    equal = np.array([float(a == b) for a, b in pairs])
    yield "human_judge_agreement", weights @ equal / n
    rows = [
        {"item_id": f"{number:09d}", "annotator_id": who, "label": label}
        for number, pair in enumerate(pairs)
        for who, label in zip(("judge", "raters"), reversed(pair), strict=True)
    ]
    units = read_units(pl.DataFrame(rows), "nominal")
    yield "human_judge_kappa", kappas(confusions(units, (0, 1), weights))
