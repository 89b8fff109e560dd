"""Whether single explanations are attributed better than if their authors were exchangeable within items.

The null hypothesis is that, given an item (or an item and a label), who wrote which of its explanations is random. The
classifier's verdicts on the explanations are taken as given and the authors are permuted, so ten thousand permutations
cost no training. That is a test of the stated level only if the verdicts do not depend on the authors permuted. Under
ordinary cross-validation they do, through the training of the other folds: two explanations with a chance habit in
common teach each other their authors, and where there is no style the accuracy then spreads more than the permutations
(VariErr text, authors shuffled: by a third). Verdicts must therefore come from a chain, every fold judged by the model
of the folds before it (`capo_core.stylometry.folding.chained_splits`): given the earlier folds' authors, a fold's
verdicts are fixed and its authors exchangeable, and the folds' contributions are uncorrelated.
"""

from __future__ import annotations

import numpy as np

from capo_core.stylometry.controls import draw_within_items
from capo_core.stylometry.design import encode

_CHUNK = 256


def permute_within_blocks(
    owners: np.ndarray, blocks: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Return `n_permutations` permutations of the owners within blocks, [P, n].

    Args:
        owners: [n] annotator indices, fewer than 128.
        blocks: [n] block of every row, e.g. its item.
        n_permutations: P.
        rng: of the permutations.
    """
    codes, compact = encode(blocks), owners.astype(np.int8)
    permuted = np.empty((n_permutations, len(owners)), dtype=np.int8)
    for start in range(0, n_permutations, _CHUNK):
        size = min(_CHUNK, n_permutations - start)
        permuted[start : start + size] = compact[draw_within_items(codes, size, rng)]
    return permuted


def exchangeability_p_value(verdicts: np.ndarray, owners: np.ndarray, permuted: np.ndarray) -> float:
    """Return the one-sided permutation p-value of the attribution accuracy of single explanations.

    p = (1 + #{T_π ≥ T}) / (1 + P), T the mean over annotators of the share of their explanations attributed to them
    (Phipson and Smyth 2010 for the added ones).

    Args:
        verdicts: [n] candidate each explanation is attributed to, -1 where it was not judged.
        owners: [n] who wrote it.
        permuted: [P, n] owners permuted within blocks that are judged wholly or not at all.

    Returns:
        p in (0, 1]; NaN where nothing was judged.
    """
    judged = verdicts >= 0
    if not judged.any():
        return float("nan")
    verdicts, owners, permuted = verdicts[judged], owners[judged], permuted[:, judged]
    counts = np.bincount(owners, minlength=verdicts.max() + 1)
    weights = 1.0 / np.maximum(counts, 1)
    # Where owner and verdict agree, the owner's weight is the verdict's.
    observed = (owners == verdicts) @ weights[verdicts]
    null = (permuted == verdicts.astype(np.int8)) @ weights[verdicts]
    return (1 + int(np.count_nonzero(null >= observed - 1e-9))) / (1 + len(permuted))
