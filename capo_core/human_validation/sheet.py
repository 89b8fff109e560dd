"""Spreadsheets and texts for raters, and the key in a file of its own."""

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

import numpy as np
import polars as pl

from capo_core.errors import InputFileError
from capo_core.seeding import derive_seed
from capo_core.spreadsheet import neutralise_cell
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_KEY, VALIDATION_TASKS, check_columns
from schemas.human_validation import HumanValidationConfig

RATING_COLUMNS = ("task_id", "signature", "rater_id", "answer", "comment", "seconds", "presented")
"""Columns of ratings that come back, in any form that is a table."""

INSTRUCTIONS, CONSENT = "INSTRUCTIONS.md", "CONSENT.md"
PLACEHOLDER = "[TO FILL IN"
"""How the consent text marks what the team has to write."""


def write_sheets(tasks: pl.DataFrame, directory: Path, task: TaskSpec, config: HumanValidationConfig) -> None:
    """Write what raters with spreadsheets need into `directory`.

    For each of `n_raters` raters, r01 onwards: tasks_r01.csv and tasks_r01.jsonl, the tasks in an order drawn for
    that rater, and ratings_r01.csv to fill in, in the same order. For all: INSTRUCTIONS.md.

    Args:
        tasks: VALIDATION_TASKS.
        directory: made if need be.
        task: its question and names of texts go into the instructions.
        config: number of raters; its seed draws the orders.
    """
    check_columns(tasks, VALIDATION_TASKS, "validation_tasks")
    directory.mkdir(parents=True, exist_ok=True)
    rows = tasks.sort("position").to_dicts()
    columns = list(dict.fromkeys(name for row in rows for name in _flatten_task(row)))
    for number in range(1, config.n_raters + 1):
        rng = np.random.default_rng(derive_seed(config.seed, "rater order", number))
        own = [rows[i] for i in rng.permutation(len(rows))]
        template = [
            {
                "task_id": row["task_id"],
                "signature": row["signature"],
                "rater_id": f"r{number:02d}",
                "presented": str(i),
            }
            for i, row in enumerate(own, start=1)
        ]
        write_text(directory / f"tasks_r{number:02d}.csv", _format_csv([_flatten_task(row) for row in own], columns))
        write_text(directory / f"tasks_r{number:02d}.jsonl", _format_json_lines(own))
        write_text(directory / f"ratings_r{number:02d}.csv", _format_csv(template, RATING_COLUMNS))
    write_text(
        directory / INSTRUCTIONS, write_instructions(tasks, task) + _fill("sheet_instructions.md", _names(rows, task))
    )


def write_instructions(tasks: pl.DataFrame, task: TaskSpec) -> str:
    """Return what raters are told, as Markdown, whatever they rate with.

    Args:
        tasks: VALIDATION_TASKS.
        task: its question and names of texts.
    """
    return _fill("instructions.md", _names(tasks.to_dicts(), task))


def read_consent(path: Path | None) -> str:
    """Return the consent text for raters, as Markdown: the team's own, or the template with `PLACEHOLDER` marks.

    Raises:
        InputFileError: if the team's file cannot be read as UTF-8 text or is empty.
    """
    if path is None:
        return _fill("consent.md", {})
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: cannot be read as a consent text: {error}") from error
    if not text.strip():
        raise InputFileError(f"{path}: the consent text is empty; write it, or set consent_path to null")
    return text


def write_key(key: pl.DataFrame, path: Path) -> None:
    """Write the key as JSON Lines, readable by its owner only.

    Raises:
        ValueError: if `path` lies in a folder that holds the raters' files, from where it would be handed out.
    """
    check_columns(key, VALIDATION_KEY, "validation_key")
    if (path.parent / INSTRUCTIONS).exists() or list(path.parent.glob("tasks_r*")):
        raise ValueError(f"the key must not lie beside the tasks: write it to another folder than {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _format_json_lines(key.to_dicts()), 0o600)


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


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write `path` as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _flatten_task(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a task as cells: texts, explanation_1 …, reference_A_1 …"""
    cells = {
        "task_id": row["task_id"],
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


def _format_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _names(rows: Sequence[Mapping[str, Any]], task: TaskSpec) -> dict[str, Any]:
    """Return what the instructions' placeholders stand for."""
    return {
        "question": " ".join(task.question.split()),
        "n_tasks": len(rows),
        "text_a_name": task.text_a_name,
        "text_b_name": task.text_b_name,
        "letters": ", ".join(sorted({reference["candidate"] for row in rows for reference in row["references"]})),
    }


def _fill(name: str, values: Mapping[str, Any]) -> str:
    text = files("capo_core.human_validation").joinpath(name).read_text(encoding="utf-8")
    return Template(text).substitute(values)
