"""The floor of every attribution figure: the same explanations with their annotators shuffled within items."""

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
