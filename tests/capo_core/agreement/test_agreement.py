"""Krippendorff's α, Cohen's κ and percent agreement: by hand, against other implementations, and degenerate cases."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import krippendorff
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from capo_core.agreement import (
    Level,
    agreement_table,
    cohen_kappa,
    count_multiple_label_slots,
    krippendorff_alpha,
    percent_agreement,
)
from capo_core.errors import CorpusError
from capo_core.statistics.significance import percentile_interval, resample_counts
from schemas.frames import AGREEMENT

LEVELS: tuple[Literal["nominal", "ordinal", "interval"], ...] = ("nominal", "ordinal", "interval")


def labelled(matrix: Sequence[Sequence[object]]) -> pl.DataFrame:
    """Return annotations from one row per item and one column per annotator, None for a missing label."""
    rows = [
        (f"i{i}", f"a{a}", None if label is None else str(label))
        for i, row in enumerate(matrix)
        for a, label in enumerate(row)
    ]
    return pl.DataFrame(
        rows, schema={"item_id": pl.String, "annotator_id": pl.String, "label": pl.String}, orient="row"
    )


def random_matrix(seed: int, n_items: int = 30, n_annotators: int = 4) -> list[list[object]]:
    """Return scores from -3 to 3 that follow the item, a fifth of them missing."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(-2, 3, size=(n_items, 1))
    scores = truth + rng.integers(-1, 2, size=(n_items, n_annotators))
    missing = rng.random(scores.shape) < 0.2
    return [
        [None if gone else int(x) for x, gone in zip(*row, strict=True)] for row in zip(scores, missing, strict=True)
    ]


def one(table: pl.DataFrame, metric: str, a: str | None = None, b: str | None = None) -> dict:
    rows = table.filter(
        (pl.col("metric") == metric) & pl.col("annotator_a").eq_missing(a) & pl.col("annotator_b").eq_missing(b)
    )
    assert rows.height == 1
    return rows.row(0, named=True)


# Items (x, x), (x, y), (y, y), (y, y). Coincidences: xx 2, xy 1, yx 1, yy 4; n_x = 3, n_y = 5, n = 8.
FOUR = [["x", "x"], ["x", "y"], ["y", "y"], ["y", "y"]]


def test_alpha_of_four_items_by_hand() -> None:
    # D_o = 2/8; D_e = 2·3·5 / (8·7) = 30/56; α = 1 - (1/4) / (30/56) = 1 - 56/120 = 8/15.
    assert krippendorff_alpha(labelled(FOUR)) == pytest.approx(8 / 15, abs=1e-12)


def test_kappa_and_percent_agreement_of_four_items_by_hand() -> None:
    # p_o = 3/4; p_e = 2/4·1/4 + 2/4·3/4 = 1/2; κ = (3/4 - 1/2) / (1/2) = 1/2.
    table = agreement_table(labelled(FOUR), "nominal", n_bootstrap=100, seed=1)
    assert one(table, "cohen_kappa", "a0", "a1")["value"] == pytest.approx(0.5)
    assert one(table, "percent_agreement", "a0", "a1")["value"] == pytest.approx(0.75)
    assert one(table, "percent_agreement")["value"] == pytest.approx(0.75)


def test_quadratic_kappa_of_three_items_by_hand() -> None:
    # a says 1 2 3, b says 1 3 3. Observed Σ(a - b)² / 3 = 1/3. Expected over all nine pairs: a = 1: 0 + 4 + 4,
    # a = 2: 1 + 1 + 1, a = 3: 4 + 0 + 0, so 15/9. κ = 1 - (1/3) / (15/9) = 1 - 1/5.
    frame = labelled([[1, 1], [2, 3], [3, 3]])
    table = agreement_table(frame, "ordinal", n_bootstrap=100, seed=1)
    assert one(table, "cohen_kappa_quadratic", "a0", "a1")["value"] == pytest.approx(0.8)
    assert cohen_kappa(frame, "a0", "a1", weights="quadratic") == pytest.approx(0.8)


def test_nominal_labels_have_no_quadratic_kappa() -> None:
    table = agreement_table(labelled(FOUR), "nominal", n_bootstrap=100, seed=1)
    assert "cohen_kappa_quadratic" not in table["metric"].to_list()


def test_single_figures_are_those_of_the_table() -> None:
    assert cohen_kappa(labelled(FOUR), "a0", "a1") == pytest.approx(0.5)
    assert percent_agreement(labelled(FOUR)) == pytest.approx(0.75)
    assert math.isnan(percent_agreement(labelled([["x", None], [None, "y"]])))
    with pytest.raises(CorpusError, match=r"no annotator.*a7"):
        cohen_kappa(labelled(FOUR), "a0", "a7")


def test_mean_entropy_of_four_items_by_hand() -> None:
    # Entropies 0, 1, 0, 0 bits; two labels of two annotators allow at most 1 bit.
    table = agreement_table(labelled(FOUR), "nominal", n_bootstrap=100, seed=1)
    assert one(table, "label_entropy")["value"] == pytest.approx(0.25)
    assert one(table, "label_entropy_normalised")["value"] == pytest.approx(0.25)
    assert (one(table, "label_entropy")["n_items"], one(table, "label_entropy")["n_annotations"]) == (4, 8)


def test_entropy_of_single_labels_is_no_evidence_of_agreement() -> None:
    table = agreement_table(labelled([*FOUR, ["x", None], [None, "y"]]), "nominal", n_bootstrap=100, seed=1)
    assert one(table, "label_entropy")["value"] == pytest.approx(0.25)
    assert one(table, "label_entropy")["n_items"] == 4


def test_divergence_is_measured_on_shared_items_only() -> None:
    # Shared: a0 says x x, a1 says x y: H(3/4, 1/4) - H(1/2, 1/2) / 2 = .311278. a1's other items do not count.
    matrix = [["x", "x"], ["x", "y"], [None, "y"], [None, "y"]]
    row = one(agreement_table(labelled(matrix), "nominal", n_bootstrap=100, seed=1), "label_jsd", "a0", "a1")
    assert row["value"] == pytest.approx(0.311278, abs=1e-6)
    assert (row["n_items"], row["n_annotations"]) == (2, 4)


def _skewed(seed: int, share_of_last: float) -> list[list[object]]:
    """Return 200 items of four annotators who say x half the time, the last one with another share."""
    rng = np.random.default_rng(seed)
    says_x = rng.random((200, 4)) < np.array([0.5, 0.5, 0.5, share_of_last])
    return [["x" if x else "y" for x in row] for row in says_x]


def test_divergence_of_like_annotators_lies_at_its_floor_and_of_unlike_ones_above() -> None:
    like = agreement_table(labelled(_skewed(1, 0.5)), "nominal", n_bootstrap=200, seed=1)
    floor = one(like, "label_jsd_shuffled")
    assert floor["ci_low"] <= one(like, "label_jsd")["value"] <= floor["ci_high"]
    unlike = agreement_table(labelled(_skewed(1, 0.9)), "nominal", n_bootstrap=200, seed=1)
    assert one(unlike, "label_jsd")["ci_low"] > one(unlike, "label_jsd_shuffled")["ci_high"]


def test_interval_of_a_divergence_holds_its_value() -> None:
    # Resampling adds divergence, most with many labels: without the bias taken out, the value of two people who use
    # eleven scores alike lies below its own interval.
    scores = np.random.default_rng(2).integers(11, size=(60, 2)).tolist()
    table = agreement_table(labelled(scores), "nominal", n_bootstrap=300, seed=1)
    row = one(table, "label_jsd", "a0", "a1")
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_percent_agreement_over_three_annotators_counts_pairs_of_labels() -> None:
    # Item 1: x x y, one of three pairs agrees; item 2: x x, one of one. 2 / 4.
    table = agreement_table(labelled([["x", "x", "y"], ["x", None, "x"]]), "nominal", n_bootstrap=100, seed=1)
    row = one(table, "percent_agreement")
    assert row["value"] == pytest.approx(0.5)
    assert (row["n_items"], row["n_annotations"]) == (2, 5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_the_krippendorff_package(level: Literal["nominal", "ordinal", "interval"], seed: int) -> None:
    matrix = random_matrix(seed)
    data = np.array([[np.nan if x is None else x for x in row] for row in matrix], dtype=float).T
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
    assert krippendorff_alpha(labelled(matrix), level) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_scikit_learn(seed: int) -> None:
    matrix = random_matrix(seed)
    table = agreement_table(labelled(matrix), "nominal", n_bootstrap=100, seed=1)
    ordinal = agreement_table(labelled(matrix), "ordinal", n_bootstrap=100, seed=1)
    for a in range(4):
        for b in range(a + 1, 4):
            both = [(row[a], row[b]) for row in matrix if row[a] is not None and row[b] is not None]
            row = one(table, "cohen_kappa", f"a{a}", f"a{b}")
            assert row["value"] == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)), abs=1e-9)
            assert (row["n_items"], row["n_annotations"]) == (len(both), 2 * len(both))
            weighted = cohen_kappa_score(*zip(*both, strict=True), weights="quadratic", labels=list(range(-3, 4)))
            assert one(ordinal, "cohen_kappa_quadratic", f"a{a}", f"a{b}")["value"] == pytest.approx(weighted, abs=1e-9)


def test_ordinal_alpha_knows_ranks_only_and_interval_alpha_distances() -> None:
    matrix = [[1, 1], [2, 3], [3, 3], [1, 2]]
    stretched = [[{1: 1, 2: 2, 3: 50}[int(str(x))] for x in row] for row in matrix]
    plain, wide = labelled(matrix), labelled(stretched)
    assert krippendorff_alpha(plain, "ordinal") == pytest.approx(krippendorff_alpha(wide, "ordinal"))
    assert krippendorff_alpha(plain, "interval") != pytest.approx(krippendorff_alpha(wide, "interval"), abs=0.01)


def test_scores_are_ordered_as_numbers_not_as_text() -> None:
    # As text -1 < -2 < 10 < 9; as numbers -2 < -1 < 9 < 10.
    matrix: list[list[object]] = [[-2, -1], [9, 10], [10, 10], [-1, -1]]
    expected = krippendorff.alpha(reliability_data=np.array(matrix, dtype=float).T, level_of_measurement="ordinal")
    assert krippendorff_alpha(labelled(matrix), "ordinal") == pytest.approx(expected, abs=1e-9)


def test_bootstrap_over_coincidences_equals_recomputing_every_resample() -> None:
    matrix = random_matrix(3, n_items=12)
    table = agreement_table(labelled(matrix), "ordinal", n_bootstrap=25, seed=9)
    counts = resample_counts(12, 25, np.random.default_rng(9))
    ordered = sorted(range(12), key=lambda i: f"i{i}")  # items are taken in the order of their ids
    alphas = []
    for draw in counts:
        repeated = [matrix[ordered[i]] for i in range(12) for _ in range(draw[i])]
        alphas.append(krippendorff_alpha(labelled(repeated), "ordinal"))
    row = one(table, "krippendorff_alpha_ordinal")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(percentile_interval(np.array(alphas), 0.95), abs=1e-12)


def test_ordinal_table_also_reports_nominal_and_interval() -> None:
    table = agreement_table(labelled(random_matrix(1)), "ordinal", n_bootstrap=100, seed=1)
    overall = table.filter(pl.col("annotator_a").is_null())["metric"].to_list()
    assert overall == [
        "krippendorff_alpha_ordinal",
        "krippendorff_alpha_nominal",
        "krippendorff_alpha_interval",
        "percent_agreement",
        "label_entropy",
        "label_entropy_normalised",
        "label_jsd",
        "label_jsd_shuffled",
    ]
    for level in LEVELS:
        expected = krippendorff_alpha(labelled(random_matrix(1)), level)
        assert one(table, f"krippendorff_alpha_{level}")["value"] == pytest.approx(expected)


def test_table_has_the_columns_of_its_schema_and_intervals_around_values() -> None:
    table = agreement_table(labelled(random_matrix(2)), "interval", n_bootstrap=300, seed=1)
    assert table.schema == pl.Schema(AGREEMENT)
    assert table.height == 8 + 4 * 6  # κ, quadratic κ, percent agreement and divergence of six pairs
    assert (table["ci_low"] <= table["value"]).all()
    assert (table["value"] <= table["ci_high"]).all()


def test_order_of_rows_does_not_matter() -> None:
    frame = labelled(random_matrix(4))
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    first = agreement_table(frame, "ordinal", n_bootstrap=100, seed=1)
    assert first.equals(agreement_table(shuffled, "ordinal", n_bootstrap=100, seed=1))


def test_slot_with_two_labels_is_missing_and_counted() -> None:
    extra = pl.DataFrame([("i0", "a0", "y")], schema=["item_id", "annotator_id", "label"], orient="row")
    frame = pl.concat([labelled(FOUR), extra])  # a0 now says x and y of item i0
    without = labelled([[None, "x"], *FOUR[1:]])
    assert krippendorff_alpha(frame) == pytest.approx(krippendorff_alpha(without))
    assert count_multiple_label_slots(frame) == 1
    assert one(agreement_table(frame, "nominal", n_bootstrap=100, seed=1), "cohen_kappa", "a0", "a1")["n_items"] == 3


def test_same_label_given_twice_counts_once() -> None:
    doubled = pl.concat([labelled(FOUR), labelled(FOUR).head(1)])
    assert krippendorff_alpha(doubled) == pytest.approx(8 / 15)
    assert count_multiple_label_slots(doubled) == 0


def test_null_labels_are_missing() -> None:
    matrix = [*FOUR, [None, "x"], [None, None]]
    assert krippendorff_alpha(labelled(matrix)) == pytest.approx(8 / 15)


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_is_undefined_without_variation(level: Level) -> None:
    frame = labelled([[1, 1], [1, 1]])
    assert math.isnan(krippendorff_alpha(frame, level))
    table = agreement_table(frame, level, n_bootstrap=100, seed=1)
    row = one(table, f"krippendorff_alpha_{level}")
    assert (row["value"], row["ci_low"], row["ci_high"]) == (None, None, None)
    assert one(table, "cohen_kappa", "a0", "a1")["value"] is None
    assert one(table, "percent_agreement")["value"] == 1.0


def test_alpha_is_undefined_where_no_item_has_two_labels() -> None:
    frame = labelled([["x", None], [None, "y"]])
    assert math.isnan(krippendorff_alpha(frame))
    row = one(agreement_table(frame, "nominal", n_bootstrap=100, seed=1), "krippendorff_alpha_nominal")
    assert (row["value"], row["n_items"], row["n_annotations"]) == (None, 0, 0)


def test_degenerate_tables_raise_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agreement_table(labelled([["x", None], [None, "y"]]), "nominal", n_bootstrap=100, seed=1)
        agreement_table(labelled([[None, None]]), "nominal", n_bootstrap=100, seed=1)


def test_ordinal_level_refuses_labels_that_are_no_numbers() -> None:
    with pytest.raises(CorpusError, match="label 'x' is not a number"):
        krippendorff_alpha(labelled(FOUR), "ordinal")


def test_agreement_needs_two_annotators() -> None:
    with pytest.raises(CorpusError, match=r"at least two annotators.*1.*a0"):
        agreement_table(labelled([["x"], ["y"]]), "nominal", seed=1)
