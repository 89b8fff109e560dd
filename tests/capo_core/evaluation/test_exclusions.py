"""Exclusions: which rule was met by whom, and what then is not measured."""

from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import HABITS, corpus_frame, explain, generation, generations_frame, persona_corpus

from capo_core.evaluation.exclusions import (
    NO_RESPONSE,
    NO_TARGET,
    TOO_FEW,
    UNREADABLE,
    exclude_unreadable,
    find_exclusions,
)
from capo_core.evaluation.targets import HeldOut, Responses, read_held_out, read_responses
from schemas.config import EvaluationConfig
from schemas.frames import EXCLUSIONS

NAMES = list(HABITS)
CORPUS = persona_corpus(n_train=8, n_test=8)
ITEMS = CORPUS.filter(pl.col("split") == "test")["item_id"].unique().sort().to_list()
CONFIG = EvaluationConfig(group_sizes=(1, 5), min_readable=0.5)


def answers(unreadable: dict[str, int], seeds: tuple[int, ...] = (1,)) -> list[dict]:
    """Return sft's answers, the first `unreadable[name]` of each annotator and seed without an explanation."""
    return [
        generation("sft", name, item, explanation=None if k < unreadable.get(name, 0) else explain(name, k), seed=seed)
        for seed in seeds
        for name in NAMES
        for k, item in enumerate(ITEMS)
    ]


def read(rows: list[dict], corpus: pl.DataFrame = CORPUS) -> tuple[list[Responses], HeldOut]:
    generations = generations_frame(rows)
    held_out = read_held_out(corpus, generations)
    return read_responses(generations, held_out), held_out


def found(rows: list[dict], corpus: pl.DataFrame = CORPUS) -> list[tuple]:
    frame = find_exclusions(*read(rows, corpus), CONFIG)
    assert frame.schema == pl.Schema(EXCLUSIONS)
    return frame.rows()


def test_nothing_is_excluded_where_everything_was_answered_and_read() -> None:
    assert found(answers({})) == []


def test_annotator_of_whom_too_few_responses_could_be_read_is_excluded() -> None:
    # ana: 5 of 8 unreadable, 3/8 read, under one half. ben: 4 of 8, exactly one half, is not.
    rows = answers({"ana": 5, "ben": 4})
    assert ("sft", "sampled", "ana", UNREADABLE, 0.375, 0.5) in found(rows)
    assert [row[2] for row in found(rows) if row[3] == UNREADABLE] == ["ana"]
    kept = exclude_unreadable(read(rows)[0], CONFIG)[0]
    readable = (kept.explanations != None).sum(axis=(0, 2))  # noqa: E711  elementwise
    assert readable.tolist() == [0, 4, 8, 8]
    assert kept.parsed.sum(axis=(0, 2)).tolist() == [3, 4, 8, 8]  # decisions still count them


def test_share_that_could_be_read_is_over_all_seeds() -> None:
    # Seed 1: 0 of 8 read; seed 2: 8 of 8; together one half.
    rows = answers({"ana": 8}, seeds=(1,)) + answers({}, seeds=(2,))
    assert UNREADABLE not in {row[3] for row in found(rows)}


def test_groups_that_cannot_be_filled_are_named_once_not_for_those_excluded_anyway() -> None:
    # ben has 4 readable explanations, groups of 5 need 5; ana has 3 and is excluded altogether.
    rows = found(answers({"ana": 5, "ben": 4}))
    assert [row for row in rows if row[3] == TOO_FEW] == [("sft", "sampled", "ben", TOO_FEW, 4.0, 5.0)]


def test_items_without_target_or_response_are_counted() -> None:
    corpus = CORPUS.filter(~((pl.col("annotator_id") == "cem") & pl.col("item_id").is_in(ITEMS[:2])))
    rows = [row for row in answers({}) if not (row["annotator_id"] == "dee" and row["item_id"] == ITEMS[0])]
    assert found(rows, corpus) == [
        ("human", None, "cem", NO_TARGET, 2.0, 0.0),
        ("sft", "sampled", "dee", NO_RESPONSE, 1.0, 0.0),
    ]


def test_people_with_too_few_explanations_are_named_too() -> None:
    silent = (pl.col("annotator_id") == "cem") & (pl.col("item_id").is_in(ITEMS[:5]))
    corpus = corpus_frame(
        CORPUS.with_columns(pl.when(silent).then(None).otherwise("explanation").alias("explanation")).to_dicts()
    )
    assert found(answers({}), corpus) == [("human", None, "cem", TOO_FEW, 3.0, 5.0)]


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_threshold_is_the_configured_one(threshold: float) -> None:
    config = EvaluationConfig(group_sizes=(1,), min_readable=threshold)
    rules = find_exclusions(*read(answers({"ana": 1})), config)["rule"].to_list()
    assert (UNREADABLE in rules) == (threshold == 1.0)
