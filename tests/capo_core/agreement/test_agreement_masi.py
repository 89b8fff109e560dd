"""α over sets of labels (MASI): by hand, and against nltk."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from capo_core.agreement import agreement_table, krippendorff_alpha
from capo_core.agreement.alpha import masi_distances

SETS = [frozenset(s) for size in (1, 2, 3) for s in combinations("abc", size)]


def slots(matrix: list[list[str | None]]) -> pl.DataFrame:
    """Return annotations of items by annotators; every letter is a label, None and "" are no label."""
    rows = [
        (f"i{i}", f"a{a}", label)
        for i, row in enumerate(matrix)
        for a, labels in enumerate(row)
        for label in labels or ""
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("item_id", "annotator_id", "label"), pl.String), orient="row")


def random_slots(seed: int) -> list[list[str | None]]:
    rng = np.random.default_rng(seed)
    sets = ["".join(sorted(s)) for s in SETS]
    draws = rng.integers(len(sets), size=(25, 4))
    return [[None if rng.random() < 0.2 else sets[d] for d in row] for row in draws]


def alpha_by_nltk(matrix: list[list[str | None]]) -> float:
    agreement = pytest.importorskip("nltk.metrics.agreement", reason="nltk is the independent implementation")
    distance = pytest.importorskip("nltk.metrics.distance")
    data = [(f"a{a}", f"i{i}", frozenset(s)) for i, row in enumerate(matrix) for a, s in enumerate(row) if s]
    return agreement.AnnotationTask(data=data, distance=distance.masi_distance).alpha()


def test_distances_by_hand() -> None:
    # {a} {ab}: J = 1/2, one holds the other, M = 2/3: 1 - 1/3. {ab} {bc}: J = 1/3, overlap, M = 1/3: 1 - 1/9.
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)
    expected = [[0, 2 / 3, 1], [2 / 3, 0, 8 / 9], [1, 8 / 9, 0]]
    assert masi_distances(sets) == pytest.approx(np.array(expected))


def test_alpha_of_two_items_by_hand() -> None:
    # Values {a} {ab} | {b} {b}. Observed Σ o δ = 2 · 2/3 = 4/3. Marginals {a} 1, {ab} 1, {b} 2, n = 4;
    # Σ n n δ = 2 (1·1·2/3 + 1·2·1 + 1·2·2/3) = 8. α = 1 - 3 · (4/3) / 8 = 1/2.
    assert krippendorff_alpha(slots([["a", "ab"], ["b", "b"]]), "masi") == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_nltk(seed: int) -> None:
    matrix = random_slots(seed)
    assert krippendorff_alpha(slots(matrix), "masi") == pytest.approx(alpha_by_nltk(matrix), abs=1e-9)


def test_alpha_of_single_labels_is_the_nominal_one() -> None:
    matrix: list[list[str | None]] = [["a", "a"], ["a", "b"], ["b", "b"], ["c", None]]
    assert krippendorff_alpha(slots(matrix), "masi") == pytest.approx(krippendorff_alpha(slots(matrix), "nominal"))


def test_alpha_is_undefined_where_all_sets_are_the_same() -> None:
    assert math.isnan(krippendorff_alpha(slots([["ab", "ab"], ["ab", "ab"]]), "masi"))


def test_table_reports_masi_where_a_slot_has_several_labels_or_may_have() -> None:
    single, several = slots([["a", "a"], ["b", "a"]]), slots([["a", "ab"], ["b", "b"]])
    metric = "krippendorff_alpha_masi"
    assert metric not in agreement_table(single, "nominal", n_bootstrap=100, seed=1)["metric"].to_list()
    allowed = agreement_table(single, "nominal", multiple_labels=True, n_bootstrap=100, seed=1)
    assert metric in allowed["metric"].to_list()
    row = (
        agreement_table(several, "nominal", n_bootstrap=100, seed=1)
        .filter(pl.col("metric") == metric)
        .row(0, named=True)
    )
    assert row["value"] == pytest.approx(0.5)
    assert (row["n_items"], row["n_annotations"]) == (2, 4)


def test_items_with_several_labels_only_do_not_disturb_single_label_figures() -> None:
    with_sets = slots([["a", "a"], ["a", "b"], ["b", "b"], ["ab", "ab"]])
    without = slots([["a", "a"], ["a", "b"], ["b", "b"]])
    assert krippendorff_alpha(with_sets) == pytest.approx(krippendorff_alpha(without))
    table = agreement_table(with_sets, "nominal", n_bootstrap=100, seed=1)
    row = table.filter(pl.col("metric") == "cohen_kappa").row(0, named=True)
    assert row["n_items"] == 3
