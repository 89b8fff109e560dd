"""All style tables together: what they read, what they find, and the real corpora."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from evaluation_material import HABITS, persona_corpus
from real_data import varierr_corpus

from capo_core.errors import CorpusError
from capo_core.stylometry.controls import shuffle_within_items
from capo_core.stylometry.design import encode
from capo_core.stylometry.features import FEATURES, feature_matrix
from capo_core.stylometry.permutation import compare_annotators
from capo_core.stylometry.style_table import StyleTables, style_tables
from capo_core.stylometry.variance import partition_variance
from schemas.config import StabilityConfig
from schemas.frames import FEATURE_TESTS, RELIABILITY, STYLE_EXAMPLES, STYLE_FEATURES, STYLE_WORDS

QUICK = StabilityConfig(n_folds=3, n_bootstrap=100, n_permutations=999, n_examples=2)


def numbered_corpus(n_train: int, n_test: int = 4) -> pl.DataFrame:
    """Return the personas' corpus with its items on lines of their own."""
    corpus = persona_corpus(n_train=n_train, n_test=n_test)
    return corpus.with_columns(source_line=pl.col("item_id").str.slice(1).cast(pl.Int64) + 1)


@cache
def persona_tables() -> StyleTables:
    return style_tables(numbered_corpus(24), QUICK)


def parts(tables: StyleTables) -> tuple[pl.DataFrame, ...]:
    return tables.features, tables.reliability, tables.annotators, tables.words, tables.examples


def test_tables_have_the_columns_and_rows_of_the_contract() -> None:
    tables = persona_tables()
    contract = (FEATURE_TESTS, RELIABILITY, STYLE_FEATURES, STYLE_WORDS, STYLE_EXAMPLES)
    assert [table.schema for table in parts(tables)] == [pl.Schema(columns) for columns in contract]
    names = [feature.name for feature in FEATURES]
    assert tables.features["feature"].to_list() == names
    assert tables.annotators.select("annotator_id", "feature").rows() == [(a, f) for a in HABITS for f in names]
    assert tables.reliability.height == 2 * 4
    assert tables.examples.height == 2 * 4


def test_personas_differ_and_the_figures_agree_with_each_other() -> None:
    tables = persona_tables()
    words = tables.features.row(by_predicate=pl.col("feature") == "words", named=True)
    shares = ("variance_annotator", "variance_item", "variance_label", "variance_residual")
    assert sum(words[share] for share in shares) == pytest.approx(1.0)
    assert words["variance_annotator"] > 0.5
    assert words["p_value"] == pytest.approx(1 / 1000)
    assert words["p_holm"] >= words["p_value"]
    assert words["reliability"] > 0.9
    assert (words["n_annotations"], words["n_permutations"]) == (96, 999)
    brackets = tables.annotators.filter(annotator_id="cem", feature="parenthesis_rate").row(0, named=True)
    assert brackets["difference"] > 1.5  # only cem writes them
    assert brackets["mean"] > brackets["others_mean"] == 0.0
    assert brackets["ci_low"] <= brackets["difference"] <= brackets["ci_high"]
    assert (tables.reliability["value"] > 0.9).all()
    assert (tables.reliability["shuffled"].abs() < 0.3).all()


def test_features_that_never_vary_have_no_figures() -> None:
    row = persona_tables().features.row(by_predicate=pl.col("feature") == "leading_space", named=True)
    for column in ("variance_annotator", "partial_omega_squared", "p_value", "p_holm", "reliability"):
        assert row[column] is None, column
    assert row["n_annotations"] == 96


def test_order_of_rows_does_not_matter_and_test_rows_are_not_read() -> None:
    corpus = numbered_corpus(24)
    scrambled = corpus.with_columns(
        pl.when(pl.col("split") == "test").then(pl.lit("zzz")).otherwise("explanation").alias("explanation")
    ).sample(fraction=1.0, shuffle=True, seed=2)
    again = style_tables(scrambled, QUICK)
    assert all(first.equals(second) for first, second in zip(parts(persona_tables()), parts(again), strict=True))


def test_progress_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    style_tables(numbered_corpus(9), QUICK, progress=lambda n_done, n_total: told.append((n_done, n_total)))
    assert told == [(k, 5) for k in range(1, 6)]


def test_one_annotator_only_is_an_error() -> None:
    with pytest.raises(CorpusError, match=r"at least two.*ben"):
        style_tables(numbered_corpus(9).filter(pl.col("annotator_id") == "ben"), QUICK)


def real_rows() -> pl.DataFrame:
    return varierr_corpus().filter(pl.col("split") != "test").sort("item_id", "annotator_id", "label", "explanation")


def test_varierr_annotators_differ_and_shuffled_ones_do_not() -> None:
    rows = real_rows()
    features = feature_matrix(rows)
    names = [feature.name for feature in FEATURES]
    owners, items, labels = (rows[name].to_numpy().astype(str) for name in ("annotator_id", "item_id", "label"))
    tests = compare_annotators(features, owners, items, labels, n_permutations=1999, seed=13)
    partition = partition_variance(features, owners, items, labels)
    for name in ("words", "characters", "words_per_sentence", "ends_with_full_stop"):
        assert tests.p_values[names.index(name)] < 0.001, name
        assert partition.annotator[names.index(name)] > 0.02, name
    rejected, tested = 0, 0
    for seed in range(10):
        shuffled = shuffle_within_items(owners, encode(items), np.random.default_rng(seed))
        p_values = compare_annotators(features, shuffled, items, labels, n_permutations=199, seed=seed).p_values
        rejected += int((p_values < 0.05).sum())
        tested += int((~np.isnan(p_values)).sum())
    # about 350 tests at .05; features correlate, as if about 100 were independent: SE .022
    assert tested > 300
    assert rejected / tested < 0.05 + 3 * 0.022
