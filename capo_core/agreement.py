"""How far annotators agree: Krippendorff's α, Cohen's κ and percent agreement, with intervals over items.

One annotator gives an item one label here. A slot (item, annotator) with several different labels has no single
value for any of these coefficients: it is taken as missing, as a slot without a label is, and
`count_multiple_label_slots` says how many there were. The same label given twice counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.evaluation.significance import percentile_interval, resample_counts
from schemas.frames import AGREEMENT, check_columns

Level = Literal["nominal", "ordinal", "interval"]

_LEVELS_REPORTED: dict[Level, tuple[Level, ...]] = {
    "nominal": ("nominal",),
    "ordinal": ("ordinal", "nominal", "interval"),
    "interval": ("interval", "nominal", "ordinal"),
}


@dataclass(frozen=True)
class Ratings:
    """One label per item and annotator, coded.

    Attributes:
        codes: [I, A] index into `values`, -1 where there is no single label.
        values: the labels that occur, sorted; as numbers for ordinal and interval labels.
        annotators: names of the columns, sorted.
    """

    codes: np.ndarray
    values: tuple[str, ...] | tuple[float, ...]
    annotators: tuple[str, ...]


def krippendorff_alpha(annotations: pl.DataFrame, level: Level = "nominal") -> float:
    """Return Krippendorff's α = 1 - D_o / D_e.

    With o_ck the coincidences of values c and k (each item with m labels adds its ordered pairs, each with weight
    1 / (m - 1)), n_c their marginals and n their sum::

        α = 1 - (n - 1) Σ_ck o_ck δ²_ck / Σ_ck n_c n_k δ²_ck

    δ² is 0 or 1 (nominal), (c - k)² (interval), or the squared distance of the mid-ranks of c and k among all pairable
    values (ordinal). Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*.

    Args:
        annotations: columns item_id, annotator_id, label; null labels and slots with several labels are missing.
            At level ordinal or interval every label is a number.
        level: level of measurement.

    Returns:
        α, at most 1; NaN where it is undefined: no item with two labels, or all pairable labels the same.

    Raises:
        CorpusError: if a label is not a number at level ordinal or interval.
    """
    ratings = _read_ratings(annotations, numeric=level != "nominal")
    return float(_alphas(_coincidences(ratings).sum(axis=0, keepdims=True), ratings.values, level)[0])


def count_multiple_label_slots(annotations: pl.DataFrame) -> int:
    """Return the number of slots (item, annotator) with several different labels, which agreement takes as missing."""
    return int(_labels_per_slot(annotations).filter(pl.col("n_labels") > 1).height)


def agreement_table(
    annotations: pl.DataFrame,
    level: Level,
    *,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> pl.DataFrame:
    """Return all agreement figures with percentile bootstrap intervals over items.

    A resample draws items with replacement and takes all labels of each along; resamples in which a coefficient is
    undefined are left out of its interval.

    Args:
        annotations: columns item_id, annotator_id, label, as for `krippendorff_alpha`.
        level: level of measurement of the labels.
        n_bootstrap: resamples.
        confidence: of the intervals, in (0, 1).
        seed: of the resamples.

    Returns:
        Columns of `schemas.frames.AGREEMENT`: α at `level` (for ordinal labels then also nominal and interval),
        percent agreement over all pairs of labels of one item, then Cohen's κ (unweighted) and percent agreement for
        each pair of annotators. An undefined value is null, and so are its bounds.

    Raises:
        CorpusError: if there are fewer than two annotators, or a label is not a number at level ordinal or interval.
    """
    ratings = _read_ratings(annotations, numeric=level != "nominal")
    if len(ratings.annotators) < 2:
        raise CorpusError(
            f"agreement needs at least two annotators, the annotations have {len(ratings.annotators)}: "
            f"{list(ratings.annotators)}"
        )
    n_items = len(ratings.codes)
    counts = np.ones((1, n_items), dtype=int)
    if n_items:
        resampled = resample_counts(n_items, n_bootstrap, np.random.default_rng(seed))
        counts = np.concatenate([counts, resampled])  # the first row is the sample itself: the point estimate
    rows = _overall_rows(ratings, level, counts, confidence) + _pairwise_rows(ratings, counts, confidence)
    return check_columns(pl.DataFrame(rows, schema=AGREEMENT, orient="row"), AGREEMENT, "agreement")


def _labels_per_slot(annotations: pl.DataFrame) -> pl.DataFrame:
    """Return item_id, annotator_id, label (one of them) and n_labels of every slot with a label, sorted."""
    return (
        annotations.filter(pl.col("label").is_not_null())
        .group_by("item_id", "annotator_id")
        .agg(pl.col("label").min(), pl.col("label").n_unique().alias("n_labels"))
        .sort("item_id", "annotator_id")
    )


def _read_ratings(annotations: pl.DataFrame, *, numeric: bool) -> Ratings:
    """Return the coded labels; annotators without any single label keep a column."""
    slots = _labels_per_slot(annotations).filter(pl.col("n_labels") == 1)
    annotators = tuple(annotations["annotator_id"].unique().sort().to_list())
    labels = slots["label"].to_list()
    read = [_as_number(label) for label in labels] if numeric else labels
    values = tuple(sorted(set(read)))
    items = slots["item_id"].unique().sort().to_list()
    codes = np.full((len(items), len(annotators)), -1)
    rows, columns, coded = ({name: i for i, name in enumerate(names)} for names in (items, annotators, values))
    for item, annotator, value in zip(slots["item_id"], slots["annotator_id"], read, strict=True):
        codes[rows[item], columns[annotator]] = coded[value]
    return Ratings(codes=codes, values=values, annotators=annotators)


def _as_number(label: str) -> float:
    """Return the label as a number."""
    try:
        return float(label)
    except ValueError:
        raise CorpusError(
            f"label {label!r} is not a number, so agreement at level ordinal or interval has no meaning; "
            "use level nominal or correct the task's label type"
        ) from None


def _value_counts(ratings: Ratings) -> np.ndarray:
    """Return how often each value stands on each item, [I, V]."""
    return (ratings.codes[:, :, None] == np.arange(len(ratings.values))).sum(axis=1)


def _coincidences(ratings: Ratings) -> np.ndarray:
    """Return each item's coincidence matrix, [I, V, V]: (n_c n_k - [c = k] n_c) / (m - 1), zero for m < 2."""
    counts = _value_counts(ratings).astype(float)
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(counts.shape[1])
    pairs[:, diagonal, diagonal] -= counts
    return pairs / np.maximum(counts.sum(axis=1) - 1.0, 1.0)[:, None, None]


def _alphas(coincidences: np.ndarray, values: Sequence[str] | Sequence[float], level: Level) -> np.ndarray:
    """Return α of each coincidence matrix, [B, V, V] -> [B]; NaN where undefined."""
    marginals = coincidences.sum(axis=2)  # [B, V]
    n = marginals.sum(axis=1)
    distances = _squared_distances(marginals, values, level)
    observed = (coincidences * distances).sum(axis=(1, 2))
    expected = (marginals[:, :, None] * marginals[:, None, :] * distances).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1.0 - (n - 1.0) * observed / expected, np.nan)


def _squared_distances(marginals: np.ndarray, values: Sequence[str] | Sequence[float], level: Level) -> np.ndarray:
    """Return δ² between all pairs of values, [B or 1, V, V].

    Krippendorff's ordinal δ_ck = Σ_{g=c..k} n_g - (n_c + n_k) / 2 is the distance of the values' mid-ranks.
    """
    if level == "nominal":
        return 1.0 - np.eye(len(values))[None]
    if level == "interval":
        positions = np.asarray(values, dtype=float)[None]
    else:
        positions = np.cumsum(marginals, axis=1) - marginals / 2.0
    return (positions[:, :, None] - positions[:, None, :]) ** 2


def _overall_rows(ratings: Ratings, level: Level, counts: np.ndarray, confidence: float) -> list[tuple]:
    """Return the rows of α at every level reported and of percent agreement over all annotators."""
    per_item = _coincidences(ratings)
    summed = np.tensordot(counts, per_item, axes=1)
    value_counts = _value_counts(ratings)
    per_label = value_counts.sum(axis=1)
    n_items, n_annotations = int((per_label >= 2).sum()), int(per_label[per_label >= 2].sum())
    rows = [
        (f"krippendorff_alpha_{name}", None, None, *_estimate(_alphas(summed, ratings.values, name), confidence))
        for name in _LEVELS_REPORTED[level]
    ]
    agreeing = (value_counts * (value_counts - 1)).sum(axis=1) / 2
    pairs = per_label * (per_label - 1) / 2
    rows.append(("percent_agreement", None, None, *_estimate(_shares(counts @ agreeing, counts @ pairs), confidence)))
    return [(*row, n_items, n_annotations) for row in rows]


def _pairwise_rows(ratings: Ratings, counts: np.ndarray, confidence: float) -> list[tuple]:
    """Return the rows of Cohen's κ and percent agreement of every pair of annotators."""
    rows: list[tuple] = []
    for a, b in combinations(range(len(ratings.annotators)), 2):
        shared = (ratings.codes[:, a] >= 0) & (ratings.codes[:, b] >= 0)
        n_values, n_items = len(ratings.values), int(shared.sum())
        cells = np.zeros((len(ratings.codes), n_values * n_values))
        cells[np.flatnonzero(shared), (ratings.codes[:, a] * n_values + ratings.codes[:, b])[shared]] = 1.0
        confusions = (counts @ cells).reshape(len(counts), n_values, n_values)
        agreed = _shares(np.trace(confusions, axis1=1, axis2=2), confusions.sum(axis=(1, 2)))
        for metric, replicates in (("cohen_kappa", _kappas(confusions)), ("percent_agreement", agreed)):
            names = (ratings.annotators[a], ratings.annotators[b])
            rows.append((metric, *names, *_estimate(replicates, confidence), n_items, 2 * n_items))
    return rows


def _kappas(confusions: np.ndarray) -> np.ndarray:
    """Return Cohen's κ = (p_o - p_e) / (1 - p_e) of each confusion matrix, [B, V, V] -> [B] (Cohen 1960).

    NaN where there is no item, or where both annotators gave one and the same label throughout.
    """
    n = confusions.sum(axis=(1, 2))
    observed = _shares(np.trace(confusions, axis1=1, axis2=2), n)
    chance = _shares((confusions.sum(axis=1) * confusions.sum(axis=2)).sum(axis=1), n * n)
    return _shares(observed - chance, 1.0 - chance)


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Return parts / wholes, NaN where the whole is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(wholes > 0, parts / wholes, np.nan)


def _estimate(replicates: np.ndarray, confidence: float) -> tuple[float | None, float | None, float | None]:
    """Return value and bounds of replicates whose first entry is the sample itself; None for what is undefined."""
    if np.isnan(replicates[0]):
        return None, None, None
    low, high = (None if np.isnan(bound) else bound for bound in percentile_interval(replicates[1:], confidence))
    return float(replicates[0]), low, high
