"""What is left by chance: explanations shuffled among the annotators of an item, once or many times."""

from __future__ import annotations

import numpy as np


def shuffle_within_items(owners: np.ndarray, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the owners of the rows permuted at random among the rows of each item; one may keep his own.

    Args:
        owners: [n] annotator of every row.
        items: [n] item of every row.
        rng: of the permutation.
    """
    by_item = np.argsort(items, kind="stable")
    drawn = np.lexsort((rng.random(len(items)), items))
    shuffled = np.empty_like(owners)
    shuffled[by_item] = owners[drawn]
    return shuffled


def draw_within_items(items: np.ndarray, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Return permutations of the rows in which every row stays in its item, [P, n] row indices.

    Args:
        items: [n] item codes.
        n_permutations: P.
        rng: of the permutations, each of an item's orders with equal probability.
    """
    rows = np.argsort(items, kind="stable")
    # Whole part: the item; fraction: the random order in it. Sorting the sums keeps items together.
    drawn = np.argsort(items[rows] + rng.random((n_permutations, len(items))) / 2, axis=1)
    permutations = np.empty_like(drawn)
    permutations[:, rows] = rows[drawn]
    return permutations
