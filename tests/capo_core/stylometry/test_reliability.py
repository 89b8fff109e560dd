"""Reliability of style: between halves, between batches, of annotators' means; its interval and its control."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from capo_core.stylometry.differences import item_differences
from capo_core.stylometry.reliability import mean_reliability, profile_reliability, reliability_table
from capo_core.stylometry.variance import partition_variance
from schemas.frames import RELIABILITY

N_ITEMS, N_FEATURES = 60, 15
OWNERS, ITEMS = np.tile(np.array(["ana", "ben", "cem"]), N_ITEMS), np.repeat(np.arange(N_ITEMS), 3)


def noise(seed: int) -> np.ndarray:
    """Return features that only the item shapes, [rows, F]."""
    rng = np.random.default_rng([8, seed])
    return rng.normal(size=(len(OWNERS), N_FEATURES)) + 2 * rng.normal(size=(N_ITEMS, N_FEATURES))[ITEMS]


def style_of(annotator: str, size: float) -> np.ndarray:
    """Return a profile that one annotator has and the others have not, [rows, F]."""
    return size * np.random.default_rng(9).normal(size=N_FEATURES) * np.equal(OWNERS, annotator)[:, None]


def row_of(table: pl.DataFrame, annotator: str, kind: str) -> dict:
    return table.row(by_predicate=(pl.col("annotator_id") == annotator) & (pl.col("kind") == kind), named=True)


def test_correlation_of_halves_equals_the_arithmetic() -> None:
    # First half (items 0, 1): means 1, 2, 3. Second half: 2, 1, 6. Deviations -1, 0, 1 and -1, -2, 3:
    # (1 + 0 + 3) / √(2 · 14) = 4 / √28
    differences = np.array([[0.0, 2.0, 3.0], [2.0, 2.0, 3.0], [1.0, 0.0, np.nan], [3.0, 2.0, 6.0]])
    first = np.array([[True, True, False, False]])
    assert profile_reliability(differences, first) == pytest.approx(4 / np.sqrt(28))
    assert profile_reliability(differences, ~first) == pytest.approx(4 / np.sqrt(28))
    assert np.isnan(profile_reliability(differences[:, :2], first))  # two features always correlate perfectly
    assert np.isnan(profile_reliability(differences, first[:0]))


def test_differences_are_to_the_mean_of_the_others_on_the_same_item() -> None:
    # Item a: ana twice (1, 3), ben 5, cem 9. Item b: ana 4, ben undefined: nobody to compare with.
    owners, items = np.array(["ana", "ana", "ben", "cem", "ana", "ben"]), np.array(list("aaaabb"))
    features = np.array([[1.0], [3.0], [5.0], [9.0], [4.0], [np.nan]])
    compared = item_differences(features, owners, items)
    assert compared.own[0, :, 0].tolist() == [2.0, 5.0, 9.0]
    assert compared.others[0, :, 0].tolist() == [7.0, 5.5, 3.5]
    assert np.isnan(compared.own[1]).all()
    # Rows of a about their mean 4.5: 12.25 + 2.25 + .25 + 20.25 = 35, df 3; item b has one value, df 0.
    assert compared.standard_deviations(np.ones((1, 2)))[0, 0] == pytest.approx(np.sqrt(35 / 3))
    assert np.isnan(compared.standard_deviations(np.array([[0, 1]]))[0, 0])


def test_style_shows_again_and_the_control_shows_nothing() -> None:
    table = reliability_table(noise(0) + style_of("ana", 0.8), OWNERS, ITEMS, ITEMS, seed=1)
    assert table.schema == pl.Schema(RELIABILITY)
    assert table.select("annotator_id", "kind").rows() == [
        (name, kind) for name in ("ana", "ben", "cem") for kind in ("split_half", "batch_to_batch")
    ]
    for kind, n_repeats in (("split_half", 100), ("batch_to_batch", 1)):
        row = row_of(table, "ana", kind)
        assert row["value"] > 0.8
        assert row["ci_low"] < row["value"] < row["ci_high"] <= 1
        assert row["ci_low"] > 0.5
        assert abs(row["shuffled"]) < 0.15  # mean of 100 shuffles; one has SD of about 1/√14
        assert (row["n_items"], row["n_repeats"]) == (60, n_repeats)


def test_without_style_reliability_is_nought_on_average() -> None:
    tables = [reliability_table(noise(seed), OWNERS, ITEMS, ITEMS, seed=1) for seed in range(1, 7)]
    values = pl.concat(tables).group_by("kind").agg(pl.col("value").mean(), pl.len())
    assert values["len"].to_list() == [18, 18]
    assert values["value"].to_numpy() == pytest.approx(np.zeros(2), abs=0.2)  # SD of one about 1/√14 = .27


def test_style_that_turns_between_batches_is_seen_by_batches_only() -> None:
    # In the later half of the source ana's manner is the opposite. Its order is not that of the items' names.
    order = (ITEMS * 7) % N_ITEMS
    turned = noise(1) + style_of("ana", 1.5) * np.where(order < N_ITEMS // 2, 1.0, -1.0)[:, None]
    table = reliability_table(turned, OWNERS, ITEMS, order, seed=1)
    assert row_of(table, "ana", "batch_to_batch")["value"] < -0.8
    assert row_of(table, "ana", "split_half")["value"] > row_of(table, "ana", "batch_to_batch")["value"] + 0.5


def test_interval_is_as_wide_as_the_spread_of_new_samples() -> None:
    style, rng = 0.3 * np.random.default_rng(9).normal(size=N_FEATURES), np.random.default_rng(10)
    owners, items = np.tile(np.arange(2), N_ITEMS), np.repeat(np.arange(N_ITEMS), 2)
    z, widths = [], []
    for _ in range(40):
        features = rng.normal(size=(len(owners), N_FEATURES)) + style * (owners == 0)[:, None]
        row = reliability_table(features, owners, items, items, seed=1, n_shuffles=1).row(0, named=True)
        z.append(np.arctanh(row["value"]))
        widths.append(np.arctanh(row["ci_high"]) - np.arctanh(row["ci_low"]))
    # A 95% interval is 3.92 standard deviations wide; 40 samples tell an SD to within 11%; the jackknife errs upwards.
    assert 0.8 < np.mean(widths) / (3.92 * np.std(z, ddof=1)) < 1.4


def test_reliability_of_means_is_the_split_half_correlation_stepped_up() -> None:
    # 300 annotators on 20 items, σ²_a = 1, σ²_ε = 16: ρ = 1 / (1 + 16 / 20) = .556. Halves: ρ½ = 1 / (1 + 16 / 10).
    rng = np.random.default_rng(12)
    owners, items = np.tile(np.arange(300), 20), np.repeat(np.arange(20), 300)
    features = rng.normal(size=(300, 1))[owners] + 4 * rng.normal(size=(6000, 1)) + rng.normal(size=(20, 1))[items]
    estimate = mean_reliability(partition_variance(features, owners, items, None).f_ratio)[0]
    assert estimate == pytest.approx(1 / 1.8, abs=0.08)
    grid = features.reshape(20, 300)
    halves = []
    for _ in range(50):
        first = rng.permutation(20) < 10
        correlation = np.corrcoef(grid[first].mean(axis=0), grid[~first].mean(axis=0))[0, 1]
        halves.append(2 * correlation / (1 + correlation))
    assert estimate == pytest.approx(np.mean(halves), abs=0.03)


def test_reliability_of_means_lies_between_nought_and_one() -> None:
    assert mean_reliability(np.array([0.5, 1.0, 4.0, np.inf])).tolist() == [0.0, 0.0, 0.75, 1.0]
    assert np.isnan(mean_reliability(np.array([np.nan]))).all()


def test_what_cannot_be_measured_is_null() -> None:
    features = noise(2)
    unordered = reliability_table(features, OWNERS, ITEMS, np.ones(len(ITEMS)), seed=1)
    assert row_of(unordered, "ana", "batch_to_batch")["value"] is None
    assert row_of(unordered, "ana", "batch_to_batch")["n_repeats"] == 0
    assert row_of(unordered, "ana", "split_half")["value"] is not None
    few = reliability_table(features[:, :2], OWNERS, ITEMS, ITEMS, seed=1)
    assert few["value"].null_count() == few["ci_low"].null_count() == few["shuffled"].null_count() == 6
    short = ITEMS < 3
    assert (
        reliability_table(features[short], OWNERS[short], ITEMS[short], ITEMS[short], seed=1)["value"].is_null().all()
    )


def test_features_that_never_vary_do_not_count() -> None:
    features = noise(3)
    with_constant = np.column_stack([features, np.full(len(features), 0.1 + 0.2)])
    table, again = (reliability_table(f, OWNERS, ITEMS, ITEMS, seed=1) for f in (features, with_constant))
    assert again["value"].to_list() == pytest.approx(table["value"].to_list())
    assert again["shuffled"].to_list() == pytest.approx(table["shuffled"].to_list())
