"""Agreement between two annotators: Cohen's κ, unweighted or quadratically weighted, and percent agreement.

Notation: B weightings of the items, I items, V values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from capo_core.agreement.ratings import Ratings, read_ratings, value_counts
from capo_core.errors import CorpusError


def cohen_kappa(
    annotations: pl.DataFrame, annotator_a: str, annotator_b: str, weights: Literal["quadratic"] | None = None
) -> float:
    """Return Cohen's κ of two annotators over the items to which both gave a single label; see `kappas`.

    Args:
        annotations: columns item_id, annotator_id, label; null labels and slots with several labels are missing.
        annotator_a: one of the annotator ids.
        annotator_b: another.
        weights: quadratic weights disagreement by the squared difference of the labels, which then are numbers.

    Returns:
        κ, at most 1; NaN where it is undefined: no shared item, or one and the same label throughout.

    Raises:
        CorpusError: if an annotator does not occur, or a label is not a number for quadratic weights.
    """
    ratings = read_ratings(annotations, "nominal" if weights is None else "interval")
    missing = sorted({annotator_a, annotator_b} - set(ratings.annotators))
    if missing:
        raise CorpusError(f"the annotations have no annotator {missing}; they have {list(ratings.annotators)}")
    pair = (ratings.annotators.index(annotator_a), ratings.annotators.index(annotator_b))
    tables = confusions(ratings, pair, np.ones((1, len(ratings.items))))
    distances = None if weights is None else squared_differences(ratings.labels)
    return float(kappas(tables, distances)[0])


def percent_agreement(annotations: pl.DataFrame) -> float:
    """Return the share of equal labels among all pairs of labels that two annotators gave to one item.

    Args:
        annotations: columns item_id, annotator_id, label; null labels and slots with several labels are missing.

    Returns:
        A share; NaN where no item has two labels.
    """
    ratings = read_ratings(annotations, "nominal")
    return float(agreed_shares(ratings, np.ones((1, len(ratings.items))))[0])


def confusions(ratings: Ratings, pair: tuple[int, int], weights: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of two annotators under each weighting of the items, [B, I] -> [B, V, V].

    Args:
        ratings: the labels.
        pair: columns of the two annotators; rows of the matrix are the first one's labels.
        weights: [B, I].
    """
    codes = ratings.single_codes()
    a, b = codes[:, pair[0]], codes[:, pair[1]]
    shared = np.flatnonzero((a >= 0) & (b >= 0))
    n_values = len(ratings.labels)
    cells = np.zeros((len(codes), n_values * n_values))
    cells[shared, a[shared] * n_values + b[shared]] = 1.0
    return (weights @ cells).reshape(len(weights), n_values, n_values)


def kappas(tables: np.ndarray, distances: np.ndarray | None = None) -> np.ndarray:
    """Return Cohen's κ = 1 - Σ_ck w_ck o_ck / Σ_ck w_ck e_ck of each confusion matrix, [B, V, V] -> [B].

    o are the shares observed, e the products of the annotators' own shares. Unweighted, w is 1 off the diagonal, so
    that κ = (p_o - p_e) / (1 - p_e) (Cohen 1960); weighted, w is any distance of labels (Cohen 1968).

    Args:
        tables: confusion matrices.
        distances: [V, V]; None for the unweighted κ.

    Returns:
        [B]; NaN where there is no item, or where no disagreement was to be expected.
    """
    weights = 1.0 - np.eye(tables.shape[1]) if distances is None else distances
    n = tables.sum(axis=(1, 2))
    observed = (tables * weights).sum(axis=(1, 2)) * n
    expected = np.einsum("bc,bk,ck->b", tables.sum(axis=2), tables.sum(axis=1), weights)
    return 1.0 - shares(observed, expected)


def agreed_shares(ratings: Ratings, weights: np.ndarray) -> np.ndarray:
    """Return the share of equal pairs of labels under each weighting of the items, [B, I] -> [B]; NaN without any."""
    counts = value_counts(ratings.single_codes(), len(ratings.labels))
    n_labels = counts.sum(axis=1)
    return shares(weights @ (counts * (counts - 1)).sum(axis=1), weights @ (n_labels * (n_labels - 1)))


def squared_differences(labels: Sequence[str] | Sequence[float]) -> np.ndarray:
    """Return (c - k)² between all pairs of numeric labels, [V, V]."""
    numbers = np.asarray(labels, dtype=float)
    return (numbers[:, None] - numbers[None, :]) ** 2


def shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Return parts / wholes, NaN where the whole is not positive."""
    return np.divide(parts, wholes, out=np.full(np.shape(parts), np.nan), where=wholes > 0)
