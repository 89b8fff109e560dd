"""Attribution of groups: k explanations by one author, each of another item, given to one annotator together.

A group is attributed to argmax_a Σ_j log p(a | explanation j), the sum over its k members.

Notation: B resamples, I items, C series (one author's explanations, at most one per item), A candidates, k group size.

Intervals resample items: in every resample the groups are drawn anew, each of k *different* items, item i with weight
its multiplicity in the resample. Drawing an item twice into one group would make groups of fewer than k explanations
and bias the resamples downwards; weighting fixed groups by their items misses the higher-order part of the variance.
In simulations at a nominal 95%, this interval held the true accuracy in 94 to 98% of cases for k at most a fifth of
the items, and in about 90% for k = 10 of 24 items; weighting fixed groups held it in 70 to 95%.
"""

from __future__ import annotations

import numpy as np

_CHUNK_CELLS = 8_000_000
_N_REMEMBERED = 64


class GroupSampler:
    """Draws the same groups for every series that has the same items, so that comparisons are paired."""

    def __init__(self, item_counts: np.ndarray, n_groups: int, seed: int) -> None:
        """Remember what to draw.

        Args:
            item_counts: [B, I] multiplicity of every item in every resample.
            n_groups: groups per resample, size and series.
            seed: of the groups.
        """
        self.item_counts = item_counts
        self.n_groups = n_groups
        self._seed = seed
        self._drawn: dict[tuple[bytes, int], np.ndarray] = {}

    def draw(self, available: np.ndarray, group_size: int) -> np.ndarray:
        """Return the items of each group.

        Args:
            available: [I] booleans, the items that groups may contain.
            group_size: k.

        Returns:
            [B, n_groups, k] item indices, different within each group; -1 throughout a resample that has fewer than k
            different available items.
        """
        key = (np.packbits(available).tobytes(), group_size)
        if key not in self._drawn:
            while len(self._drawn) >= _N_REMEMBERED:  # bounds memory; what is forgotten is drawn again, the same
                del self._drawn[next(iter(self._drawn))]
            self._drawn[key] = _draw_groups(
                self.item_counts * available, group_size, self.n_groups, np.random.default_rng([self._seed, group_size])
            )
        return self._drawn[key]


def group_accuracies(
    log_probabilities: np.ndarray, owners: np.ndarray, group_size: int, sampler: GroupSampler
) -> np.ndarray:
    """Return the share of groups attributed to their owner, for every resample and series.

    For k = 1 every explanation is its own group and counts with its item's multiplicity, without sampling.

    Args:
        log_probabilities: [I, C, A]; NaN where the series has no explanation of the item.
        owners: [C] index of the candidate that is right.
        group_size: k, at least 1.
        sampler: draws the groups.

    Returns:
        [B, C]; NaN where a series has fewer than k items in the resample.
    """
    available = np.asarray(np.isfinite(log_probabilities).all(axis=2))
    accuracies = np.full((len(sampler.item_counts), len(owners)), np.nan)
    patterns, pattern_of = np.unique(available, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(pattern_of.ravel() == number)
        items = patterns[:, number]
        if items.sum() < group_size:
            continue
        scores = np.nan_to_num(log_probabilities[:, columns])
        if group_size == 1:
            accuracies[:, columns] = _single_accuracies(scores, owners[columns], sampler.item_counts * items)
        else:
            groups = sampler.draw(items, group_size)
            accuracies[:, columns] = _drawn_accuracies(scores, owners[columns], groups)
    return accuracies


def group_membership(groups: np.ndarray, n_items: int) -> np.ndarray:
    """Return which items stand in each group, [..., k] indices -> [..., I] zeros and ones."""
    flat = groups.reshape(-1, groups.shape[-1])
    membership = np.zeros(len(flat) * n_items, dtype=np.float32)
    membership[(np.arange(len(flat))[:, None] * n_items + flat).ravel()] = 1.0
    return membership.reshape(*groups.shape[:-1], n_items)


def attribution_share(group_scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Return the share of groups whose best candidate is the owner, [..., n_groups, C, A] -> [..., C]."""
    return (group_scores.argmax(axis=-1) == owners).mean(axis=-2)


def _draw_groups(weights: np.ndarray, group_size: int, n_groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return [B, n_groups, k] items drawn without replacement, one after another in proportion to their weights.

    The k smallest of independent exponential times with rates w_i are such a draw (Efraimidis and Spirakis 2006).
    """
    n_resamples, n_items = weights.shape
    groups = np.full((n_resamples, n_groups, group_size), -1, dtype=np.int16 if n_items < 2**15 else np.int32)
    feasible = np.flatnonzero((weights > 0).sum(axis=1) >= group_size)
    step = max(1, _CHUNK_CELLS // (n_groups * n_items))
    for start in range(0, len(feasible), step):
        rows = feasible[start : start + step]
        times = rng.standard_exponential((len(rows), n_groups, n_items), dtype=np.float32)
        times /= np.maximum(weights[rows], 1)[:, None, :].astype(np.float32)
        times += np.where(weights[rows] > 0, 0.0, np.inf)[:, None, :].astype(np.float32)
        groups[rows] = np.argpartition(times, group_size - 1, axis=2)[:, :, :group_size]
    return groups


def _single_accuracies(scores: np.ndarray, owners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted share of items attributed to the owner, [B, C]."""
    correct = (scores.argmax(axis=2) == owners).astype(float)
    totals = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(totals > 0, (weights @ correct) / totals, np.nan)


def _drawn_accuracies(scores: np.ndarray, owners: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the share of the drawn groups attributed to the owner, [B, C]; NaN where no groups could be drawn."""
    n_items, n_series, n_candidates = scores.shape
    flat = scores.reshape(n_items, -1).astype(np.float32)
    accuracies = np.full((len(groups), n_series), np.nan)
    feasible = np.flatnonzero(groups[:, 0, 0] >= 0)
    step = max(1, _CHUNK_CELLS // (groups.shape[1] * max(n_items, flat.shape[1])))
    for start in range(0, len(feasible), step):
        rows = feasible[start : start + step]
        sums = group_membership(groups[rows], n_items) @ flat
        accuracies[rows] = attribution_share(sums.reshape(*sums.shape[:2], n_series, n_candidates), owners)
    return accuracies
