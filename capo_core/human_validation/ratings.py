"""Ratings back in: read from any of the forms they come in, and matched with the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from capo_core.errors import RatingsError
from capo_core.human_validation.platform_task import render_task
from capo_core.human_validation.rating_rows import RatingRow, read_rows
from schemas.frames import RATINGS, check_columns

MAX_PROBLEMS_SHOWN = 20

_Task = Mapping[str, Any]


def read_ratings(path: Path | Sequence[Path], key: pl.DataFrame, tasks: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the ratings in one file or several as a RATINGS frame, sorted by task and rater.

    Read are CSV (comma, semicolon or tab), JSON Lines (.jsonl: the rating page's download), and the JSON exports of
    Label Studio and Argilla (.json). Columns of tables: task_id, signature, rater_id, answer and, if present, comment,
    seconds and presented; others are ignored. Rows may be missing: a rater need not have seen every task. An empty
    answer stays in, as unanswered. In a file that names a single rater, rows without a name are that rater's.

    Args:
        path: the file or files.
        key: VALIDATION_KEY of the set that was handed out.
        tasks: VALIDATION_TASKS of the same set. Files that carry the tasks' texts along (Label Studio's and
            Argilla's) are compared with it.

    Raises:
        RatingsError: if a file cannot be read, lacks a column, or any row names an unknown task, another signature
            than the task's, altered texts, no rater, a letter that is no candidate of its task, something that is no
            time or place, or a task its rater has answered before; every such row is listed with file, line and
            value, and none of the ratings is taken.
        ValueError: if a file carries texts and `tasks` is not given, or `tasks` is of another set than `key`.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    rows = [row for one in paths for row in read_rows(one)]
    hidden = {row["task_id"]: row for row in key.iter_rows(named=True)}
    if tasks is None and any(row.content is not None for row in rows):
        raise ValueError("exports of annotation platforms are compared with the tasks handed out: give `tasks`")
    shown = {} if tasks is None else {row["task_id"]: row for row in tasks.iter_rows(named=True)}
    if tasks is not None and shown.keys() != hidden.keys():
        raise ValueError("`tasks` and `key` are not of the same validation set")
    problems: list[str] = []
    first_seen: dict[tuple[str, str], str] = {}
    ratings = []
    for row in rows:
        found = [*row.problems, *_find_problems(row, hidden, shown, first_seen)]
        problems += [f"{row.place}: {problem}" for problem in found]
        first_seen.setdefault((row.task_id, row.rater_id), row.place)
        if not found:
            ratings.append(_to_rating(row, hidden[row.task_id]))
    if problems:
        listed = problems[:MAX_PROBLEMS_SHOWN]
        more = [f"and {len(problems) - len(listed)} more"] if len(problems) > len(listed) else []
        raise RatingsError("ratings refused:\n" + "\n".join(listed + more))
    frame = pl.DataFrame(ratings, schema=RATINGS).sort("task_id", "rater_id")
    return check_columns(frame, RATINGS, "ratings")


def _find_problems(
    row: RatingRow,
    hidden: Mapping[str, _Task],
    shown: Mapping[str, _Task],
    first_seen: Mapping[tuple[str, str], str],
) -> list[str]:
    """Return what is wrong with one row, in words."""
    problems = []
    if not row.rater_id:
        problems.append(f"no rater_id for task {row.task_id!r}; enter who answered")
    elif not row.rater_id.isprintable():
        problems.append(f"rater_id {row.rater_id!r} has characters that cannot be shown; enter a plain name")
    if earlier := first_seen.get((row.task_id, row.rater_id)):
        problems.append(f"rater {row.rater_id!r} has rated task {row.task_id!r} before, in {earlier}; keep one")
    task = hidden.get(row.task_id)
    if task is None:
        return [*problems, f"unknown task {row.task_id!r}; it is not of this validation set or was changed"]
    if row.signature != task["signature"]:
        problems.append(
            f"signature {row.signature!r} is not that of task {row.task_id!r}; it was changed or is of another set"
        )
    letters = [candidate["candidate"] for candidate in task["candidate_annotators"]]
    if row.answer and row.answer not in letters:
        problems.append(f"answer {row.answer!r} for task {row.task_id!r} is none of {', '.join(letters)}")
    if row.presented is not None and row.presented > len(hidden):
        problems.append(f"presented: task {row.task_id!r} as number {row.presented} of {len(hidden)}")
    if row.content is not None:
        problems += _find_changes(row.task_id, row.content, render_task(shown[row.task_id]))
    return problems


def _find_changes(task_id: str, found: Mapping[str, Any], handed_out: Mapping[str, Any]) -> list[str]:
    """Return which of a task's fields are not as they were handed out; fields added by the platform do not matter."""
    return [
        f"field {name!r} of task {task_id!r} is {found.get(name)!r:.80}, not the text that was handed out"
        for name, text in handed_out.items()
        if found.get(name) != text
    ]


def _to_rating(row: RatingRow, task: _Task) -> dict[str, Any]:
    named = {candidate["candidate"]: candidate["annotator_id"] for candidate in task["candidate_annotators"]}
    return {
        "task_id": row.task_id,
        "rater_id": row.rater_id,
        "answer": row.answer,
        "annotator_id": named.get(row.answer),
        "correct": named[row.answer] == task["annotator_id"] if row.answer else None,
        "kind": task["kind"],
        "repeats": task["repeats"],
        "method": task["method"],
        "seed": task["seed"],
        "author_id": task["annotator_id"],
        "item_ids": task["item_ids"],
        "comment": row.comment,
        "seconds": row.seconds,
        "presented": row.presented,
    }
