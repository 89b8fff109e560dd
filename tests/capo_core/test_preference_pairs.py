"""Demonstrations and preference pairs."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from evaluation_material import NLI

from capo_core.errors import CorpusError
from capo_core.preference_pairs import build_demonstrations, build_preferences
from capo_core.prompts import AnnotatorTag, build_prompt
from schemas.frames import CORPUS, DEMONSTRATIONS, PAIR_DROPS, PREFERENCES
from schemas.section import PairStrategy
from schemas.training import PairConfig

ALL = PairConfig()

ROWS = [
    # item, annotator, label, explanation, split
    ("i1", "ada", "neutral", " roofs ", "train"),
    ("i1", "ben", "neutral", "trees", "train"),
    ("i1", "cai", "entailment", "rain", "train"),
    ("i1", "cai", "neutral", "roofs", "train"),  # says exactly what ada says
    ("i2", "ada", "entailment", "alone", "validation"),  # nobody else
    ("i3", "ada", "neutral", "secret", "test"),
    ("i3", "ben", "neutral", "secret too", "test"),
    ("i4", "ada", "neutral", "first", "validation"),
    ("i4", "ada", "entailment", "second", "validation"),
    ("i4", "ben", "entailment", "other", "validation"),
    ("i4", "ben", "neutral", "second", "validation"),
]


@pytest.fixture
def corpus() -> pl.DataFrame:
    records = [
        {
            "item_id": item,
            "context_id": item,
            "text_a": f"Context of {item}",
            "text_b": f"Statement of {item}",
            "annotator_id": annotator,
            "label": label,
            "explanation": explanation,
            "source_file": "f",
            "source_line": 1,
            "source_id": item,
            "metadata": "{}",
            "split": split,
        }
        for item, annotator, label, explanation, split in ROWS
    ]
    return pl.DataFrame(records, schema=CORPUS)


def test_demonstrations_are_the_targets_own_responses_outside_test(corpus: pl.DataFrame) -> None:
    demonstrations = build_demonstrations(corpus, "ada", NLI, tag=None)

    assert demonstrations.select("item_id", "label", "split").rows() == [
        ("i1", "neutral", "train"),
        ("i2", "entailment", "validation"),
        ("i4", "entailment", "validation"),
        ("i4", "neutral", "validation"),
    ]
    assert demonstrations["annotator_id"].unique().to_list() == ["ada"]
    assert demonstrations["completion"][0].to_list() == [
        {"role": "assistant", "content": "Label: neutral\nExplanation: roofs"}
    ]
    assert demonstrations["prompt"][0].to_list() == build_prompt(NLI, "Context of i1", "Statement of i1")
    assert dict(demonstrations.schema) == DEMONSTRATIONS


def test_tagged_prompts_name_the_annotator(corpus: pl.DataFrame) -> None:
    tagged = build_prompt(NLI, "Context of i1", "Statement of i1", tag=AnnotatorTag("ada", "last"))

    assert build_demonstrations(corpus, "ada", NLI, tag="last")["prompt"][0].to_list() == tagged
    preferences, _ = build_preferences(corpus, "ada", NLI, ALL, tag="last")
    assert preferences["prompt"][0].to_list() == tagged


def test_every_own_response_is_preferred_over_every_other_persons(corpus: pl.DataFrame) -> None:
    preferences, drops = build_preferences(corpus, "ada", NLI, ALL, tag=None)

    columns = ["item_id", "chosen_label", "rejected_annotator_id", "rejected_label", "relation"]
    assert preferences.select(columns).rows() == [
        ("i1", "neutral", "ben", "neutral", "same_label"),
        ("i1", "neutral", "cai", "entailment", "different_label"),
        ("i4", "entailment", "ben", "entailment", "same_label"),
        ("i4", "entailment", "ben", "neutral", "different_label"),
        ("i4", "neutral", "ben", "entailment", "different_label"),
        ("i4", "neutral", "ben", "neutral", "same_label"),
    ]
    assert drops.rows() == [
        ("i1", "ada", "cai", "identical_response", "train"),
        ("i2", "ada", None, "no_other_annotator", "validation"),
    ]
    assert preferences["chosen"][0].to_list() == [
        {"role": "assistant", "content": "Label: neutral\nExplanation: roofs"}
    ]
    assert preferences["rejected"][0].to_list() == [
        {"role": "assistant", "content": "Label: neutral\nExplanation: trees"}
    ]
    assert preferences["weight"].to_list() == [1.0] * 6
    assert dict(preferences.schema) == PREFERENCES
    assert dict(drops.schema) == PAIR_DROPS


def test_weights_stand_beside_their_pairs_and_are_the_only_thing_they_change(corpus: pl.DataFrame) -> None:
    # Kept pairs of i1: ben with the same label, cai with another; of i4: ben twice for each of ada's two, likewise.
    # Raw .25 and .75, mean .5: weights .5 and 1.5.
    relation = PairConfig(weighting="relation", same_label_weight=0.25)
    preferences, drops = build_preferences(corpus, "ada", NLI, relation, tag=None)
    plain, plain_drops = build_preferences(corpus, "ada", NLI, ALL, tag=None)

    expected = [0.5 if one == "same_label" else 1.5 for one in preferences["relation"]]
    assert preferences["weight"].to_list() == expected
    assert set(expected) == {0.5, 1.5}
    assert preferences.drop("weight").equals(plain.drop("weight"))
    assert drops.equals(plain_drops)


def test_pairs_that_were_dropped_take_no_part_in_the_weights(corpus: pl.DataFrame) -> None:
    # With different labels only, every choice of ada's has one pair left, which weighs 1 whatever the weighting says.
    pairs = PairConfig(strategy="different_label", weighting="relation", same_label_weight=0.9)
    preferences, _ = build_preferences(corpus, "ada", NLI, pairs, tag=None)
    assert preferences["weight"].to_list() == [1.0] * 3


def test_response_the_target_also_gave_under_another_label_is_never_rejected(corpus: pl.DataFrame) -> None:
    # On i4 ada gave both labels; let ben give one of ada's two responses word for word.
    same = corpus.with_columns(
        explanation=pl.when((pl.col("item_id") == "i4") & (pl.col("annotator_id") == "ben"))
        .then(pl.when(pl.col("label") == "entailment").then(pl.lit("second")).otherwise(pl.lit("new")))
        .otherwise(pl.col("explanation"))
    )
    preferences, drops = build_preferences(same, "ada", NLI, ALL, tag=None)

    assert preferences.filter(pl.col("item_id") == "i4")["rejected_label"].unique().to_list() == ["neutral"]
    assert drops.filter(pl.col("item_id") == "i4")["reason"].to_list() == ["identical_response"] * 2


def test_pair_never_joins_an_annotator_with_himself(corpus: pl.DataFrame) -> None:
    for annotator in ("ada", "ben", "cai"):
        preferences, _ = build_preferences(corpus, annotator, NLI, ALL, tag=None)
        assert annotator not in preferences["rejected_annotator_id"]
        assert preferences["annotator_id"].unique().to_list() == [annotator]


@pytest.mark.parametrize(("strategy", "n_kept", "n_excluded"), [("same_label", 3, 3), ("different_label", 3, 3)])
def test_other_relation_is_dropped_with_its_reason(
    corpus: pl.DataFrame, strategy: PairStrategy, n_kept: int, n_excluded: int
) -> None:
    preferences, drops = build_preferences(corpus, "ada", NLI, PairConfig(strategy=strategy), tag=None)

    assert preferences["relation"].to_list() == [strategy] * n_kept
    assert drops.filter(pl.col("reason") == "relation_excluded").height == n_excluded
    assert preferences.height + drops.height == 8  # i1: 3 pairs, i2: 1 without, i4: 2 × 2


def test_test_items_enter_neither_pairs_nor_drops(corpus: pl.DataFrame) -> None:
    preferences, drops = build_preferences(corpus, "ben", NLI, PairConfig(strategy="same_label"), tag=None)

    assert "i3" not in {*preferences["item_id"], *drops["item_id"]}
    assert "secret" not in str(preferences.to_dicts())


def test_result_does_not_depend_on_row_order(corpus: pl.DataFrame) -> None:
    shuffled = corpus.sample(fraction=1.0, shuffle=True, seed=5)

    assert build_demonstrations(corpus, "ada", NLI, tag=None).equals(
        build_demonstrations(shuffled, "ada", NLI, tag=None)
    )
    for one, other in zip(
        build_preferences(corpus, "ada", NLI, ALL, tag=None),
        build_preferences(shuffled, "ada", NLI, ALL, tag=None),
        strict=True,
    ):
        assert one.equals(other)


def test_unknown_annotator_is_an_error_that_names_the_known(corpus: pl.DataFrame) -> None:
    for build in (
        lambda: build_demonstrations(corpus, "eve", NLI, tag=None),
        lambda: build_preferences(corpus, "eve", NLI, ALL, tag=None),
    ):
        with pytest.raises(CorpusError, match=r"no annotator 'eve' in the corpus; known are ada, ben, cai"):
            build()


def test_nobody_to_compare_with_leaves_typed_empty_pairs(corpus: pl.DataFrame) -> None:
    preferences, drops = build_preferences(corpus.filter(pl.col("annotator_id") == "ada"), "ada", NLI, ALL, tag=None)

    assert preferences.is_empty()
    assert dict(preferences.schema) == PREFERENCES
    assert drops["reason"].to_list() == ["no_other_annotator"] * 4


def test_stored_tables_are_the_conversations_that_trl_reads(corpus: pl.DataFrame, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.data_utils import is_conversational

    preferences, _ = build_preferences(corpus, "ada", NLI, ALL, tag=None)
    demonstrations = build_demonstrations(corpus, "ada", NLI, tag=None)
    for name, frame, turns in (("p", preferences, ("chosen", "rejected")), ("d", demonstrations, ("completion",))):
        frame.write_parquet(tmp_path / f"{name}.parquet")
        dataset = Dataset.from_parquet(str(tmp_path / f"{name}.parquet"), cache_dir=str(tmp_path))
        assert isinstance(dataset, Dataset)
        row = dataset[0]
        assert isinstance(row, dict)
        assert is_conversational({key: row[key] for key in ("prompt", *turns)})
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert all([set(message) for message in row[key]] == [{"role", "content"}] for key in turns)
