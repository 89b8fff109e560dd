"""Files for raters, and the key in a file of its own."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import polars as pl

from capo_core.errors import InputFileError
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_KEY, VALIDATION_TASKS, check_columns

RATING_COLUMNS = ("task_id", "rater_id", "answer", "comment")
TASK_FILES = ("tasks.csv", "tasks.jsonl", "INSTRUCTIONS.md", "ratings_template.csv")

_FORMULA_OPENINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def neutralise_cell(text: str) -> str:
    """Return `text` such that no spreadsheet takes it for a formula; `restore_cell` undoes it.

    A text that begins with = + - @ (full width too), a tab or a line break gets an apostrophe in front; so does one
    that begins with an apostrophe, to keep the two apart.
    """
    return "'" + text if text.startswith(("'", *_FORMULA_OPENINGS)) else text


def restore_cell(text: str) -> str:
    """Return the text of which `neutralise_cell` made `text`."""
    return text[1:] if text.startswith("'") else text


def write_sheets(tasks: pl.DataFrame, directory: Path, task: TaskSpec) -> None:
    """Write what a rater needs into `directory`: tasks.csv, tasks.jsonl, INSTRUCTIONS.md and ratings_template.csv.

    Args:
        tasks: VALIDATION_TASKS.
        directory: made if need be.
        task: its question and names of texts go into the instructions.
    """
    check_columns(tasks, VALIDATION_TASKS, "validation_tasks")
    directory.mkdir(parents=True, exist_ok=True)
    rows = tasks.sort("position").to_dicts()
    cells = [_flatten_task(row) for row in rows]
    template = [{"task_id": row["task_id"], "rater_id": "", "answer": "", "comment": ""} for row in rows]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    _write_text(directory / "tasks.csv", _format_csv(cells, list(dict.fromkeys(name for c in cells for name in c))))
    _write_text(directory / "tasks.jsonl", "".join(lines))
    _write_text(directory / "ratings_template.csv", _format_csv(template, RATING_COLUMNS))
    _write_text(directory / "INSTRUCTIONS.md", _format_instructions(rows, task))


def write_key(key: pl.DataFrame, path: Path) -> None:
    """Write the key as JSON Lines, readable by its owner only.

    Raises:
        ValueError: if `path` lies in a folder that holds the raters' files, from where it would be handed out.
    """
    check_columns(key, VALIDATION_KEY, "validation_key")
    if any((path.parent / name).exists() for name in TASK_FILES):
        raise ValueError(f"the key must not lie beside the tasks: write it to another folder than {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in key.iter_rows(named=True)), 0o600)


def read_key(path: Path) -> pl.DataFrame:
    """Return the VALIDATION_KEY frame that `write_key` wrote.

    Raises:
        InputFileError: if the file is missing or not such a key.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        if unlike := [row for row in rows if set(row) != set(VALIDATION_KEY)]:
            raise ValueError(f"expected the fields {list(VALIDATION_KEY)}, found {sorted(unlike[0])}")
        return check_columns(pl.DataFrame(rows, schema=VALIDATION_KEY), VALIDATION_KEY, "validation_key")
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise InputFileError(f"{path}: not a validation key: {error}") from error


def _flatten_task(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a task as cells: texts, explanation_1 …, reference_A_1 …"""
    cells = {
        "task_id": row["task_id"],
        "position": str(row["position"]),
        "text_a": row["text_a"],
        "text_b": row["text_b"],
        **{f"explanation_{i}": text for i, text in enumerate(row["explanations"], start=1)},
    }
    for reference in row["references"]:
        examples = enumerate(reference["examples"], start=1)
        cells |= {f"reference_{reference['candidate']}_{i}": text for i, text in examples}
    return {name: neutralise_cell(text) for name, text in cells.items()}


def _format_csv(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    # The byte-order mark makes spreadsheets read the file as UTF-8.
    buffer = io.StringIO("\ufeff", newline="")
    buffer.seek(0, io.SEEK_END)
    writer = csv.DictWriter(buffer, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _format_instructions(rows: Sequence[Mapping[str, Any]], task: TaskSpec) -> str:
    letters = sorted({reference["candidate"] for row in rows for reference in row["references"]})
    text = files("capo_core.human_validation").joinpath("instructions.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        question=" ".join(task.question.split()),
        n_tasks=len(rows),
        text_a_name=task.text_a_name,
        text_b_name=task.text_b_name,
        letters=", ".join(letters),
    )


def _write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write `path` as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
