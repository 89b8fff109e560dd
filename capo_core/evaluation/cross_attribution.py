"""Whose text a method's imitation of each person is taken for: the full matrix, where accuracy is its diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from capo_core.evaluation.group_scores import Attributions
from capo_core.evaluation.imitation import Attributed
from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.tables import METHOD_ORDER
from capo_core.stylometry.groups import scores_by_item, sum_groups
from schemas.frames import CROSS_ATTRIBUTION, check_columns

GROUP_SIZES = (1, 5)
"""Sizes shown, of those the evaluation has."""


def cross_attribution(
    all_attributed: Sequence[Attributed], annotators: Sequence[str], resampling: Resampling
) -> pl.DataFrame:
    """Return CROSS_ATTRIBUTION of people's and sampled text, by n-grams without reduction (raw, surface_normalised).

    share: of the groups of k explanations imitating one annotator (of people: written by him), attributed to another;
    probability: the mean posterior. Both are means over groups, then over seeds; over `attributed` either sums to 1.
    Text that imitates nobody (zero_shot) stands at every annotator. Pairs without k explanations have no row.

    Args:
        all_attributed: of `imitation.attribute_writings`.
        annotators: axis A.
        resampling: of the evaluation; its group sizes among 1 and 5 are used, with the groups of the point estimates.
    """
    rows: list[tuple] = []
    for one in all_attributed:
        plain = one.variant.reduction == "none" and one.variant.classifier == "ngrams"
        if not plain or not one.writing.in_full or one.writing.shuffled:
            continue
        for size in (size for size in GROUP_SIZES if size in resampling.config.group_sizes):
            keys = (one.writing.method, one.writing.decision, one.condition, one.variant.classifier, size)
            matrices = _attribute_to_all(one.attributions, size, resampling)
            rows += _list_pairs(keys, matrices, annotators)
    frame = pl.DataFrame(rows, schema=CROSS_ATTRIBUTION, orient="row")
    method_rank = pl.col("method").replace_strict({m: i for i, m in enumerate(METHOD_ORDER)}, default=len(METHOD_ORDER))
    keys = ["method", "condition", "classifier", "group_size", "imitated", "attributed"]
    return check_columns(frame.sort(method_rank, *keys), CROSS_ATTRIBUTION, "cross_attribution")


def _attribute_to_all(attributions: Attributions, group_size: int, resampling: Resampling) -> np.ndarray:
    """Return share and mean probability of every candidate, [2, S, A, A], NaN where a series has fewer than k."""
    n_slices, n_annotators, _, n_candidates = attributions.log_probabilities.shape
    matrices = np.full((2, n_slices * n_annotators, n_candidates), np.nan)
    log_probabilities, _ = attributions.by_series()
    for series, groups in attributions.whole_groups(resampling.whole(1).groups, group_size):
        sums = sum_groups(groups, scores_by_item(log_probabilities[series]))
        posteriors = np.exp(sums - sums.max(axis=1, keepdims=True))
        posteriors /= posteriors.sum(axis=1, keepdims=True)
        attributed = sums.argmax(axis=1)[:, None, :] == np.arange(n_candidates)[:, None]
        matrices[:, series] = [attributed.mean(axis=0).T, posteriors.mean(axis=0).T]
    return matrices.reshape(2, n_slices, n_annotators, n_candidates)


def _list_pairs(keys: tuple, matrices: np.ndarray, annotators: Sequence[str]) -> list[tuple]:
    """Return the rows of one source, averaged over the seeds that have a figure."""
    rows = []
    for imitated, name in enumerate(annotators):
        by_seed = matrices[:, ~np.isnan(matrices[0, :, imitated, 0]), imitated]  # [2, seeds, A]
        if by_seed.shape[1]:
            shares, probabilities = by_seed.mean(axis=1)
            figures = zip(annotators, shares.tolist(), probabilities.tolist(), strict=True)
            rows += [
                (*keys, name, other, share, probability, by_seed.shape[1]) for other, share, probability in figures
            ]
    return rows
