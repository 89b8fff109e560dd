"""Whether an annotator explains and labels as before: a batch against what the annotator said earlier.

Notation: I items of one annotator, F features, P permutations.

Compared are the annotator's differences to the other annotators of each item, in standard deviations within items, as
everywhere in the analysis of style, so that other contents are no drift. One who drifts moves the others' differences
the other way, by a share of 1 / (number of others): whose drift it is shows in the size. Where too few of the batch's
items were annotated by others, the features themselves are compared, and content may be what differs:
`is_item_controlled` says which. Under the null hypothesis the batch's items are as good as drawn from all of the
annotator's, so that item marks change places: with d_f the difference of the mean of feature f in the batch minus the
mean before,

    p_f = (1 + #{|d*_f| ≥ |d_f|}) / (1 + P)                         Holm over features
    p   = (1 + #{max_f |d*_f| / s_f ≥ max_f |d_f| / s_f}) / (1 + P)  any feature at all; s_f the deviation of d*_f

The second is Westfall and Young's (1993) test of the complete null hypothesis. Labels: Jensen-Shannon divergence (bits)
between the label distributions of batch and before, permuted likewise.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from capo_core.label_distributions import jensen_shannon_divergence
from capo_core.seeding import derive_seed
from capo_core.statistics.multiplicity import holm_adjust
from capo_core.stylometry.features import FEATURES, feature_matrix
from capo_core.stylometry.folding import read_explanations
from capo_core.stylometry.reliability import annotator_profiles
from schemas.frames import DRIFT, check_columns

ANY_FEATURE, LABELS = "any_feature", "label_distribution"
MIN_ITEMS = 4
"""Items that the batch and the time before must each have for a comparison."""

_ROUNDING = 1e-9


def drift_table(before: pl.DataFrame, after: pl.DataFrame, *, n_permutations: int, seed: int) -> pl.DataFrame:
    """Return, for every annotator with new rows, how the batch differs from what the annotator said before.

    Args:
        before: CORPUS of the version before; training and validation are read.
        after: CORPUS of a later version; rows that `before` lacks are the batch.
        n_permutations: P.
        seed: of the permutations.

    Returns:
        DRIFT; per annotator (sorted) the features in their order, then any_feature, then label_distribution. An
        annotator with fewer than `MIN_ITEMS` items on either side is not compared. Features that never vary are null.
    """
    rows = read_explanations(after).rows
    said = ["item_id", "annotator_id", "label", "explanation"]
    is_new = rows.with_row_index("row").join(before, on=said, how="anti", nulls_equal=True)["row"].to_numpy()
    news = np.zeros(rows.height, dtype=bool)
    news[is_new] = True
    owners, items = (rows[name].to_numpy().astype(str) for name in ("annotator_id", "item_id"))
    features = feature_matrix(rows)
    item_ids = np.unique(items)
    tables = []
    for annotator, profile in zip(np.unique(owners), annotator_profiles(features, owners, items), strict=True):
        own = owners == annotator
        rng = np.random.default_rng(derive_seed(seed, "drift", annotator))
        in_batch = np.isin(item_ids, items[own & news])
        compared = ~np.isnan(profile).all(axis=1)
        is_controlled = _suffices(in_batch[compared])
        values = profile[compared] if is_controlled else _item_means(features[own], items[own])
        marks = in_batch[compared] if is_controlled else np.isin(np.unique(items[own]), items[own & news])
        if not _suffices(marks):
            continue
        labelled = np.isin(np.unique(items[own]), items[own & news])
        parts = [
            (is_controlled, _compare_features(values, marks, n_permutations, rng)),
            (False, _compare_labels(_count_labels(rows.filter(own)), labelled, n_permutations, rng)),
        ]
        whose = pl.lit(str(annotator)).alias("annotator_id")
        tables += [part.with_columns(whose, pl.lit(known).alias("is_item_controlled")) for known, part in parts]
    table = pl.concat([pl.DataFrame(schema=DRIFT), *(part.select(list(DRIFT)) for part in tables)])
    return check_columns(table, DRIFT, "drift")


def compare_means(
    values: np.ndarray, marks: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return differences of means, marked minus unmarked, their p-values, and the greatest difference with its own.

    Args:
        values: [I, F], NaN where undefined.
        marks: [I] booleans.
        n_permutations: P.
        rng: of the permutations.

    Returns:
        [F] differences, NaN where a side has no value; [F] two-sided p-values, NaN where nothing varies; the greatest
        |d_f| / s_f and its p-value, NaN where there is none.
    """
    permuted = rng.random((n_permutations, len(marks))).argsort(axis=1) < marks.sum()
    observed = _differences(values, marks[None])[0]
    drawn = _differences(values, permuted)
    n_drawn = (~np.isnan(drawn)).sum(axis=0)
    deviations = np.sqrt((np.nan_to_num(drawn) ** 2).sum(axis=0) / np.maximum(n_drawn, 1))
    varies = np.isfinite(observed) & (deviations > _ROUNDING)
    with np.errstate(invalid="ignore"):
        as_extreme = np.abs(drawn) >= np.abs(observed) * (1 - _ROUNDING)
        p_values = np.where(varies, (1 + as_extreme.sum(axis=0)) / (1 + n_permutations), np.nan)
    if not varies.any():
        return observed, p_values, float("nan"), float("nan")
    scaled = np.abs(np.concatenate([observed[None], drawn])[:, varies]) / deviations[varies]
    greatest = np.nan_to_num(scaled).max(axis=1)
    p_any = (1 + (greatest[1:] >= greatest[0] * (1 - _ROUNDING)).sum()) / (1 + n_permutations)
    return observed, p_values, float(greatest[0]), float(p_any)


def _differences(values: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return the mean of marked minus that of unmarked items, [I, F], [P, I] -> [P, F]."""
    filled, defined = np.nan_to_num(values), (~np.isnan(values)).astype(float)
    weights = marks.astype(float)
    sums, counts = weights @ filled, weights @ defined
    other_sums, other_counts = filled.sum(axis=0) - sums, defined.sum(axis=0) - counts
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((counts > 0) & (other_counts > 0), sums / counts - other_sums / other_counts, np.nan)


def _defined_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each column's defined values, [I, F] -> [F]; NaN where there is none."""
    counts = (~np.isnan(values)).sum(axis=0)
    return np.nan_to_num(values).sum(axis=0) / np.where(counts > 0, counts, np.nan)


def _compare_features(
    values: np.ndarray, marks: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> pl.DataFrame:
    differences, p_values, greatest, p_any = compare_means(values, marks, n_permutations, rng)
    means = [_defined_means(values[side]) for side in (~marks, marks)]
    table = pl.DataFrame(
        {
            "feature": [*(feature.name for feature in FEATURES), ANY_FEATURE],
            "mean_before": [*means[0], np.nan],
            "mean_after": [*means[1], np.nan],
            "difference": [*differences, greatest],
            "p_value": [*p_values, p_any],
            "p_holm": [*holm_adjust(p_values), np.nan],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    return table.with_columns(_sizes(marks))


def _compare_labels(
    counts: np.ndarray, marks: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> pl.DataFrame:
    """Return the row of the labels; counts: [I, L] labels of each item."""
    permuted = rng.random((n_permutations, len(marks))).argsort(axis=1) < marks.sum()
    sides = np.concatenate([marks[None], permuted]).astype(float) @ counts
    divergences = jensen_shannon_divergence(sides, counts.sum(axis=0) - sides)
    p_value = (1 + (divergences[1:] >= divergences[0] * (1 - _ROUNDING)).sum()) / (1 + n_permutations)
    row = {
        "feature": [LABELS], "mean_before": [None], "mean_after": [None], "difference": [float(divergences[0])],
        "p_value": [float(p_value)], "p_holm": [None],
    }  # fmt: skip
    schema = {name: DRIFT[name] for name in row}
    return pl.DataFrame(row, schema=schema).with_columns(_sizes(marks))


def _sizes(marks: np.ndarray) -> list[pl.Expr]:
    sizes = {"n_before": int((~marks).sum()), "n_after": int(marks.sum())}
    return [pl.lit(size, dtype=pl.Int64).alias(name) for name, size in sizes.items()]


def _suffices(marks: np.ndarray) -> bool:
    return min(int(marks.sum()), int((~marks).sum())) >= MIN_ITEMS


def _item_means(features: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the mean of one annotator's rows of each item in the deviations of all his rows, [n, F] -> [I, F]."""
    names, codes = np.unique(items, return_inverse=True)
    defined = ~np.isnan(features)
    sums, counts = np.zeros((len(names), features.shape[1])), np.zeros((len(names), features.shape[1]))
    np.add.at(sums, codes, np.nan_to_num(features))
    np.add.at(counts, codes, defined)
    totals = np.maximum(defined.sum(axis=0), 1)
    mean = np.nan_to_num(features).sum(axis=0) / totals
    deviation = np.sqrt(np.where(defined, (np.nan_to_num(features) - mean) ** 2, 0.0).sum(axis=0) / totals)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((counts > 0) & (deviation > _ROUNDING), sums / counts / deviation, np.nan)


def _count_labels(rows: pl.DataFrame) -> np.ndarray:
    """Return the labels of each of one annotator's items, [I, L], items sorted."""
    items, item_codes = np.unique(rows["item_id"].to_numpy().astype(str), return_inverse=True)
    labels, label_codes = np.unique(rows["label"].to_numpy().astype(str), return_inverse=True)
    counts = np.zeros((len(items), len(labels)))
    np.add.at(counts, (item_codes, label_codes), 1.0)
    return counts
