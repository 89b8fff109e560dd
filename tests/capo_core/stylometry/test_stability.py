"""Attribution of held-out human text: what it finds, what it must not see, and its control."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from evaluation_material import (
    HABITS,
    corpus_frame,
    corpus_row,
    embed_by_letters,
    explain,
    find,
    persona_corpus,
    styleless_corpus,
)
from real_data import paraphrase_corpus, varierr_corpus

from capo_core.errors import CorpusError
from capo_core.stylometry import separability
from capo_core.stylometry.controls import draw_within_items
from capo_core.stylometry.reduction import Embed
from capo_core.stylometry.separability import stability_table
from schemas.config import StabilityConfig
from schemas.frames import STABILITY, STABILITY_BY_ANNOTATOR

TEXT_ONLY = StabilityConfig(
    reductions=("none",),
    normalisations=("none",),
    classifiers=("ngrams",),
    group_sizes=(1, 3),
    n_folds=3,
    n_repeats=2,
    n_bootstrap=100,
    n_permutations=200,
)
ITEM_MEANS = {"reductions": ("embedding_minus_item_mean",), "classifiers": ("embeddings",)}


def measure(corpus: pl.DataFrame, config: StabilityConfig = TEXT_ONLY, embed: Embed | None = None) -> pl.DataFrame:
    return stability_table(corpus, config, embed)[0]


def figure(table: pl.DataFrame, **wanted: object) -> dict:
    usual = {"reduction": "none", "normalisation": "none", "classifier": "ngrams", "condition": "human"}
    return find(table, **usual | {"stratum": None, "group_size": 1} | wanted)


def test_personas_are_found_and_shuffled_ones_are_not() -> None:
    table = measure(persona_corpus(n_train=24))
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
    table = measure(persona_corpus(n_train=12), config)
    assert table.schema == pl.Schema(STABILITY)
    labels = (None, "contradiction", "entailment", "neutral")
    strata = {"human": (None,), "shuffled": (None,), "label_fixed": labels, "label_left_out": labels}
    keys = table.select("reduction", "normalisation", "condition", "stratum", "group_size").rows()
    assert keys == [
        (reduction, normalisation, condition, stratum, size)
        for reduction in ("shared_words_masked", "none")
        for normalisation in ("none", "surface")
        for condition in strata
        if normalisation == "surface" or condition in ("human", "shuffled")
        for stratum in strata[condition]
        for size in (1, 3)
    ]


def test_intervals_hold_their_values() -> None:
    noisy = persona_corpus(n_train=18).with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("no idea")).otherwise("explanation").alias("explanation")
    )
    table = measure(noisy)
    row = figure(table)
    assert row["ci_low"] < row["accuracy"] < row["ci_high"]
    assert figure(table, group_size=3)["accuracy"] > row["accuracy"]


def test_test_explanations_are_not_read() -> None:
    corpus = persona_corpus(n_train=12, n_validation=3, n_test=6)
    scrambled = corpus.with_columns(
        pl.when(pl.col("split") == "test").then(pl.lit("zzz")).otherwise("explanation").alias("explanation")
    )
    table = measure(corpus)
    assert table.equals(measure(scrambled))
    assert figure(table)["n_items"] == 15


def test_order_of_rows_does_not_matter() -> None:
    corpus = persona_corpus(n_train=12)
    shuffled = corpus.sample(fraction=1.0, shuffle=True, seed=1)
    assert measure(corpus).equals(measure(shuffled))


def test_items_of_one_context_are_held_out_together() -> None:
    # Whoever trains on one item of a context knows the other (accuracy 1); held out together, chance remains.
    corpus = styleless_corpus()
    leaky = corpus.with_columns(pl.col("item_id").alias("context_id"))
    assert figure(measure(leaky))["accuracy"] > 0.7
    assert figure(measure(corpus))["accuracy"] < 0.4


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
    table = measure(corpus_frame(rows), config)
    assert figure(table)["accuracy"] == 1.0
    assert figure(table, reduction="shared_words_masked")["accuracy"] == pytest.approx(0.5, abs=0.01)


def test_item_content_is_taken_out_of_embeddings() -> None:
    # ana and ben each own half of the topics in the raw embedding; minus the item's mean only manner is left, and here
    # there is none: all of an item say the same.
    rows = [corpus_row(f"i{n}", name, "neutral", "abc"[n % 3] * 4) for n in range(12) for name in ("ana", "ben")]
    config = TEXT_ONLY.model_copy(update=ITEM_MEANS)
    table = measure(corpus_frame(rows), config, embed_by_letters)
    row = figure(table, reduction="embedding_minus_item_mean", classifier="embeddings")
    assert row["accuracy"] == pytest.approx(0.5)
    assert row["p_value_retrained"] is None  # no two rows differ
    with_style = persona_corpus(n_train=18)
    found = measure(with_style, config, embed_by_letters)
    assert figure(found, reduction="embedding_minus_item_mean", classifier="embeddings")["accuracy"] > 0.9


def test_without_an_encoder_embedding_rows_say_not_measured() -> None:
    config = TEXT_ONLY.model_copy(
        update={"reductions": ("none", *ITEM_MEANS["reductions"]), "classifiers": ("ngrams", "embeddings")}
    )
    table = measure(persona_corpus(n_train=9), config)
    for condition in ("human", "shuffled"):
        row = figure(table, reduction="embedding_minus_item_mean", classifier="embeddings", condition=condition)
        assert (row["accuracy"], row["ci_low"], row["ci_high"], row["n_groups"]) == (None, None, None, 0)
    assert figure(table)["accuracy"] is not None


def test_groups_greater_than_the_number_of_items_are_not_measured() -> None:
    config = TEXT_ONLY.model_copy(update={"group_sizes": (1, 10)})
    row = figure(measure(persona_corpus(n_train=9), config), group_size=10)
    assert (row["accuracy"], row["n_groups"], row["n_repeats"]) == (None, 0, 0)


def test_annotator_with_two_explanations_of_an_item_has_one_of_them_in_each_group() -> None:
    corpus = persona_corpus(n_train=9)
    twice = corpus.filter(pl.col("annotator_id") == "ana").with_columns(
        pl.lit("entailment").alias("label"), ("Again: " + pl.col("explanation")).alias("explanation")
    )
    row = figure(measure(pl.concat([corpus, twice])))
    assert row["n_groups"] == 9 * 4 * 2  # not 9 · 5 · 2


def test_each_annotator_has_a_figure_of_his_own() -> None:
    # dee copies ana's manner, so that each of them is taken for the other half of the time; ben and cem are known.
    corpus = persona_corpus(n_train=24).with_columns(
        pl.when(pl.col("annotator_id") == "dee")
        .then(pl.col("explanation").filter(pl.col("annotator_id") == "ana").first().over("item_id"))
        .otherwise("explanation")
        .alias("explanation")
    )
    table, by_annotator = stability_table(corpus, TEXT_ONLY, None)
    assert by_annotator.schema == pl.Schema(STABILITY_BY_ANNOTATOR)
    own = {name: find(by_annotator, annotator_id=name, group_size=1) for name in ("ana", "ben", "cem", "dee")}
    assert own["ben"]["accuracy"] == own["cem"]["accuracy"] == 1.0
    assert own["ana"]["accuracy"] + own["dee"]["accuracy"] == pytest.approx(1.0, abs=0.01)
    assert figure(table)["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in own.values()]))
    assert own["ana"]["ci_low"] <= own["ana"]["accuracy"] <= own["ana"]["ci_high"]
    assert own["ana"]["n_items"] == 24


def test_style_that_is_there_is_significant_and_the_control_has_no_test() -> None:
    table = measure(persona_corpus(n_train=12))
    assert figure(table)["p_value"] == pytest.approx(1 / 201)  # none of 200 permutations comes near
    assert figure(table, group_size=3)["p_value"] == pytest.approx(1 / 201)
    assert figure(table, condition="shuffled")["p_value"] is None


def test_retrained_classifier_is_tested_on_people_s_text_for_all_labels_together() -> None:
    table = measure(persona_corpus(n_train=12))
    for size in (1, 3):
        assert figure(table, group_size=size)["p_value_retrained"] == pytest.approx(1 / 201)
    others = table.filter(pl.col("condition") != "human")
    assert set(others["condition"]) == {"shuffled", "label_fixed", "label_left_out"}
    assert others["p_value_retrained"].null_count() == others.height


def test_both_tests_find_no_style_where_there_is_none() -> None:
    # Every item's authors are drawn anew; one draw, its seed not chosen for the p-values.
    corpus = persona_corpus(n_train=30, n_test=0).sort("item_id")
    items = np.repeat(np.arange(30), 4)
    people = corpus["annotator_id"].to_numpy()[draw_within_items(items, 1, np.random.default_rng(1))[0]]
    row = figure(measure(corpus.with_columns(pl.Series("annotator_id", people, dtype=pl.String))))
    assert row["p_value"] > 0.05
    assert row["p_value_retrained"] > 0.05


def test_first_fold_is_judged_by_the_retrained_classifier_alone() -> None:
    # Four items, two folds, two annotators. The chain judges the second fold only: 2 items, 4 ways to permute, and the
    # one as observed comes in a quarter of the permutations. All folds: both orders of all four items, 2 of 16, give
    # accuracy 1 (whoever learns them all swapped, judges them all swapped). 4,000 permutations: standard error .007.
    rows = [corpus_row(f"i{n}", name, "neutral", explain(name, n)) for n in range(4) for name in ("ana", "ben")]
    config = TEXT_ONLY.model_copy(update={"n_folds": 2, "group_sizes": (1,), "n_permutations": 4000})
    row = figure(measure(corpus_frame(rows), config))
    assert row["p_value"] == pytest.approx(1 / 4, abs=0.03)
    assert row["p_value_retrained"] == pytest.approx(2 / 16, abs=0.03)


def test_embeddings_are_tested_with_retraining_too() -> None:
    config = TEXT_ONLY.model_copy(
        update={"reductions": ("none", "embedding_input_residual"), "classifiers": ("embeddings",)}
    )
    corpus = persona_corpus(n_train=12)
    human = measure(corpus, config, embed_by_letters).filter(condition="human")
    assert human["p_value_retrained"].to_list() == pytest.approx([1 / 201] * 4)
    without = measure(corpus, config)
    assert without["p_value_retrained"].null_count() == without.height


def test_retrained_p_value_is_null_where_authors_cannot_change_places() -> None:
    rows = [corpus_row(f"i{n}", name, "neutral", explain(name, n)) for n, name in enumerate(["ana", "ben"] * 9)]
    assert figure(measure(corpus_frame(rows)))["p_value_retrained"] is None


def test_retrained_p_value_is_null_above_the_number_of_rows_that_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = persona_corpus(n_train=12)  # 48 explanations
    monkeypatch.setattr(separability, "MAX_RETRAINED_ROWS", 48)
    assert figure(measure(corpus))["p_value_retrained"] is not None
    monkeypatch.setattr(separability, "MAX_RETRAINED_ROWS", 47)
    row = figure(measure(corpus))
    assert row["p_value_retrained"] is None
    assert row["p_value"] is not None


def label_habits(manner: dict[str, str]) -> pl.DataFrame:
    """Return a corpus in which annotators choose among two labels, and `manner` is what each writes for each."""
    rng = np.random.default_rng(3)
    labels = [str(rng.choice(["neutral", "entailment"])) for _ in range(60)]
    rows = [
        corpus_row(f"i{n}", name, labels[n], f"{manner[f'{name} {labels[n]}']} {rng.choice(['red', 'blue', 'green'])}")
        for n in range(30)
        for name in ("ana", "ben")
    ]
    return corpus_frame(rows)


def test_style_of_the_person_survives_a_label_left_out() -> None:
    habits = {"ana": "well quite so", "ben": "it is told that"}
    table = measure(label_habits({f"{a} {label}": h for a, h in habits.items() for label in ("neutral", "entailment")}))
    for condition in ("label_fixed", "label_left_out"):
        for stratum in (None, "neutral", "entailment"):
            assert figure(table, condition=condition, stratum=stratum)["accuracy"] == 1.0


def test_habits_tied_to_a_label_do_not_survive_its_leaving_out() -> None:
    # Each has another formula for every label: known when the label was seen, and when it was not, nobody's.
    manner = {
        "ana neutral": "aaa bbb",
        "ben neutral": "ccc ddd",
        "ana entailment": "eee fff",
        "ben entailment": "ggg hhh",
    }
    table = measure(label_habits(manner))
    assert figure(table)["accuracy"] == 1.0
    assert figure(table, condition="label_fixed")["accuracy"] == 1.0
    left_out = figure(table, condition="label_left_out")
    assert left_out["accuracy"] == pytest.approx(0.5, abs=0.15)
    assert left_out["p_value"] > 0.05


def test_groups_of_one_label_count_the_items_that_have_it() -> None:
    rows = [
        corpus_row(f"i{n}", name, "neutral" if n < 8 else "entailment", explain(name, n))
        for n in range(12)
        for name in HABITS
    ]
    table = measure(corpus_frame(rows))
    neutral = figure(table, condition="label_fixed", stratum="neutral")
    # 8 items · 4 annotators · 2 repeats, and all together 12 · 4 · 2
    assert (neutral["n_items"], neutral["n_groups"]) == (8, 64)
    together = figure(table, condition="label_fixed")
    assert (together["n_items"], together["n_groups"]) == (12, 96)


def test_one_label_only_leaves_nothing_to_leave_out() -> None:
    corpus = persona_corpus(n_train=9).with_columns(pl.lit("neutral").alias("label"))
    assert set(measure(corpus)["condition"]) == {"human", "shuffled"}


def test_genres_are_left_out_where_the_items_have_them() -> None:
    corpus = persona_corpus(n_train=12).with_columns(
        pl.when(pl.col("item_id") < "i006")
        .then(pl.lit('{"genre": "fiction"}'))
        .otherwise(pl.lit('{"genre": "travel"}'))
        .alias("metadata")
    )
    table, _ = stability_table(corpus, TEXT_ONLY, None, genre="genre")
    rows = table.filter(pl.col("condition") == "genre_left_out")
    assert rows["stratum"].unique(maintain_order=True).to_list() == [None, "fiction", "travel"]
    assert figure(table, condition="genre_left_out", stratum="travel")["n_items"] == 6
    assert figure(table, condition="genre_left_out")["accuracy"] > 0.9
    assert set(stability_table(corpus, TEXT_ONLY, None, genre="domain")[0]["condition"]) == set(
        measure(corpus)["condition"]
    )


def test_both_classifiers_read_text_and_embeddings_read_more() -> None:
    config = TEXT_ONLY.model_copy(
        update={
            "reductions": ("none", "content_words_masked", "embedding_minus_item_mean", "embedding_input_residual"),
            "classifiers": ("ngrams", "embeddings"),
            "n_repeats": 1,
        }
    )
    table = measure(persona_corpus(n_train=12), config, embed_by_letters)
    human = table.filter(condition="human", group_size=1)
    assert human.select("reduction", "classifier").rows() == [
        ("none", "ngrams"),
        ("none", "embeddings"),
        ("content_words_masked", "ngrams"),
        ("content_words_masked", "embeddings"),
        ("embedding_minus_item_mean", "embeddings"),
        ("embedding_input_residual", "embeddings"),
    ]
    assert (human["accuracy"] > 0.8).all()


def test_progress_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    config = TEXT_ONLY.model_copy(update={"reductions": ("none", "embedding_minus_item_mean")})
    corpus = persona_corpus(n_train=9).with_columns(pl.lit("neutral").alias("label"))
    stability_table(corpus, config, None, progress=lambda n_done, n_total: told.append((n_done, n_total)))
    # 3 folds · 2 repeats, and the 2 later folds of the chain, of the one variant that can be measured
    assert told == [(k, 8) for k in range(1, 9)]


def test_fewer_contexts_than_folds_is_an_error_that_says_so() -> None:
    with pytest.raises(CorpusError, match=r"n_folds is 3.*2 contexts"):
        measure(persona_corpus(n_train=2))


def test_one_annotator_only_is_an_error() -> None:
    alone = persona_corpus(n_train=9).filter(pl.col("annotator_id") == "ben")
    with pytest.raises(CorpusError, match=r"at least two annotators.*ben"):
        measure(alone)


@pytest.mark.slow
def test_varierr_accuracy_is_near_what_was_measured_before() -> None:
    # Measured apart from this code on all items: raw .75 at k = 1 and .99 at k = 5; shared words masked .80, and
    # without surface .70; annotators shuffled .27, chance being .25.
    config = TEXT_ONLY.model_copy(
        update={
            "reductions": ("none", "shared_words_masked"),
            "normalisations": ("none", "surface"),
            "group_sizes": (1, 5),
            "n_folds": 5,
            "n_repeats": 1,
        }
    )
    table = measure(varierr_corpus(), config)
    assert figure(table)["accuracy"] == pytest.approx(0.75, abs=0.04)
    assert figure(table, group_size=5)["accuracy"] == pytest.approx(0.99, abs=0.02)
    masked = {"reduction": "shared_words_masked"}
    assert figure(table, **masked)["accuracy"] == pytest.approx(0.80, abs=0.04)
    assert figure(table, **masked, normalisation="surface")["accuracy"] == pytest.approx(0.70, abs=0.04)
    assert figure(table, **masked, normalisation="surface", group_size=5)["accuracy"] == pytest.approx(0.96, abs=0.04)
    floors = table.filter(condition="shuffled", group_size=1)["accuracy"]
    assert floors.to_list() == pytest.approx([0.25] * 4, abs=0.03)
    assert (table.filter(pl.col("condition") != "shuffled")["p_value"] == 1 / 201).all()
    assert (table.filter(condition="human")["p_value_retrained"] == 1 / 201).all()


@pytest.mark.slow
def test_paraphrase_accuracy_is_near_what_was_measured_before() -> None:
    config = TEXT_ONLY.model_copy(update={"n_folds": 5, "n_repeats": 1, "group_sizes": (1,)})
    table = measure(paraphrase_corpus(), config)
    assert figure(table)["accuracy"] == pytest.approx(0.97, abs=0.04)
    assert figure(table, condition="shuffled")["accuracy"] == pytest.approx(0.25, abs=0.03)
    strata = table.filter(condition="label_left_out")["stratum"].to_list()
    assert strata == [None, "negative", "zero", "positive"]
