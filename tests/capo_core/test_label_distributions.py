"""Label distributions: entropy and Jensen-Shannon divergence by hand and against scipy; tables of items and people."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon

from capo_core.label_distributions import (
    annotator_labels,
    item_labels,
    jensen_shannon_distance,
    jensen_shannon_divergence,
    label_entropies,
    normalised_label_entropies,
)
from schemas.frames import ITEM_LABELS

ROWS = [
    ("i1", "a", "x"),
    ("i1", "b", "y"),
    ("i1", "c", "x"),
    ("i1", "d", "z"),
    ("i2", "a", "x"),
    ("i2", "b", "x"),
    ("i2", "b", "x"),  # the same label again counts once
    ("i3", "a", "x"),
    ("i3", "a", "y"),  # one annotator, two labels
    ("i4", "a", None),
]


def labelled() -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=dict.fromkeys(("item_id", "annotator_id", "label"), pl.String), orient="row")


def test_entropy_by_hand() -> None:
    # (2, 1, 1): -(1/2 log 1/2 + 2 · 1/4 log 1/4) = 1.5 bits; of four labels, four kinds: at most 2; of three: log2 3.
    assert label_entropies(np.array([[2, 1, 1], [4, 0, 0]])) == pytest.approx([1.5, 0.0])
    assert np.isnan(label_entropies(np.zeros(3)))
    assert normalised_label_entropies(np.array([2, 1, 1, 0])) == pytest.approx(0.75)
    assert normalised_label_entropies(np.array([2, 1, 1])) == pytest.approx(1.5 / np.log2(3))


def test_normalised_entropy_is_undefined_where_it_could_only_be_zero() -> None:
    assert np.isnan(normalised_label_entropies(np.array([[1, 0], [0, 0]]))).all()  # one label, none
    assert np.isnan(normalised_label_entropies(np.array([3])))  # one kind of label only


def test_divergence_by_hand() -> None:
    # p = (1, 0), q = (1/2, 1/2): H(3/4, 1/4) - (0 + 1) / 2 = .811278 - .5. Disjoint: 1 bit. Counts, not shares, do.
    assert jensen_shannon_divergence(np.array([4, 0]), np.array([1, 1])) == pytest.approx(0.311278, abs=1e-6)
    assert jensen_shannon_divergence(np.array([2, 0]), np.array([0, 5])) == pytest.approx(1.0)
    assert jensen_shannon_divergence(np.array([2, 1]), np.array([4, 2])) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(jensen_shannon_divergence(np.array([0, 0]), np.array([1, 1])))


def test_distance_equals_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, size=(2, 20, 5)) + np.array([1, 0, 0, 0, 0])
    assert jensen_shannon_distance(a, b) == pytest.approx(
        [jensenshannon(p, q, base=2) for p, q in zip(a, b, strict=True)], abs=1e-9
    )


def test_item_labels_by_hand() -> None:
    table = item_labels(labelled())
    assert table.schema == pl.Schema(ITEM_LABELS)
    assert table["item_id"].to_list() == ["i1", "i2", "i3", "i4"]
    assert table["n_annotators"].to_list() == [4, 2, 1, 0]
    assert table["label_counts"].to_list() == [
        [{"label": "x", "n": 2}, {"label": "y", "n": 1}, {"label": "z", "n": 1}],
        [{"label": "x", "n": 2}],
        [{"label": "x", "n": 1}, {"label": "y", "n": 1}],
        [],
    ]
    # One annotator's two labels are no variation between people: undefined, as where there is no label.
    assert table["entropy"].to_list() == [pytest.approx(1.5), pytest.approx(0.0), None, None]


def test_item_labels_do_not_depend_on_the_order_of_rows() -> None:
    assert item_labels(labelled().reverse()).equals(item_labels(labelled()))


def test_annotator_labels_by_hand() -> None:
    # a: x on i1, i2, i3 and y on i3; b: y on i1 and x on i2.
    rows = {(a, label): (n, share) for a, label, n, share in annotator_labels(labelled()).iter_rows()}
    assert rows[("a", "x")] == (3, pytest.approx(0.75))
    assert rows[("a", "y")] == (1, pytest.approx(0.25))
    assert rows[("b", "x")] == (1, pytest.approx(0.5))
    assert ("c", "y") not in rows
