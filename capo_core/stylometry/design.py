"""The crossed design (item × annotator × label) behind the tests on features, and what is orthogonal to what in it.

Notation: n rows (annotations), F features, I items, A annotators, L labels. The design is unbalanced: annotators skip
items, give one item two labels, and a feature may be undefined for a row. A feature's missing rows are left out, never
filled in; features with the same missing rows share one design.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from capo_core.errors import CorpusError

RANK_TOLERANCE = 1e-9
"""Singular values below this share of the greatest (or below this) count as zero."""


@dataclass(frozen=True)
class Crossing:
    """Who annotated what with which label, as codes.

    Attributes:
        items: [n] code of the item.
        owners: [n] code of the annotator.
        labels: [n] code of the label; all 0 where labels play no part.
        n_annotators: A, of all rows, so that codes keep their meaning in a part of the rows.
    """

    items: np.ndarray
    owners: np.ndarray
    labels: np.ndarray
    n_annotators: int

    def take(self, rows: np.ndarray) -> Crossing:
        """Return the crossing of these rows, items and labels coded anew, annotators as they were."""
        return Crossing(encode(self.items[rows]), self.owners[rows], encode(self.labels[rows]), self.n_annotators)

    def label_basis(self) -> np.ndarray:
        """Return an orthonormal basis of the label indicators within items, [n, r_L]."""
        return orthonormal_basis(centre_within(indicators(self.labels), self.items))

    def annotator_indicators(self, label_basis: np.ndarray) -> np.ndarray:
        """Return the annotator indicators with item and label projected out, [n, A]."""
        centred = centre_within(indicators(self.owners, self.n_annotators), self.items)
        return centred - label_basis @ (label_basis.T @ centred)


def read_crossing(owners: np.ndarray, items: np.ndarray, labels: np.ndarray | None) -> tuple[Crossing, np.ndarray]:
    """Return the design of the rows, and the annotators sorted as coded.

    Args:
        owners: [n] annotator of every row.
        items: [n] item of every row.
        labels: [n] label of every row; None where labels shall play no part.

    Raises:
        CorpusError: if there are fewer than two annotators.
    """
    annotators, owner_codes = np.unique(np.asarray(owners), return_inverse=True)
    if len(annotators) < 2:
        raise CorpusError(f"comparing annotators needs at least two, the annotations are of {annotators.tolist()}")
    label_codes = np.zeros(len(owner_codes), dtype=int) if labels is None else encode(labels)
    return Crossing(encode(items), owner_codes.ravel(), label_codes, len(annotators)), annotators


def encode(values: np.ndarray) -> np.ndarray:
    """Return the values as codes 0, 1, … in ascending order, [n]."""
    return np.unique(np.asarray(values), return_inverse=True)[1].ravel()


def indicators(codes: np.ndarray, n_levels: int | None = None) -> np.ndarray:
    """Return the indicator matrix of the codes, [n, levels]."""
    width = n_levels if n_levels is not None else int(codes.max(initial=-1)) + 1
    return (codes[:, None] == np.arange(width)).astype(float)


def sum_by(matrix: np.ndarray, codes: np.ndarray, n_levels: int) -> np.ndarray:
    """Return the sums of the rows of each code, [n, d] -> [levels, d]."""
    sums = np.zeros((n_levels, matrix.shape[1]))
    np.add.at(sums, codes, matrix)
    return sums


def centre_within(matrix: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return every row minus the mean of its item's rows, [n, d]; `items` are codes 0, 1, …"""
    counts = np.bincount(items)
    return matrix - (sum_by(matrix, items, len(counts)) / counts[:, None])[items]


def orthonormal_basis(matrix: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns' span, [n, d] -> [n, rank]."""
    if matrix.size == 0:
        return np.zeros((len(matrix), 0))
    basis, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    return basis[:, singular > RANK_TOLERANCE * max(1.0, float(singular[0]))]


def missing_patterns(features: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (columns, rows) for each set of features that are defined in the same rows.

    Args:
        features: [n, F], NaN where undefined.
    """
    defined = ~np.isnan(features)
    if defined.size == 0:
        return
    patterns, pattern_of = np.unique(defined, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        yield np.flatnonzero(pattern_of.ravel() == number), np.flatnonzero(patterns[:, number])
