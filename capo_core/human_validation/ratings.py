"""Ratings back in: read, matched with the key, summarised."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from capo_core.errors import RatingsError
from capo_core.human_validation.sheet import RATING_COLUMNS
from capo_core.judging.groups import HUMAN
from capo_core.judging.intervals import NOT_MEASURED, Estimate, mean_over_annotators, none_if_nan
from capo_core.seeding import derive_seed
from schemas.frames import METRICS, RATINGS, check_columns

MAX_PROBLEMS_SHOWN = 20

_REQUIRED = ("task_id", "rater_id", "answer")


@dataclass(frozen=True)
class _Row:
    """One row of a ratings file, white space stripped."""

    place: str  # "file, line n"
    task_id: str
    rater_id: str
    answer: str
    comment: str


def read_ratings(path: Path | Sequence[Path], key: pl.DataFrame) -> pl.DataFrame:
    """Return the ratings in one file or several as a RATINGS frame, sorted by task and rater.

    Read are CSV (comma, semicolon or tab) and, by the ending .jsonl, JSON Lines. Columns: task_id, rater_id, answer
    and, if present, comment; others are ignored. Rows may be missing: a rater need not have seen every task. An
    empty answer stays in, as unanswered. In a file that names a single rater, rows without a name are that rater's.

    Args:
        path: the file or files.
        key: VALIDATION_KEY of the set that was handed out.

    Raises:
        RatingsError: if a file cannot be read, lacks a column, or any row names an unknown task, no rater, a letter
            that is no candidate of its task, or a task its rater has answered before; every such row is listed with
            file, line and value, and none of the ratings is taken.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    rows = [row for one in paths for row in _name_rater(_read_rows(one))]
    hidden = {row["task_id"]: row for row in key.iter_rows(named=True)}
    problems: list[str] = []
    first_seen: dict[tuple[str, str], str] = {}
    ratings = []
    for row in rows:
        found = _find_problems(row, hidden, first_seen)
        problems += [f"{row.place}: {problem}" for problem in found]
        first_seen.setdefault((row.task_id, row.rater_id), row.place)
        if not found:
            ratings.append(_to_rating(row, hidden[row.task_id]))
    if problems:
        shown = problems[:MAX_PROBLEMS_SHOWN]
        more = [f"and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        raise RatingsError("ratings refused:\n" + "\n".join(shown + more))
    frame = pl.DataFrame(ratings, schema=RATINGS).sort("task_id", "rater_id")
    return check_columns(frame, RATINGS, "ratings")


def summarise_ratings(
    ratings: pl.DataFrame,
    key: pl.DataFrame,
    *,
    seed: int,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Return the figures of the ratings as a METRICS frame, sorted by method, metric and annotator.

    Per method: `human_attribution_accuracy`, the mean over answered tasks of the share of raters who name the right
    annotator, for each annotator and over `all` tasks; tasks are what the bootstrap resamples and n counts.
    `human_answer_rate`: share of the rows of the method that carry an answer (n: rows). `human_chance`: mean of
    1/number of candidates. With the method `all`: `rater_alpha`, Krippendorff's nominal α between raters over the
    annotators they name (n: tasks answered by two or more; null where there are none).

    Args:
        ratings: RATINGS.
        key: VALIDATION_KEY of the same set; methods nobody has rated appear with null values.
        seed: of the bootstrap.
        n_bootstrap: replicates.
        confidence: of the intervals.
    """
    hidden = {row["task_id"]: row for row in key.sort("task_id").iter_rows(named=True)}
    group_size = max(len(row["item_ids"]) for row in hidden.values()) if hidden else None
    answered = ratings.filter(pl.col("answer") != "")
    hits = dict(answered.group_by("task_id").agg(pl.col("correct").cast(pl.Float64).mean()).iter_rows())
    found: list[tuple[str, str, str, Estimate, int]] = [
        ("all", "all", "rater_alpha", _measure_alpha(answered), len({row["seed"] for row in hidden.values()}))
    ]
    for method in sorted({row["method"] for row in hidden.values()}):
        tasks = [row for row in hidden.values() if row["method"] == method]
        n_seeds = len({row["seed"] for row in tasks})
        for who in [*sorted({row["annotator_id"] for row in tasks}), "all"]:
            # A task is a unit by itself, whatever seed its text is of.
            own = {
                (0, t["task_id"]): hits[t["task_id"]]
                for t in tasks
                if who in (t["annotator_id"], "all") and t["task_id"] in hits
            }
            accuracy = mean_over_annotators(
                [own], n_bootstrap=n_bootstrap, confidence=confidence, seed=derive_seed(seed, "ratings bootstrap")
            )
            found.append((method, who, "human_attribution_accuracy", accuracy, n_seeds))
        rows = ratings.filter(pl.col("method") == method)
        rate = float((rows["answer"] != "").sum()) / len(rows) if len(rows) else None
        chance = sum(1 / len(task["candidate_annotators"]) for task in tasks) / len(tasks)
        found.append((method, "all", "human_answer_rate", Estimate(rate, None, None, len(rows)), n_seeds))
        found.append((method, "all", "human_chance", Estimate(chance, None, None, len(tasks)), n_seeds))
    frame = pl.DataFrame([_to_metric(*figure, group_size) for figure in found], schema=METRICS)
    return check_columns(frame.sort("method", "metric", "annotator_id"), METRICS, "ratings metrics")


def _read_rows(path: Path) -> list[_Row]:
    """Return the rows of one file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RatingsError(f"{path.name}: not UTF-8 at byte {error.start}; save the file as CSV in UTF-8") from error
    except OSError as error:
        raise RatingsError(f"{path}: cannot be read: {error.strerror}") from error
    read = _read_json_lines if path.suffix.lower() == ".jsonl" else _read_csv
    rows = [
        _Row(f"{path.name}, line {line}", *(str(record.get(name) or "").strip() for name in RATING_COLUMNS))
        for line, record in read(text, path.name)
    ]
    if not rows:
        raise RatingsError(f"{path.name}: there are no ratings in it")
    return rows


def _read_csv(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield line number and cells of every row that is not empty."""
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        fields = next(reader, [])
        _check_fields(fields, f"{name}, line 1")
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(fields):
                raise RatingsError(f"{name}, line {line}: more cells than columns: {cells[len(fields) :]}")
            if any(cells):
                yield line, dict(zip(fields, cells, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RatingsError(f"{name}, line {reader.line_num}: not readable as CSV: {error}") from error


def _read_json_lines(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield line number and object of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RatingsError(f"{name}, line {number}: not JSON: {line[:80]!r}") from error
        if not isinstance(record, dict):
            raise RatingsError(f"{name}, line {number}: not a JSON object: {line[:80]!r}")
        _check_fields(list(record), f"{name}, line {number}")
        if unlike := {k: v for k, v in record.items() if k in RATING_COLUMNS and not isinstance(v, str | None)}:
            raise RatingsError(f"{name}, line {number}: expected text or null, found {unlike!r}")
        yield number, record


def _check_fields(fields: Sequence[str], place: str) -> None:
    if missing := [column for column in _REQUIRED if column not in fields]:
        raise RatingsError(f"{place}: missing columns {missing}; found {list(fields)}")
    if doubled := sorted({field for field in fields if fields.count(field) > 1}):
        raise RatingsError(f"{place}: columns {doubled} stand twice")


def _name_rater(rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows of one file, nameless ones given to the rater if the file names exactly one."""
    named = {row.rater_id for row in rows if row.rater_id}
    if len(named) != 1:
        return list(rows)
    return [replace(row, rater_id=next(iter(named))) for row in rows]


def _find_problems(
    row: _Row, hidden: Mapping[str, Mapping[str, Any]], first_seen: Mapping[tuple[str, str], str]
) -> list[str]:
    """Return what is wrong with one row, in words."""
    problems = []
    if not row.rater_id:
        problems.append(f"no rater_id for task {row.task_id!r}; enter who answered")
    if earlier := first_seen.get((row.task_id, row.rater_id)):
        problems.append(f"rater {row.rater_id!r} has rated task {row.task_id!r} before, in {earlier}; keep one")
    task = hidden.get(row.task_id)
    if task is None:
        return [*problems, f"unknown task {row.task_id!r}; it is not of this validation set or was changed"]
    letters = [candidate["candidate"] for candidate in task["candidate_annotators"]]
    if row.answer and row.answer.upper() not in letters:
        problems.append(f"answer {row.answer!r} for task {row.task_id!r} is none of {', '.join(letters)}")
    return problems


def _to_rating(row: _Row, task: Mapping[str, Any]) -> dict[str, Any]:
    answer = row.answer.upper()
    named = {candidate["candidate"]: candidate["annotator_id"] for candidate in task["candidate_annotators"]}
    return {
        "task_id": row.task_id,
        "rater_id": row.rater_id,
        "answer": answer,
        "annotator_id": named.get(answer),
        "correct": named[answer] == task["annotator_id"] if answer else None,
        "method": task["method"],
        "comment": row.comment,
    }


def _measure_alpha(answered: pl.DataFrame) -> Estimate:
    """Return Krippendorff's α between raters, null where no task has two."""
    from capo_core.agreement import krippendorff_alpha

    n_tasks = answered.group_by("task_id").len().filter(pl.col("len") > 1).height
    if n_tasks == 0:
        return NOT_MEASURED
    units = answered.select(
        pl.col("task_id").alias("item_id"),
        pl.col("annotator_id").alias("label"),
        pl.col("rater_id").alias("annotator_id"),
    )
    alpha = krippendorff_alpha(units, level="nominal")
    # Undefined where all name the same annotator throughout.
    return Estimate(none_if_nan(alpha), None, None, n_tasks)


def _to_metric(
    method: str, annotator: str, metric: str, estimate: Estimate, n_seeds: int, group_size: int | None
) -> dict[str, Any]:
    return {
        "method": method,
        "annotator_id": annotator,
        "decision": None if method in (HUMAN, "all") else "sampled",
        "metric": metric,
        "condition": None if method == "all" else "raw",
        "group_size": group_size,
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n": estimate.n,
        "n_seeds": n_seeds,
    }
