"""Every agreement figure of a corpus in one table, with bootstrap intervals over items.

Notation: B weightings of the items (the first of which takes the sample as it is), I items, A annotators, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from capo_core.agreement.alpha import pairable_values, weighted_alphas
from capo_core.agreement.pairs import agreed_shares, confusions, kappas, shares, squared_differences
from capo_core.agreement.ratings import NUMERIC_LEVELS, Level, Ratings, read_ratings
from capo_core.errors import CorpusError
from capo_core.label_distributions import (
    jensen_shannon_divergence,
    label_entropies,
    normalised_label_entropies,
)
from capo_core.statistics.significance import mean_of_defined, percentile_interval, resample_counts
from schemas.frames import AGREEMENT, check_columns

N_SHUFFLES = 200
"""Shufflings of annotators within items that make the floor of the divergence."""
_PAIRS_AT_ONCE = 64

_LEVELS_REPORTED: dict[Level, tuple[Level, ...]] = {
    "nominal": ("nominal",),
    "ordinal": ("ordinal", "nominal", "interval"),
    "interval": ("interval", "nominal", "ordinal"),
    "masi": ("masi", "nominal"),
}

Bounded = tuple[float | None, float | None, float | None]
"""Value, ci_low and ci_high; None for what is undefined."""


@dataclass(frozen=True)
class _Sample:
    """The labels with the weightings of their items: counts [B, I], and the confidence of the intervals."""

    ratings: Ratings
    counts: np.ndarray
    confidence: float


def agreement_table(
    annotations: pl.DataFrame,
    level: Level,
    *,
    multiple_labels: bool = False,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> pl.DataFrame:
    """Return all agreement figures with percentile bootstrap intervals over items.

    A resample draws items with replacement and takes all labels of each along; resamples in which a figure is
    undefined are left out of its interval. The divergence of two samples grows with resampling noise, so the mean by
    which its replicates exceed the value is taken from its bounds (the bootstrap estimate of bias, Efron and
    Tibshirani 1993, chapter 10); they stay within 0 and 1.

    Args:
        annotations: columns item_id, annotator_id, label. Null labels are missing; slots with several labels are
            missing to α at the levels nominal, ordinal and interval, to κ and to percent agreement, whereas α at level
            masi takes them as sets, and entropy and divergence count every label.
        level: level of measurement of the labels.
        multiple_labels: whether an annotator may give several labels; then, and where one did, α at level masi too.
        n_bootstrap: resamples.
        confidence: of the intervals, in (0, 1).
        seed: of the resamples and of the shuffles.

    Returns:
        Columns of `schemas.frames.AGREEMENT`. First over all annotators: α at `level` (for ordinal labels then also
        nominal and interval; masi where it applies), percent agreement over all pairs of labels of one item, mean
        label entropy of the items, in bits and as a share of the largest possible (`label_entropy_normalised`), mean
        divergence of the pairs, and its floor `label_jsd_shuffled`: mean and quantiles over shuffles of the annotators
        within items. Then for each pair, over the items both labelled: Cohen's κ, for numeric labels also with
        quadratic weights, percent agreement, and the Jensen-Shannon divergence of their label distributions. An
        undefined value is null, and so are its bounds.

    Raises:
        CorpusError: if there are fewer than two annotators, or a label is not a number at level ordinal or interval.
    """
    ratings = read_ratings(annotations, level)
    if len(ratings.annotators) < 2:
        raise CorpusError(
            f"agreement needs at least two annotators, the annotations have {len(ratings.annotators)}: "
            f"{list(ratings.annotators)}"
        )
    n_items = len(ratings.items)
    counts = np.ones((1, n_items), dtype=int)
    if n_items:
        resampled = resample_counts(n_items, n_bootstrap, np.random.default_rng(seed))
        counts = np.concatenate([counts, resampled])
    sample = _Sample(ratings, counts, confidence)
    levels = _LEVELS_REPORTED[level]
    if (multiple_labels or ratings.has_multiple_label_slots()) and "masi" not in levels:
        levels = (*levels, "masi")
    rows = [*_alpha_rows(sample, levels), *_entropy_rows(sample), *_divergence_rows(sample, seed)]
    rows += _pairwise_rows(sample, weighted=level in NUMERIC_LEVELS)
    return check_columns(pl.DataFrame(rows, schema=AGREEMENT, orient="row"), AGREEMENT, "agreement")


def _alpha_rows(sample: _Sample, levels: tuple[Level, ...]) -> list[tuple]:
    """Return the rows of α at every level, and of percent agreement over all annotators."""
    ratings, counts = sample.ratings, sample.counts
    rows = []
    for level in levels:
        estimate = _estimate(weighted_alphas(ratings, level, counts), sample.confidence)
        codes, _ = pairable_values(ratings, level)
        rows.append((f"krippendorff_alpha_{level}", None, None, *estimate, *_count_pairable(codes >= 0)))
    estimate = _estimate(agreed_shares(ratings, counts), sample.confidence)
    n_pairable = _count_pairable(ratings.single_codes() >= 0)
    return [*rows, ("percent_agreement", None, None, *estimate, *n_pairable)]


def _count_pairable(filled: np.ndarray) -> tuple[int, int]:
    """Return the number of items with at least two filled slots, and of those slots; [I, A] booleans."""
    per_item = filled.sum(axis=1)
    return int((per_item >= 2).sum()), int(per_item[per_item >= 2].sum())


def _entropy_rows(sample: _Sample) -> list[tuple]:
    """Return the rows of the mean label entropy of items labelled by at least two annotators."""
    labels = sample.ratings.given.sum(axis=1)  # [I, L]
    shared = sample.ratings.filled().sum(axis=1) >= 2
    rows = []
    for metric, entropies in (
        ("label_entropy", label_entropies(labels)),
        ("label_entropy_normalised", normalised_label_entropies(labels)),
    ):
        defined = shared & ~np.isnan(entropies)
        totals = sample.counts @ np.where(defined, entropies, 0.0)
        estimate = _estimate(shares(totals, sample.counts @ defined), sample.confidence)
        rows.append((metric, None, None, *estimate, int(defined.sum()), int(labels[defined].sum())))
    return rows


def _divergence_rows(sample: _Sample, seed: int) -> list[tuple]:
    """Return the rows of the pairs' mean divergence and of its floor under annotators shuffled within items."""
    given, filled = sample.ratings.given, sample.ratings.filled()
    pairs = list(combinations(range(filled.shape[1]), 2))
    divergences = _divergences(given, pairs, sample.counts)
    estimate = _divergence_estimate(mean_of_defined(divergences), sample.confidence)
    rng = np.random.default_rng([seed, 1])
    whole = sample.counts[:1]
    shuffled = np.full(N_SHUFFLES, np.nan)
    for number in range(N_SHUFFLES):
        swapped = _shuffle_annotators(given, rng)
        shuffled[number] = mean_of_defined(_divergences(swapped, pairs, whole))[0]
    floor = float(shuffled.mean())
    low, high = percentile_interval(shuffled, sample.confidence)
    shared = filled.sum(axis=1) >= 2
    n_items, n_labels = int(shared.sum()), int(given[shared].sum())
    return [
        ("label_jsd", None, None, *estimate, n_items, n_labels),
        ("label_jsd_shuffled", None, None, *(_none_if_nan(x) for x in (floor, low, high)), n_items, n_labels),
    ]


def _divergences(given: np.ndarray, pairs: Sequence[tuple[int, int]], counts: np.ndarray) -> np.ndarray:
    """Return the divergence of two annotators' labels on the items both labelled, per weighting, [B, I] -> [B, pairs].

    Fifty annotators are 1,225 pairs: the divergences of many are taken at once.
    """
    found = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        sides = [_sum_shared(given, pair, counts) for pair in pairs[start : start + _PAIRS_AT_ONCE]]
        found.append(jensen_shannon_divergence(*(np.stack(side, axis=1) for side in zip(*sides, strict=True))))
    return np.concatenate(found, axis=1)


def _sum_shared(given: np.ndarray, pair: tuple[int, int], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both annotators' numbers of labels on the items both labelled, per weighting, each [B, L]."""
    a, b = given[:, pair[0]], given[:, pair[1]]
    shared = a.any(axis=1) & b.any(axis=1)
    weights = counts[:, shared]
    return weights @ a[shared], weights @ b[shared]


def _shuffle_annotators(given: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the labels with the annotators permuted within every item, among those who labelled it, [I, A, L]."""
    absent = ~given.any(axis=2)
    # Those who gave no label sort last in both orders, so that they keep their empty slots.
    places = np.argsort(absent, axis=1, kind="stable")
    drawn = np.argsort(2.0 * absent + rng.random(absent.shape), axis=1)
    swapped = np.empty_like(given)
    rows = np.arange(len(given))[:, None]
    swapped[rows, places] = given[rows, drawn]
    return swapped


def _pairwise_rows(sample: _Sample, *, weighted: bool) -> list[tuple]:
    """Return the rows of Cohen's κ, percent agreement and divergence of every pair of annotators."""
    ratings = sample.ratings
    distances = squared_differences(ratings.labels) if weighted else None
    rows: list[tuple] = []
    for pair in combinations(range(len(ratings.annotators)), 2):
        names = tuple(ratings.annotators[i] for i in pair)
        tables = confusions(ratings, pair, sample.counts)
        n_items = int(tables[0].sum())
        figures = {"cohen_kappa": kappas(tables)}
        if distances is not None:
            figures["cohen_kappa_quadratic"] = kappas(tables, distances)
        figures["percent_agreement"] = shares(np.trace(tables, axis1=1, axis2=2), tables.sum(axis=(1, 2)))
        rows += [
            (metric, *names, *_estimate(replicates, sample.confidence), n_items, 2 * n_items)
            for metric, replicates in figures.items()
        ]
        both = ratings.filled()[:, pair].sum(axis=1) == 2
        estimate = _divergence_estimate(_divergences(ratings.given, [pair], sample.counts)[:, 0], sample.confidence)
        rows.append(("label_jsd", *names, *estimate, int(both.sum()), int(ratings.given[both][:, pair].sum())))
    return rows


def _estimate(replicates: np.ndarray, confidence: float) -> Bounded:
    """Return value and bounds of replicates whose first entry is the sample itself."""
    if np.isnan(replicates[0]):
        return None, None, None
    low, high = percentile_interval(replicates[1:], confidence)
    return float(replicates[0]), _none_if_nan(low), _none_if_nan(high)


def _divergence_estimate(replicates: np.ndarray, confidence: float) -> Bounded:
    """Return value and bounds of divergences, the bounds freed of the bias that resampling adds."""
    defined = replicates[1:][~np.isnan(replicates[1:])]
    bias = defined.mean() - replicates[0] if defined.size else 0.0
    return _estimate(np.concatenate([replicates[:1], np.clip(replicates[1:] - bias, 0.0, 1.0)]), confidence)


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
