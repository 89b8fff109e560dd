"""How much of a feature's variance belongs to the annotator, how much to item, label and the rest.

Model: y_r = μ + item_i(r) + annotator_a(r) + label_l(r) + ε_r, the three effects and ε independent with variances
σ²_k. The design is unbalanced and partly missing, so the components are estimated by fitting constants with each
factor fitted last (Henderson's Method III; Searle, Casella and McCulloch 1992, *Variance Components*, § 5.5)::

    T_k = yᵀ P_k y,  P_k: the projection on factor k after the other two
    E[T_k] = σ²_k tr(Z_kᵀ P_k Z_k) + σ²_ε rank(P_k)        since P_k annihilates the other two
    σ̂²_ε = RSS / df_ε,   σ̂²_k = (T_k - rank(P_k) σ̂²_ε) / tr(Z_kᵀ P_k Z_k)

Each component is unbiased without normality, and whatever the other two effects are (they may be fixed, and labels may
depend on annotators). A negative estimate means no evidence of that source; it is set to 0 before shares are taken.
Label is compared within items only: what all annotators of an item agree on counts as item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capo_core.stylometry.design import (
    Crossing,
    centre_within,
    indicators,
    missing_patterns,
    orthonormal_basis,
    read_crossing,
    sum_by,
)

VANISHING = 1e-12
"""A residual sum of squares below this share of the total is rounding, not variance."""


@dataclass(frozen=True)
class VariancePartition:
    """Variance partition of F features, each array [F], NaN where undefined.

    Attributes:
        annotator, item, label, residual: shares of the total variance; the defined ones sum to 1. NaN: the component
            cannot be estimated (one label only, or none that differs within an item).
        components: [F, 4] the estimates before negative ones are set to 0, in that order, in squared units.
        f_ratio: mean square of annotator given item and label, over the residual mean square.
        partial_omega_squared: of annotator given item and label, ω² = d(F - 1) / (d(F - 1) + n), d its degrees of
            freedom (Olejnik and Algina 2003, *Psychological Methods* 8). Left negative where F < 1: setting it to 0
            would bias it upwards (Okada 2017, *Behavior Research Methods* 49).
        n: annotations in which the feature is defined.
    """

    annotator: np.ndarray
    item: np.ndarray
    label: np.ndarray
    residual: np.ndarray
    components: np.ndarray
    f_ratio: np.ndarray
    partial_omega_squared: np.ndarray
    n: np.ndarray


@dataclass(frozen=True)
class _Fits:
    """Each factor fitted last, for features that share their rows; arrays in the order annotator, item, label.

    Attributes:
        sums: [3, F] T_k.
        ranks: [3] rank(P_k).
        traces: [3] tr(Z_kᵀ P_k Z_k).
        residual: [F] RSS.
        residual_df: its degrees of freedom.
        total: [F] sum of squares about the mean.
        n: rows.
    """

    sums: np.ndarray
    ranks: np.ndarray
    traces: np.ndarray
    residual: np.ndarray
    residual_df: int
    total: np.ndarray
    n: int


def partition_variance(
    features: np.ndarray, owners: np.ndarray, items: np.ndarray, labels: np.ndarray | None
) -> VariancePartition:
    """Return the variance partition of every feature; see the module for the estimator.

    Args:
        features: [n, F], NaN where undefined.
        owners: [n] annotator of every row.
        items: [n] item of every row.
        labels: [n] label of every row; None to leave the label out.

    Raises:
        CorpusError: if there are fewer than two annotators.
    """
    crossing, _ = read_crossing(owners, items, labels)
    components = np.full((features.shape[1], 4), np.nan)
    f_ratio, omega = np.full((2, features.shape[1]), np.nan)
    for columns, rows in missing_patterns(features):
        if len(rows) == 0:
            continue
        fits = _fit_constants(features[np.ix_(rows, columns)], crossing.take(rows))
        components[columns] = _components(fits).T
        f_ratio[columns], omega[columns] = _annotator_effect(fits)
    kept = np.maximum(components, 0.0)
    totals = np.nansum(kept, axis=1, keepdims=True)
    shares = kept / np.where(totals > 0, totals, np.nan)
    annotator, item, label, residual = shares.T
    n_defined = np.count_nonzero(~np.isnan(features), axis=0)
    return VariancePartition(annotator, item, label, residual, components, f_ratio, omega, n_defined)


def _fit_constants(values: np.ndarray, crossing: Crossing) -> _Fits:
    """Return the sums of squares of the model's fits, [n, F] values without NaN."""
    annotators, labels = indicators(crossing.owners, crossing.n_annotators), indicators(crossing.labels)
    centred = centre_within(values, crossing.items)
    annotator = _fit_last(annotators, labels, centred, crossing.items)
    label = _fit_last(labels, annotators, centred, crossing.items)
    both = orthonormal_basis(centre_within(np.hstack([annotators, labels]), crossing.items))
    residual = np.maximum((centred**2).sum(axis=0) - ((both.T @ centred) ** 2).sum(axis=0), 0.0)
    n_items = int(crossing.items.max()) + 1
    without_items = orthonormal_basis(np.hstack([annotators, labels]))  # spans the constant as well
    about_mean = values - values.mean(axis=0)
    total = (about_mean**2).sum(axis=0)
    item = (
        total - ((without_items.T @ about_mean) ** 2).sum(axis=0) - residual,
        n_items + both.shape[1] - without_items.shape[1],
        len(values) - (sum_by(without_items, crossing.items, n_items) ** 2).sum(),
    )
    sums, ranks, traces = zip(annotator, item, label, strict=True)
    residual_df = len(values) - n_items - both.shape[1]
    return _Fits(np.vstack(sums), np.array(ranks), np.array(traces), residual, residual_df, total, len(values))


def _fit_last(
    factor: np.ndarray, other: np.ndarray, centred: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, int, float]:
    """Return T_k [F], rank(P_k) and tr(Z_kᵀ P_k Z_k) of a factor's indicators after item and the other factor's."""
    others = orthonormal_basis(centre_within(other, items))
    within = centre_within(factor, items)
    basis = orthonormal_basis(within - others @ (others.T @ within))
    return ((basis.T @ centred) ** 2).sum(axis=0), basis.shape[1], float(((basis.T @ factor) ** 2).sum())


def _residual_mean_square(fits: _Fits) -> np.ndarray:
    """Return σ̂²_ε, [F]; NaN where it cannot be estimated or the feature does not vary, 0 where it is rounding."""
    if fits.residual_df <= 0:
        return np.full(len(fits.residual), np.nan)
    mean_square = np.where(fits.residual > VANISHING * fits.total, fits.residual, 0.0) / fits.residual_df
    return np.where(fits.total > 0, mean_square, np.nan)


def _components(fits: _Fits) -> np.ndarray:
    """Return σ̂² of annotator, item, label and residual, [4, F]; NaN where a component cannot be estimated."""
    residual = _residual_mean_square(fits)
    traces = np.where(fits.ranks > 0, fits.traces, np.nan)[:, None]
    return np.vstack([(fits.sums - fits.ranks[:, None] * residual) / traces, residual])


def _annotator_effect(fits: _Fits) -> tuple[np.ndarray, np.ndarray]:
    """Return F ratio and partial ω² of the annotator, each [F]."""
    residual, rank = _residual_mean_square(fits), int(fits.ranks[0])
    if rank == 0:
        return residual * np.nan, residual * np.nan
    surplus = fits.sums[0] - rank * residual
    with np.errstate(invalid="ignore", divide="ignore"):
        return fits.sums[0] / rank / residual, surplus / (surplus + fits.n * residual)
