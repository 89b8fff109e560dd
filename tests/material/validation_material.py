"""A small validation set and scripted raters, for the tests of human validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl
from judging_material import ANNOTATORS, TASK, make_corpus, make_generations

from capo_core.human_validation.blinding import build_validation_set
from schemas.frames import RATINGS, VALIDATION_KEY
from schemas.human_validation import HumanValidationConfig

SECRET = b"a secret of sixteen bytes and more"
SMALL = HumanValidationConfig(
    methods=("human", "sft"), n_tasks=12, n_attention=3, n_repeated=2, n_raters=2, group_size=2, n_references=2, seed=5
)


def make_set(config: HumanValidationConfig = SMALL) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return tasks and key of a small set, by default 12 to rate, 3 attention checks and 2 repeats."""
    return build_validation_set(make_corpus(), make_generations(("sft", "capo"), (1,)), TASK, config, secret=SECRET)


def iterate_answers(tasks: pl.DataFrame, key: pl.DataFrame) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield every task as shown with the letter of the right answer."""
    hidden = {row["task_id"]: row for row in key.iter_rows(named=True)}
    for task in tasks.sort("position").iter_rows(named=True):
        found = hidden[task["task_id"]]
        behind = {one["annotator_id"]: one["candidate"] for one in found["candidate_annotators"]}
        yield task, behind[found["annotator_id"]]


def make_rows(
    tasks: pl.DataFrame, key: pl.DataFrame, rater: str, answer: Callable[[str], str] = lambda right: right
) -> list[dict[str, Any]]:
    """Return a rater's ratings as the columns of a ratings file; `answer` makes the letter of the right one."""
    return [
        {
            "task_id": task["task_id"],
            "signature": task["signature"],
            "rater_id": rater,
            "answer": answer(right),
            "comment": "",
            "seconds": 10.0,
            "presented": place,
        }
        for place, (task, right) in enumerate(iterate_answers(tasks, key), start=1)
    ]


def make_key(*tasks: tuple[str, str, str, str]) -> pl.DataFrame:
    """Return the key of tasks given as (task_id, kind or repeated task, method, annotator); A is the first annotator.

    A task that repeats another names it in place of its kind. Items are named after the task or the one it repeats,
    without its method: t1-sft and t1-capo are of the same items.
    """
    rows = [
        {
            "task_id": task_id,
            "signature": f"signed-{task_id}",
            "kind": kind if kind in ("rating", "attention") else "repeat",
            "repeats": None if kind in ("rating", "attention") else kind,
            "method": method,
            "seed": 1,
            "annotator_id": annotator,
            "item_ids": [f"item-{task_id.partition('-')[0]}"],
            "candidate_annotators": [
                {"candidate": letter, "annotator_id": who} for letter, who in zip("ABC", ANNOTATORS, strict=True)
            ],
        }
        for task_id, kind, method, annotator in tasks
    ]
    return pl.DataFrame(rows, schema=VALIDATION_KEY)


def rate(key: pl.DataFrame, answers: Mapping[str, str], seconds: float | None = None) -> pl.DataFrame:
    """Return a RATINGS frame: per task of the key the raters' answers, one letter each ("." for none, "-" no row)."""
    rows = []
    for task in key.iter_rows(named=True):
        behind = {one["candidate"]: one["annotator_id"] for one in task["candidate_annotators"]}
        for number, letter in enumerate(answers.get(task["task_id"], ""), start=1):
            if letter != "-":
                named = behind.get(letter)
                rows.append(
                    {
                        "task_id": task["task_id"],
                        "rater_id": f"r{number}",
                        "answer": letter if named else "",
                        "annotator_id": named,
                        "correct": named == task["annotator_id"] if named else None,
                        **{name: task[name] for name in ("kind", "repeats", "method", "seed", "item_ids")},
                        "author_id": task["annotator_id"],
                        "comment": "",
                        "seconds": seconds,
                        "presented": None,
                    }
                )
    return pl.DataFrame(rows, schema=RATINGS)
