"""How one annotator's features differ from those of the others on the same items.

Notation: n rows, I items, A annotators, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capo_core.stylometry.design import encode


@dataclass(frozen=True)
class ItemDifferences:
    """Each annotator beside the others of his items.

    Attributes:
        annotators: [A] sorted.
        own: [I, A, F] mean over the annotator's rows of the item (mostly one).
        others: [I, A, F] mean over the other annotators of their own such means. Both NaN where either is missing.
        squares: [I, F] sum of squares of the item's rows about their mean.
        freedom: [I, F] its degrees of freedom, rows minus 1, at least 0.
    """

    annotators: np.ndarray
    own: np.ndarray
    others: np.ndarray
    squares: np.ndarray
    freedom: np.ndarray

    def standard_deviations(self, item_counts: np.ndarray) -> np.ndarray:
        """Return the pooled standard deviation within items, with every item counted so often, [B, I] -> [B, F].

        NaN where no item has two rows or nothing varies. It includes what annotators differ by, so that a habit that
        separates them completely still has a finite size: with four annotators, one apart from three, at most 2.
        """
        squares, freedom = item_counts @ self.squares, item_counts @ self.freedom
        variances = squares / np.where(freedom > 0, freedom, np.nan)
        return np.sqrt(np.where(variances > 0, variances, np.nan))


def item_differences(features: np.ndarray, owners: np.ndarray, items: np.ndarray) -> ItemDifferences:
    """Return every annotator's features and those of the others, item by item.

    Args:
        features: [n, F], NaN where undefined.
        owners: [n] annotator of every row.
        items: [n] item of every row; their sorted order is that of the result.
    """
    annotators, owner_codes = np.unique(np.asarray(owners), return_inverse=True)
    item_codes = encode(items)
    n_items, n_features = int(item_codes.max(initial=-1)) + 1, features.shape[1]
    slots = _means_by(features, item_codes * len(annotators) + owner_codes.ravel(), n_items * len(annotators))
    slots = slots.reshape(n_items, len(annotators), n_features)
    defined = ~np.isnan(slots)
    n_others = defined.sum(axis=1, keepdims=True) - defined
    sums = np.where(defined, slots, 0.0)
    both = defined & (n_others > 0)
    others = (sums.sum(axis=1, keepdims=True) - sums) / np.where(n_others > 0, n_others, 1)
    item_means = _means_by(features, item_codes, n_items)
    deviations = np.nan_to_num(features - item_means[item_codes]) ** 2
    squares, rows = np.zeros((n_items, n_features)), np.zeros((n_items, n_features))
    np.add.at(squares, item_codes, deviations)
    np.add.at(rows, item_codes, ~np.isnan(features))
    # Equal values leave rounding behind; it must not pass for variation.
    squares[squares <= 1e-24 * np.maximum(1.0, np.nan_to_num(item_means) ** 2) * np.maximum(rows, 1)] = 0.0
    return ItemDifferences(
        annotators, np.where(both, slots, np.nan), np.where(both, others, np.nan), squares, np.maximum(rows - 1, 0)
    )


def _means_by(features: np.ndarray, codes: np.ndarray, n_levels: int) -> np.ndarray:
    """Return the mean of each code's defined values, [n, F] -> [levels, F]; NaN where none."""
    sums, counts = np.zeros((n_levels, features.shape[1])), np.zeros((n_levels, features.shape[1]))
    np.add.at(sums, codes, np.nan_to_num(features))
    np.add.at(counts, codes, ~np.isnan(features))
    return sums / np.where(counts > 0, counts, np.nan)
