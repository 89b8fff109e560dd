"""An annotator's profile: feature differences, and examples chosen by a classifier that has not read them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from evaluation_material import HABITS, persona_corpus, styleless_corpus

from capo_core.errors import CorpusError
from capo_core.stylometry.style_profile import feature_differences, style_examples
from schemas.frames import STYLE_EXAMPLES


def test_difference_equals_the_arithmetic() -> None:
    # Item 0: ana 4, ben 2, cem 0; item 1: ana 5, ben 1; item 2: ben 7 alone, which tells nothing.
    # ana: own (4 + 5) / 2, others (1 + 1) / 2. SD: item 0 has 8 with df 2, item 1 has 8 with df 1: √(16 / 3).
    owners = np.array(["ana", "ben", "cem", "ana", "ben", "ben"])
    items = np.array([0, 0, 0, 1, 1, 2])
    features = np.array([[4.0], [2.0], [0.0], [5.0], [1.0], [7.0]])
    table = feature_differences(features, owners, items, n_bootstrap=100, seed=0)
    assert table["annotator_id"].to_list() == ["ana", "ben", "cem"]
    row = table.row(0, named=True)
    assert (row["feature"], row["mean"], row["others_mean"]) == (0, 4.5, 1.0)
    assert row["difference"] == pytest.approx(3.5 / np.sqrt(16 / 3))
    assert table.row(1, named=True)["mean"] == 1.5  # ben's 7 has nobody beside it


def test_interval_holds_the_planted_difference_in_about_95_of_100() -> None:
    rng = np.random.default_rng(1)
    owners, items = np.tile(np.arange(4), 80), np.repeat(np.arange(80), 4)
    features = rng.normal(size=(320, 400)) + rng.normal(size=(80, 400))[items] + 0.4 * (owners == 3)[:, None]
    table = feature_differences(features, owners, items, n_bootstrap=300, seed=2)
    own = table.filter(annotator_id="3")
    # 400 independent features: SE of the share .011; SD within items includes .4² · 3/16, so d = .4 / √1.04
    held = ((own["ci_low"] <= 0.4 / np.sqrt(1.04)) & (own["ci_high"] >= 0.4 / np.sqrt(1.04))).mean()
    assert held == pytest.approx(0.95, abs=0.04)
    assert own["difference"].mean() == pytest.approx(0.4 / np.sqrt(1.04), abs=0.03)


def test_features_without_variation_or_values_have_no_difference() -> None:
    owners, items = np.tile(np.arange(2), 5), np.repeat(np.arange(5), 2)
    features = np.column_stack([np.full(10, 3.0), np.full(10, np.nan)])
    table = feature_differences(features, owners, items, n_bootstrap=100, seed=0)
    assert table["difference"].null_count() == table["ci_low"].null_count() == 4
    assert table["mean"].to_list() == [3.0, None, 3.0, None]


def test_examples_are_the_annotators_own_one_per_item_and_over_labels() -> None:
    corpus = persona_corpus(n_train=30)
    table = style_examples(corpus, n_examples=4, n_folds=3, seed=0)
    assert table.schema == pl.Schema(STYLE_EXAMPLES)
    assert table["annotator_id"].to_list() == [name for name in HABITS for _ in range(4)]
    written = set(corpus.select("annotator_id", "item_id", "label", "explanation").rows())
    assert set(table.select("annotator_id", "item_id", "label", "explanation").rows()) <= written
    for _, own in table.group_by("annotator_id"):
        assert own["item_id"].n_unique() == 4
        assert own["label"].n_unique() == 3  # three labels take turns
        assert own["log_probability"].is_sorted(descending=True)
    assert (table["log_probability"] > np.log(0.5)).all()


def test_annotator_with_two_labels_for_an_item_is_shown_with_one_of_them() -> None:
    corpus = persona_corpus(n_train=6, n_test=0)
    again = corpus.with_columns(pl.lit("fourth").alias("label"))
    table = style_examples(pl.concat([corpus, again]), n_examples=20, n_folds=3, seed=0)
    assert table.height == 4 * 6


def test_classifier_has_not_read_the_context_it_attributes() -> None:
    # A classifier that trained on one item of a context would be sure of the other.
    corpus = styleless_corpus()
    leaky = corpus.with_columns(pl.col("item_id").alias("context_id"))
    honest, leaked = (
        style_examples(frame, n_examples=32, n_folds=4, seed=0)["log_probability"].mean() for frame in (corpus, leaky)
    )
    assert honest < np.log(0.25)  # worse than knowing nothing
    assert leaked > np.log(0.5)


def test_order_of_rows_does_not_matter() -> None:
    corpus = persona_corpus(n_train=9)
    mixed = corpus.sample(fraction=1.0, shuffle=True, seed=1)
    first, second = (style_examples(frame, n_examples=3, n_folds=3, seed=0) for frame in (corpus, mixed))
    assert first.equals(second)


def test_fewer_contexts_than_folds_is_an_error_that_says_so() -> None:
    with pytest.raises(CorpusError, match=r"n_folds is 5.*2 contexts"):
        style_examples(persona_corpus(n_train=2, n_test=0), n_examples=1, n_folds=5, seed=0)
