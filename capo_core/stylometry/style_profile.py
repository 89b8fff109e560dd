"""One annotator's style: how far each feature lies from the others', and which explanations show it.

Notation: n rows, I items, A annotators, F features, B resamples.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from sklearn.model_selection import GroupKFold

from capo_core.errors import CorpusError
from capo_core.statistics.significance import percentile_interval, resample_counts
from capo_core.stylometry.attribution import fit_attributor
from capo_core.stylometry.differences import item_differences
from capo_core.text import surface_normalise
from schemas.frames import STYLE_EXAMPLES, check_columns

CONFIDENCE = 0.95


def feature_differences(
    features: np.ndarray, owners: np.ndarray, items: np.ndarray, *, n_bootstrap: int, seed: int
) -> pl.DataFrame:
    """Return how far each annotator lies from the others in each feature, on the same items.

    d = (mean over items of own - mean over the same items of the others' mean) / SD within items. Every resample of
    items computes the means and the SD anew; the interval is the percentile interval.

    Args:
        features: [n, F], NaN where undefined.
        owners: [n] annotator of every row.
        items: [n] item of every row.
        n_bootstrap: B.
        seed: of the resamples.

    Returns:
        Columns annotator_id, feature (its number), mean, others_mean, difference, ci_low, ci_high; annotators sorted,
        features in order. Null where undefined.
    """
    compared = item_differences(features, owners, items)
    n_items, n_annotators, n_features = compared.own.shape
    counts = np.ones((1, n_items))
    if n_items:
        counts = np.concatenate([counts, resample_counts(n_items, n_bootstrap, np.random.default_rng(seed))])
    deviations = compared.standard_deviations(counts)
    own, others = (_weighted_means(part, counts) for part in (compared.own, compared.others))
    standardised = (own - others) / deviations[:, None]
    intervals = np.array(
        [
            [percentile_interval(standardised[1:, a, f], CONFIDENCE) for f in range(n_features)]
            for a in range(n_annotators)
        ]
    ).reshape(n_annotators, n_features, 2)
    intervals[np.isnan(standardised[0])] = np.nan
    figures = {"mean": own[0], "others_mean": others[0], "difference": standardised[0]}
    figures |= {"ci_low": intervals[..., 0], "ci_high": intervals[..., 1]}
    columns = {
        "annotator_id": [str(name) for name in compared.annotators for _ in range(n_features)],
        "feature": list(range(n_features)) * n_annotators,
    }
    table = pl.DataFrame(columns | {name: figure.ravel() for name, figure in figures.items()})
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def style_examples(annotations: pl.DataFrame, *, n_examples: int, n_folds: int, seed: int) -> pl.DataFrame:
    """Return the explanations that show each annotator best: the surest to be attributed to him, held out.

    The classifier is `attribution.fit_attributor` on surface-normalised texts, so that wording counts and stray spaces
    do not; the contexts of an explanation are never in its training. One explanation per item, and labels take turns:
    the best of each label first, then the second best.

    Args:
        annotations: columns item_id, context_id, annotator_id, label, explanation.
        n_examples: per annotator.
        n_folds: of the cross-validation.
        seed: of the folds.

    Returns:
        Columns of `schemas.frames.STYLE_EXAMPLES`; per annotator (sorted) by descending log-probability, explanations
        as written.

    Raises:
        CorpusError: if there are fewer contexts than folds.
    """
    rows = annotations.sort("item_id", "annotator_id", "label", "explanation")  # folds must not depend on their order
    held_out = rows.with_columns(log_probability=_held_out_log_probabilities(rows, n_folds, seed))
    best = held_out.sort(
        "annotator_id",
        "log_probability",
        "item_id",
        "label",
        "explanation",
        descending=[False, True, False, False, False],
    )
    best = best.unique(["annotator_id", "item_id"], keep="first", maintain_order=True)
    turn = pl.int_range(pl.len()).over("annotator_id", "label")
    chosen = (
        best.with_columns(turn=turn)
        .sort("annotator_id", "turn", "log_probability", "item_id", descending=[False, False, True, False])
        .group_by("annotator_id", maintain_order=True)
        .head(n_examples)
        .sort("annotator_id", "log_probability", "item_id", descending=[False, True, False])
    )
    return check_columns(chosen.select(list(STYLE_EXAMPLES)), STYLE_EXAMPLES, "style examples")


def _held_out_log_probabilities(annotations: pl.DataFrame, n_folds: int, seed: int) -> np.ndarray:
    """Return log p(true annotator | explanation), [n], each from a fold that did not train on its context."""
    contexts = annotations["context_id"].to_numpy()
    if (n_contexts := len(np.unique(contexts))) < n_folds:
        raise CorpusError(
            f"stability.n_folds is {n_folds}, but there are {n_contexts} contexts; lower n_folds or give more items"
        )
    texts = [surface_normalise(text) for text in annotations["explanation"]]
    owners = annotations["annotator_id"].to_list()
    annotators = sorted(set(owners))
    columns = np.array([annotators.index(owner) for owner in owners])
    log_probabilities = np.full(len(texts), np.nan)
    splitter = GroupKFold(n_folds, shuffle=True, random_state=seed % 2**32)
    for train, test in splitter.split(texts, groups=contexts):
        attributor = fit_attributor([texts[row] for row in train], [owners[row] for row in train])
        scores = attributor.log_probabilities([texts[row] for row in test], annotators)
        log_probabilities[test] = scores[np.arange(len(test)), columns[test]]
    return log_probabilities


def _weighted_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the means over items in every resample, [I, A, F] and [B, I] -> [B, A, F]; NaN where none is."""
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    totals = counts @ (~np.isnan(flat)).astype(float)
    means = (counts @ np.nan_to_num(flat)) / np.where(totals > 0, totals, np.nan)
    return means.reshape(-1, *values.shape[1:])
