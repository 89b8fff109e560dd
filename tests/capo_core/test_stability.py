"""Attribution of held-out human text: what it finds, what it must not see, and its control."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from evaluation_material import HABITS, NLI, corpus_frame, corpus_row, embed_by_letters, find, persona_corpus

from capo_core.errors import CorpusError
from capo_core.stylometry.separability import stability_table
from schemas.config import SplitConfig, StabilityConfig
from schemas.frames import STABILITY

TEXT_ONLY = StabilityConfig(
    reductions=("none",), normalisations=("none",), group_sizes=(1, 3), n_folds=3, n_repeats=2, n_bootstrap=100
)


def figure(table: pl.DataFrame, **wanted: object) -> dict:
    return find(table, **{"reduction": "none", "normalisation": "none", "condition": "human", "group_size": 1} | wanted)


def test_personas_are_found_and_shuffled_ones_are_not() -> None:
    table = stability_table(persona_corpus(n_train=24), TEXT_ONLY, None)
    human, shuffled = figure(table), figure(table, condition="shuffled")
    assert human["accuracy"] > 0.95
    # 192 guesses at chance have a standard deviation of .03, correlated within items
    assert shuffled["accuracy"] == pytest.approx(0.25, abs=0.12)
    assert human["chance"] == shuffled["chance"] == 0.25
    # 24 items · 4 annotators · 2 repeats, every explanation once
    assert (human["n_groups"], human["n_items"], human["n_repeats"]) == (192, 24, 2)


def test_table_has_one_row_per_setting_in_the_configured_order() -> None:
    config = TEXT_ONLY.model_copy(
        update={"reductions": ("shared_words_masked", "none"), "normalisations": ("none", "surface"), "n_repeats": 1}
    )
    table = stability_table(persona_corpus(n_train=9), config, None)
    assert table.schema == pl.Schema(STABILITY)
    keys = table.select("reduction", "normalisation", "condition", "group_size").rows()
    assert keys == [
        (reduction, normalisation, condition, size)
        for reduction in ("shared_words_masked", "none")
        for normalisation in ("none", "surface")
        for condition in ("human", "shuffled")
        for size in (1, 3)
    ]


def test_intervals_hold_their_values() -> None:
    noisy = persona_corpus(n_train=18).with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("no idea")).otherwise("explanation").alias("explanation")
    )
    table = stability_table(noisy, TEXT_ONLY, None)
    row = figure(table)
    assert row["ci_low"] < row["accuracy"] < row["ci_high"]
    assert figure(table, group_size=3)["accuracy"] > row["accuracy"]


def test_test_explanations_are_not_read() -> None:
    corpus = persona_corpus(n_train=12, n_validation=3, n_test=6)
    scrambled = corpus.with_columns(
        pl.when(pl.col("split") == "test").then(pl.lit("zzz")).otherwise("explanation").alias("explanation")
    )
    table = stability_table(corpus, TEXT_ONLY, None)
    assert table.equals(stability_table(scrambled, TEXT_ONLY, None))
    assert figure(table)["n_items"] == 15


def test_order_of_rows_does_not_matter() -> None:
    corpus = persona_corpus(n_train=12)
    shuffled = corpus.sample(fraction=1.0, shuffle=True, seed=1)
    assert stability_table(corpus, TEXT_ONLY, None).equals(stability_table(shuffled, TEXT_ONLY, None))


def test_items_of_one_context_are_held_out_together() -> None:
    # Nobody has a style: each annotator's text is made up anew per context, and both items of a context repeat it.
    # Whoever trains on one item of a context knows the other (accuracy 1); held out together, chance remains.
    rng = np.random.default_rng(0)
    rows = []
    for context in range(16):
        words = {name: " ".join("".join(rng.choice(list("abcdefgh"), 6)) for _ in range(4)) for name in HABITS}
        rows += [
            corpus_row(f"c{context}-{k}", name, "neutral", words[name], context_id=f"c{context}")
            for k in range(2)
            for name in HABITS
        ]
    leaky = corpus_frame([row | {"context_id": row["item_id"]} for row in rows])
    assert figure(stability_table(leaky, TEXT_ONLY, None))["accuracy"] > 0.7
    assert figure(stability_table(corpus_frame(rows), TEXT_ONLY, None))["accuracy"] < 0.4


def test_masking_takes_away_what_only_repeats_the_input() -> None:
    # ana quotes the first text, ben the second; neither has words of his own.
    rng = np.random.default_rng(1)
    rows = []
    for n in range(12):
        first, second = ("".join(rng.choice(list("abcdefghij"), 5)) for _ in range(2))
        texts = {"text_a": f"red {first}", "text_b": f"blue {second}"}
        rows += [corpus_row(f"i{n}", "ana", "neutral", f"red {first}", **texts)]
        rows += [corpus_row(f"i{n}", "ben", "neutral", f"blue {second}", **texts)]
    config = TEXT_ONLY.model_copy(update={"reductions": ("none", "shared_words_masked")})
    table = stability_table(corpus_frame(rows), config, None)
    assert figure(table)["accuracy"] == 1.0
    assert figure(table, reduction="shared_words_masked")["accuracy"] == pytest.approx(0.5, abs=0.01)


def test_item_content_is_taken_out_of_embeddings() -> None:
    # ana and ben each own half of the topics in the raw embedding; minus the item's mean only manner is left, and here
    # there is none: all of an item say the same.
    rows = [corpus_row(f"i{n}", name, "neutral", "abc"[n % 3] * 4) for n in range(12) for name in ("ana", "ben")]
    config = TEXT_ONLY.model_copy(update={"reductions": ("embedding_minus_item_mean",)})
    table = stability_table(corpus_frame(rows), config, embed_by_letters)
    row = figure(table, reduction="embedding_minus_item_mean")
    assert row["accuracy"] == pytest.approx(0.5)
    with_style = persona_corpus(n_train=18)
    found = stability_table(with_style, config, embed_by_letters)
    assert figure(found, reduction="embedding_minus_item_mean")["accuracy"] > 0.9


def test_without_an_encoder_embedding_rows_say_not_measured() -> None:
    config = TEXT_ONLY.model_copy(update={"reductions": ("none", "embedding_minus_item_mean")})
    table = stability_table(persona_corpus(n_train=9), config, None)
    for condition in ("human", "shuffled"):
        row = figure(table, reduction="embedding_minus_item_mean", condition=condition)
        assert (row["accuracy"], row["ci_low"], row["ci_high"], row["n_groups"]) == (None, None, None, 0)
    assert figure(table)["accuracy"] is not None


def test_groups_greater_than_the_number_of_items_are_not_measured() -> None:
    config = TEXT_ONLY.model_copy(update={"group_sizes": (1, 10)})
    row = figure(stability_table(persona_corpus(n_train=9), config, None), group_size=10)
    assert (row["accuracy"], row["n_groups"], row["n_repeats"]) == (None, 0, 0)


def test_annotator_with_two_explanations_of_an_item_has_one_of_them_in_each_group() -> None:
    corpus = persona_corpus(n_train=9)
    twice = corpus.filter(pl.col("annotator_id") == "ana").with_columns(
        pl.lit("entailment").alias("label"), ("Again: " + pl.col("explanation")).alias("explanation")
    )
    row = figure(stability_table(pl.concat([corpus, twice]), TEXT_ONLY, None))
    assert row["n_groups"] == 9 * 4 * 2  # not 9 · 5 · 2


def test_progress_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    config = TEXT_ONLY.model_copy(update={"reductions": ("none", "embedding_minus_item_mean")})
    stability_table(
        persona_corpus(n_train=9), config, None, progress=lambda n_done, n_total: told.append((n_done, n_total))
    )
    assert told == [(k, 6) for k in range(1, 7)]  # 3 folds · 2 repeats of the one reduction that can be measured


def test_fewer_contexts_than_folds_is_an_error_that_says_so() -> None:
    with pytest.raises(CorpusError, match=r"n_folds is 3.*2 contexts"):
        stability_table(persona_corpus(n_train=2), TEXT_ONLY, None)


def test_one_annotator_only_is_an_error() -> None:
    alone = persona_corpus(n_train=9).filter(pl.col("annotator_id") == "ben")
    with pytest.raises(CorpusError, match=r"at least two annotators.*ben"):
        stability_table(alone, TEXT_ONLY, None)


@pytest.mark.slow
def test_varierr_accuracy_is_near_what_was_measured_before() -> None:
    # Measured apart from this code on all items: raw .75 at k = 1 and .99 at k = 5; shuffled about .27.
    folder = os.environ.get("CAPO_DATA_DIR")
    if not folder or not (path := Path(folder) / "varierr.json").is_file():
        pytest.skip("CAPO_DATA_DIR does not hold varierr.json")
    from capo_core.corpora import read_corpus
    from capo_core.splits import assign_splits

    corpus = assign_splits(read_corpus([path], "varierr", NLI).annotations, SplitConfig())
    config = StabilityConfig(
        reductions=("none",), normalisations=("none",), group_sizes=(1, 5), n_repeats=1, n_bootstrap=100
    )
    table = stability_table(corpus, config, None)
    assert figure(table)["accuracy"] == pytest.approx(0.75, abs=0.04)
    assert figure(table, group_size=5)["accuracy"] == pytest.approx(0.98, abs=0.02)
    assert figure(table, condition="shuffled")["accuracy"] == pytest.approx(0.25, abs=0.05)
