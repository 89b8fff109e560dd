from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from judging_material import ANNOTATORS, TASK, make_corpus, make_generations, split_of
from validation_material import SECRET, SMALL, make_set

from capo_core.errors import CorpusError
from capo_core.human_validation.blinding import build_validation_set, name_set, sign_task, verify_tasks
from schemas.human_validation import HumanValidationConfig


def of_kind(key: pl.DataFrame, kind: str) -> list[dict]:
    return key.filter(pl.col("kind") == kind).to_dicts()


def test_attention_checks_show_their_authors_references_word_for_word() -> None:
    tasks, key = make_set()
    checks = of_kind(key, "attention")
    assert Counter(check["annotator_id"] for check in checks) == dict.fromkeys(ANNOTATORS, 1)
    shown = {row["task_id"]: row for row in tasks.iter_rows(named=True)}
    for check in checks:
        task = shown[check["task_id"]]
        behind = {one["candidate"]: one["annotator_id"] for one in check["candidate_annotators"]}
        examples = {behind[one["candidate"]]: one["examples"] for one in task["references"]}
        assert len(task["explanations"]) == SMALL.group_size
        assert set(task["explanations"]) <= set(examples[check["annotator_id"]])
        assert not any(
            set(task["explanations"]) & set(texts) for who, texts in examples.items() if who != check["annotator_id"]
        )
        numbers = [int(item[4:]) for item in check["item_ids"]]
        assert all(split_of(number) == "train" for number in numbers)
        # The texts stand beside the explanations of the same items.
        assert all(f"item{n:02d}" in text for n, text in zip(numbers, task["explanations"], strict=True))
        assert task["text_a"] == "\n".join(f"[{i}] first text {n}" for i, n in enumerate(numbers, start=1))


def test_explanations_that_everybody_shares_make_no_check() -> None:
    same = make_corpus().with_columns(
        pl.when(pl.col("split") == "train").then(pl.lit("It is so.")).otherwise("explanation").alias("explanation")
    )
    with pytest.raises(CorpusError, match="only 0 of 3 attention checks can be made"):
        build_validation_set(same, make_generations(("sft",), (1,)), TASK, SMALL, secret=SECRET)


def test_repeats_show_the_same_content_with_every_candidate_under_another_letter() -> None:
    tasks, key = make_set()
    shown = {row["task_id"]: row for row in tasks.iter_rows(named=True)}
    hidden = {row["task_id"]: row for row in key.iter_rows(named=True)}
    repeats = of_kind(key, "repeat")
    # Spread over the two methods.
    assert sorted(repeat["method"] for repeat in repeats) == ["human", "sft"]
    for repeat in repeats:
        first = hidden[repeat["repeats"]]
        assert first["kind"] == "rating"
        assert [repeat[name] for name in ("method", "seed", "annotator_id", "item_ids")] == [
            first[name] for name in ("method", "seed", "annotator_id", "item_ids")
        ]
        again, before = shown[repeat["task_id"]], shown[first["task_id"]]
        assert [again[name] for name in ("text_a", "text_b", "explanations")] == [
            before[name] for name in ("text_a", "text_b", "explanations")
        ]
        letters = [
            {one["annotator_id"]: one["candidate"] for one in row["candidate_annotators"]} for row in (repeat, first)
        ]
        assert all(letters[0][who] != letters[1][who] for who in ANNOTATORS)
        assert sorted(one["examples"] for one in again["references"]) == sorted(
            one["examples"] for one in before["references"]
        )


def test_checks_and_repeats_stand_anywhere_and_look_like_any_task() -> None:
    config = SMALL.model_copy(update={"n_tasks": 18, "n_attention": 9, "n_repeated": 9})
    tasks, key = make_set(config)
    assert sorted(tasks["position"]) == list(range(1, 37))
    kinds = dict(key.select("task_id", "kind").iter_rows())
    in_order = [kinds[task_id] for task_id in tasks.sort("position")["task_id"]]
    # No kind comes first or last as a block: each is among the first and the last 18.
    assert set(in_order[:18]) == set(in_order[18:]) == {"rating", "attention", "repeat"}
    assert tasks["explanations"].list.len().unique().to_list() == [2]
    assert tasks["task_id"].str.len_chars().unique().to_list() == [16]


def test_more_repeats_than_tasks_repeat_every_task_once() -> None:
    _, key = make_set(SMALL.model_copy(update={"n_tasks": 4, "n_repeated": 50}))
    assert sorted(row["repeats"] for row in of_kind(key, "repeat")) == sorted(
        row["task_id"] for row in of_kind(key, "rating")
    )


def test_every_task_carries_the_signature_of_its_other_columns() -> None:
    tasks, key = make_set()
    verify_tasks(tasks, key, SECRET)
    signatures = dict(key.select("task_id", "signature").iter_rows())
    for row in tasks.iter_rows(named=True):
        assert row["signature"] == signatures[row["task_id"]] == sign_task(row | {"signature": "anything"}, SECRET)
        assert sign_task(row | {"text_b": "else"}, SECRET) != row["signature"]


def test_a_set_is_named_by_its_content() -> None:
    tasks, _ = make_set()
    other, _ = make_set(SMALL.model_copy(update={"seed": 6}))
    assert name_set(tasks) == name_set(tasks.reverse()) != name_set(other)


def test_methods_are_compared_on_the_same_items_where_some_are_unreadable() -> None:
    # capo left the item 6 and 7 unexplained as ada, sft item 8 as ada: 6 of 9 items have both.
    readable = make_generations(("sft", "capo"), (1,)).with_columns(
        pl.when(
            (pl.col("annotator_id") == ANNOTATORS[0])
            & (
                ((pl.col("method") == "capo") & pl.col("item_id").is_in(["item06", "item07"]))
                | ((pl.col("method") == "sft") & (pl.col("item_id") == "item08"))
            )
        )
        .then(None)
        .otherwise("explanation")
        .alias("explanation")
    )
    config = HumanValidationConfig(
        methods=("sft", "capo"), n_tasks=18, n_attention=0, n_repeated=0, group_size=2, n_references=2, seed=5
    )
    _, key = build_validation_set(make_corpus(), readable, TASK, config, secret=SECRET)
    units = {
        method: {
            (row["annotator_id"], tuple(row["item_ids"])) for row in key.filter(method=method).iter_rows(named=True)
        }
        for method in ("sft", "capo")
    }
    assert units["sft"] == units["capo"]
    assert len(units["sft"]) == 9
    items = {item for who, of_unit in units["sft"] for item in of_unit if who == ANNOTATORS[0]}
    assert not items & {"item06", "item07", "item08"}


def test_a_group_larger_than_the_references_has_no_attention_check() -> None:
    with pytest.raises(ValueError, match="n_references 2 is less than group_size 3"):
        HumanValidationConfig(group_size=3, n_references=2)
    assert HumanValidationConfig(group_size=3, n_references=2, n_attention=0).n_attention == 0
