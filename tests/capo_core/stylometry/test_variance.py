"""Variance partition: by hand, against brute force, and on simulated data whose components are known."""

from __future__ import annotations

import numpy as np
import pytest

from capo_core.errors import CorpusError
from capo_core.stylometry.variance import VariancePartition, partition_variance

TRUTH = {"annotator": 0.5, "item": 1.0, "label": 0.3, "residual": 2.0}


def complete(n_items: int, n_annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """Return owners and items of a complete design, item by item."""
    return np.tile(np.arange(n_annotators), n_items), np.repeat(np.arange(n_items), n_annotators)


def simulate(owners: np.ndarray, items: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n independent features of the model with the components of `TRUTH`, [rows, n]."""
    parts = {"annotator": owners, "item": items, "label": labels}
    total = rng.normal(size=(len(owners), n)) * np.sqrt(TRUTH["residual"])
    for name, codes in parts.items():
        total += rng.normal(size=(codes.max() + 1, n))[codes] * np.sqrt(TRUTH[name])
    return total


def check_components(partition: VariancePartition) -> None:
    """Hold the mean estimate over independent features against the truth, within four standard errors."""
    for number, name in enumerate(("annotator", "item", "label", "residual")):
        estimates = partition.components[:, number]
        error = estimates.std(ddof=1) / np.sqrt(len(estimates))
        assert estimates.mean() == pytest.approx(TRUTH[name], abs=4 * error), name
        assert 4 * error < 0.5 * TRUTH[name], f"{name}: too few simulations to tell"


def test_partition_of_a_small_table_equals_the_arithmetic() -> None:
    # Two items, two annotators: item 0 has 1, 3; item 1 has 2, 8. Mean 3.5, annotators 1.5 and 5.5, items 2 and 5.
    # SS: annotator 2 (2² + 2²) = 16, item 2 (1.5² + 1.5²) = 9, total 6.25 + .25 + 2.25 + 20.25 = 29, residual 4; df 1.
    # σ²_ε = 4, σ²_annotator = (16 - 4) / 2 = 6, σ²_item = (9 - 4) / 2 = 2.5; their sum 12.5.
    owners, items = complete(2, 2)
    partition = partition_variance(np.array([[1.0], [3.0], [2.0], [8.0]]), owners, items, None)
    assert partition.components[0, [0, 1, 3]] == pytest.approx([6.0, 2.5, 4.0])
    assert (partition.annotator[0], partition.item[0], partition.residual[0]) == pytest.approx((0.48, 0.2, 0.32))
    assert np.isnan(partition.label[0])
    assert partition.f_ratio[0] == pytest.approx(4.0)
    # ω² = d (F - 1) / (d (F - 1) + n) = 3 / (3 + 4)
    assert partition.partial_omega_squared[0] == pytest.approx(3 / 7)
    assert partition.n[0] == 4


def test_sums_of_squares_equal_brute_force_on_an_unbalanced_design() -> None:
    rng = np.random.default_rng(3)
    owners, items = complete(12, 4)
    labels = rng.integers(0, 3, len(owners))
    kept = rng.random(len(owners)) > 0.3
    owners, items, labels = owners[kept], items[kept], labels[kept]
    y = rng.normal(size=(len(owners), 2)) + owners[:, None]
    dummies = {
        name: (codes[:, None] == np.unique(codes)).astype(float)
        for name, codes in (("annotator", owners), ("item", items), ("label", labels))
    }

    def hat(*names: str) -> np.ndarray:
        design = np.hstack([np.ones((len(y), 1)), *(dummies[name] for name in names)])
        return design @ np.linalg.pinv(design)

    full = hat("annotator", "item", "label")
    residual = (y * (y - full @ y)).sum(axis=0) / (len(y) - np.trace(full))
    partition = partition_variance(y, owners, items, labels)
    assert partition.components[:, 3] == pytest.approx(residual)
    for number, name in enumerate(("annotator", "item", "label")):
        projection = full - hat(*(other for other in dummies if other != name))
        expected = ((y * (projection @ y)).sum(axis=0) - np.trace(projection) * residual) / np.trace(
            dummies[name].T @ projection @ dummies[name]
        )
        assert partition.components[:, number] == pytest.approx(expected)


def test_components_are_recovered_on_complete_data() -> None:
    rng = np.random.default_rng(0)
    owners, items = complete(40, 6)
    labels = rng.integers(0, 4, len(owners))
    partition = partition_variance(simulate(owners, items, labels, 1500, rng), owners, items, labels)
    check_components(partition)


def test_components_are_recovered_where_rows_are_missing_and_labels_depend_on_annotators() -> None:
    rng = np.random.default_rng(1)
    owners, items = complete(50, 6)
    preferred = rng.random(len(owners)) < 0.5
    labels = np.where(preferred, owners % 4, rng.integers(0, 4, len(owners)))
    kept = rng.random(len(owners)) < np.where(owners < 2, 0.4, 0.9)  # two annotators skip most items
    owners, items, labels = owners[kept], np.unique(items[kept], return_inverse=True)[1], labels[kept]
    partition = partition_variance(simulate(owners, items, labels, 1500, rng), owners, items, labels)
    check_components(partition)


def test_shares_sum_to_one_and_are_never_negative() -> None:
    rng = np.random.default_rng(2)
    owners, items = complete(10, 3)
    labels = rng.integers(0, 2, len(owners))
    partition = partition_variance(rng.normal(size=(len(owners), 200)), owners, items, labels)
    shares = np.vstack([partition.annotator, partition.item, partition.label, partition.residual])
    assert shares.sum(axis=0) == pytest.approx(np.ones(200))
    assert (shares >= 0).all()
    assert (partition.components < 0).any()  # some estimates were negative and were set to 0
    # ω² is not cut off at 0: over features without effect its mean is near 0, and it is negative about as often.
    assert abs(partition.partial_omega_squared.mean()) < 0.01
    assert 0.4 < (partition.partial_omega_squared < 0).mean() < 0.75


def test_feature_that_only_follows_the_label_is_labels() -> None:
    owners, items = complete(8, 3)
    labels = np.random.default_rng(5).integers(0, 2, len(owners))
    partition = partition_variance(labels[:, None] * 3.0, owners, items, labels)
    assert partition.label[0] == pytest.approx(1.0)
    assert partition.annotator[0] == pytest.approx(0.0, abs=1e-9)


def test_missing_values_are_left_out_and_not_filled_in() -> None:
    rng = np.random.default_rng(4)
    owners, items = complete(15, 4)
    labels = rng.integers(0, 3, len(owners))
    features = rng.normal(size=(len(owners), 3)) + owners[:, None]
    features[rng.random(len(owners)) < 0.3, 1] = np.nan
    kept = ~np.isnan(features[:, 1])
    whole = partition_variance(features, owners, items, labels)
    part = partition_variance(features[kept][:, [1]], owners[kept], items[kept], labels[kept])
    assert whole.components[1] == pytest.approx(part.components[0])
    assert whole.n.tolist() == [60, kept.sum(), 60]


def test_what_cannot_be_estimated_is_undefined() -> None:
    rng = np.random.default_rng(6)
    owners, items = complete(10, 3)
    features = np.column_stack([rng.normal(size=30), np.full(30, 2.0), np.full(30, np.nan)])
    partition = partition_variance(features, owners, items, np.zeros(30, dtype=int))
    assert np.isnan(partition.label).all()  # one label only
    assert partition.annotator[0] + partition.item[0] + partition.residual[0] == pytest.approx(1.0)
    for figure in (partition.annotator, partition.residual, partition.partial_omega_squared, partition.f_ratio):
        assert np.isnan(figure[1:]).all()  # a constant, and a feature that is never defined
    assert partition.n.tolist() == [30, 30, 0]
    by_item = partition_variance(features[:, :1], owners, items, items % 2)  # a label per item tells nothing within it
    assert np.isnan(by_item.label[0])


def test_one_annotator_alone_is_an_error() -> None:
    with pytest.raises(CorpusError, match=r"at least two.*ben"):
        partition_variance(np.ones((3, 1)), np.array(["ben"] * 3), np.arange(3), None)
