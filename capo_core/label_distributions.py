"""How labels are distributed: over an item's annotators, and over the items of each annotator.

The distribution counts the labels given: where an annotator gave an item several different labels, each counts once;
the same label given twice counts once; null labels are missing. Entropies and divergences are in bits.

Both figures are plug-in estimates of few labels: an entropy of m labels cannot exceed log2 m, and a divergence between
two samples is above 0 even where the annotators use the labels alike. Hence the normalised entropy, and the floor of
the divergence under annotators shuffled within items (`capo_core.agreement.agreement_table`).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from schemas.frames import ITEM_LABELS, check_columns


def item_labels(annotations: pl.DataFrame) -> pl.DataFrame:
    """Return the labels of every item and their entropy.

    H_i = -Σ_l p_il log2 p_il with p_il the share of label l among the labels given to item i (Shannon 1948).

    Args:
        annotations: columns item_id, annotator_id, label; null labels are missing.

    Returns:
        Columns of `schemas.frames.ITEM_LABELS`, sorted by item_id; `label_counts` by descending number, then label.
        Entropy is null where fewer than two annotators gave a label: one person shows no variation between people.
    """
    given = annotations.select("item_id", "annotator_id", "label").drop_nulls().unique()
    annotators = given.group_by("item_id").agg(pl.col("annotator_id").n_unique().cast(pl.Int64).alias("n_annotators"))
    counts = given.group_by("item_id", "label").agg(pl.len().cast(pl.Int64).alias("n"))
    share = pl.col("n") / pl.col("n").sum()
    labels = (
        counts.sort(["item_id", "n", "label"], descending=[False, True, False])
        .group_by("item_id", maintain_order=True)
        .agg(pl.struct("label", "n").alias("label_counts"), (share * -share.log(2)).sum().alias("entropy"))
    )
    table = (
        annotations.select("item_id")
        .unique()
        .join(annotators, on="item_id", how="left")
        .join(labels, on="item_id", how="left")
        .with_columns(
            pl.col("n_annotators").fill_null(0),
            pl.col("label_counts").fill_null([]),
            pl.when(pl.col("n_annotators") >= 2).then(pl.col("entropy") + 0.0).alias("entropy"),
        )
        .sort("item_id")
    )
    return check_columns(table.select(list(ITEM_LABELS)), ITEM_LABELS, "item labels")


def annotator_labels(annotations: pl.DataFrame) -> pl.DataFrame:
    """Return how often each annotator gave each label.

    Args:
        annotations: columns item_id, annotator_id, label; null labels are missing.

    Returns:
        annotator_id, label, n, share (of the annotator's labels); sorted by annotator_id, label. Labels an annotator
        never gave have no row.
    """
    given = annotations.select("item_id", "annotator_id", "label").drop_nulls().unique()
    counts = given.group_by("annotator_id", "label").agg(pl.len().cast(pl.Int64).alias("n"))
    share = (pl.col("n") / pl.col("n").sum().over("annotator_id")).alias("share")
    return counts.with_columns(share).sort("annotator_id", "label")


def label_entropies(counts: np.ndarray) -> np.ndarray:
    """Return the entropy of each label distribution in bits: H = log2 n - Σ_l n_l log2 n_l / n (Shannon 1948).

    Args:
        counts: [..., L] non-negative numbers of labels.

    Returns:
        [...]; NaN where there is no label.
    """
    totals = counts.sum(axis=-1)
    shares = _normalise(counts)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.where(totals > 0, np.maximum(-(shares * logs).sum(axis=-1), 0.0), np.nan)


def normalised_label_entropies(counts: np.ndarray) -> np.ndarray:
    """Return each entropy as a share of the largest that as many labels can have: H / log2 min(n, L).

    (n, L) as in `label_entropies`; between 0 and 1, and 1 only where all labels are as frequent.

    Returns:
        [...]; NaN where fewer than two labels were given or only one label exists.
    """
    largest = np.log2(np.maximum(np.minimum(counts.sum(axis=-1), counts.shape[-1]), 1))
    entropies = label_entropies(counts)
    return np.divide(entropies, largest, out=np.full_like(entropies, np.nan), where=largest > 0)


def jensen_shannon_divergence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return JSD = H((p + q) / 2) - (H(p) + H(q)) / 2 in bits, between 0 and 1 (Lin 1991).

    Args:
        a: [..., L] numbers of labels; p are their shares.
        b: [..., L], for q.

    Returns:
        [...]; NaN where either side has no label.
    """
    p, q = _normalise(np.asarray(a, dtype=float)), _normalise(np.asarray(b, dtype=float))
    divergence = label_entropies((p + q) / 2) - (label_entropies(p) + label_entropies(q)) / 2
    return np.clip(divergence, 0.0, 1.0)  # rounding leaves -1e-17; NaN stays


def jensen_shannon_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return √JSD, a metric between 0 and 1 (Endres and Schindelin 2003); arguments as of the divergence."""
    return np.sqrt(jensen_shannon_divergence(a, b))


def _normalise(counts: np.ndarray) -> np.ndarray:
    """Return shares along the last axis; all zeros where there is nothing."""
    counts = np.asarray(counts, dtype=float)
    totals = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
