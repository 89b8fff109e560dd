"""Rows of ratings as they stand in a file, whatever its form, before they are held against the key."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capo_core.errors import RatingsError
from capo_core.human_validation import argilla_records, label_studio
from capo_core.human_validation.sheet import RATING_COLUMNS
from capo_core.quality import HALF_CHARACTER
from capo_core.spreadsheet import restore_cell

_REQUIRED = ("task_id", "signature", "rater_id", "answer")
_NO_ANSWER = ("CANNOT SAY", "CANNOT_SAY")


@dataclass(frozen=True)
class RatingRow:
    """One row of a ratings file, white space around texts stripped.

    Attributes:
        place: file and line (or record) for messages.
        task_id: as in the file; likewise signature and rater_id.
        answer: in capitals; "" for none.
        comment: the rater's own words.
        seconds: time on the task; None where the file has none.
        presented: 1-based place in the rater's order; None where the file has none.
        content: the task's own fields where the file carries them along, else None.
        problems: what could not be read of the row, in words.
    """

    place: str
    task_id: str
    signature: str
    rater_id: str
    answer: str
    comment: str
    seconds: float | None
    presented: int | None
    content: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = field(default=())


def read_rows(path: Path) -> list[RatingRow]:
    """Return the rows of one file: CSV, JSON Lines (.jsonl), or what Label Studio or Argilla export (.json).

    In a table that names a single rater, rows without a name are that rater's.

    Raises:
        RatingsError: if the file cannot be read as a whole, lacks columns or has no ratings.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RatingsError(f"{path.name}: not UTF-8 at byte {error.start}; save the file in UTF-8") from error
    except OSError as error:
        raise RatingsError(f"{path}: cannot be read: {error.strerror}") from error
    read = {".json": _read_export, ".jsonl": _read_json_lines}.get(path.suffix.lower(), _read_csv)
    rows = list(read(text, path.name))
    if not rows:
        raise RatingsError(f"{path.name}: there are no ratings in it")
    named = {row.rater_id for row in rows if row.rater_id}
    # A platform knows its raters; an answer of nobody's there is not the other rater's.
    if read is _read_export or len(named) != 1:
        return rows
    return [replace(row, rater_id=next(iter(named))) for row in rows]


def make_row(
    place: str,
    record: Mapping[str, Any],
    content: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
) -> RatingRow:
    """Return a row of the values under `RATING_COLUMNS`; what is of the wrong kind becomes a problem of the row."""
    found = list(problems)
    texts = {}
    for name in ("task_id", "signature", "rater_id", "answer", "comment"):
        value = record.get(name)
        if not isinstance(value, str | None):
            found.append(f"{name}: expected text or null, found {value!r}")
        elif value is not None and HALF_CHARACTER.search(value):
            found.append(f"{name}: holds half a character, which is not UTF-8: {value!r:.80}")
        texts[name] = value.strip() if isinstance(value, str) else ""
    seconds, presented = (_read_number(record.get(name), name, found) for name in ("seconds", "presented"))
    if presented is not None and (presented < 1 or presented % 1):
        found.append(f"presented: expected a whole number from 1, found {record['presented']!r}")
        presented = None
    answer = texts["answer"].upper()
    texts["answer"] = "" if answer in _NO_ANSWER else answer
    place_in_order = None if presented is None else int(presented)
    return RatingRow(
        place, **texts, seconds=seconds, presented=place_in_order, content=content,
        problems=tuple(found),
    )  # fmt: skip


def _read_number(value: Any, name: str, problems: list[str]) -> float | None:
    """Return a number that is not negative, None where there is none; note what is neither."""
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        problems.append(f"{name}: expected a number from 0, found {value!r}")
        return None
    return number


def _read_csv(text: str, name: str) -> Iterator[RatingRow]:
    """Yield every row that is not empty."""
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
                restored = {field: restore_cell(cell) for field, cell in zip(fields, cells, strict=False)}
                yield make_row(f"{name}, line {line}", restored)
            line = reader.line_num + 1
    except csv.Error as error:
        raise RatingsError(f"{name}, line {reader.line_num}: not readable as CSV: {error}") from error


def _read_json_lines(text: str, name: str) -> Iterator[RatingRow]:
    """Yield the row of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            record = _parse_json(line, f"{name}, line {number}")
            if not isinstance(record, dict):
                raise RatingsError(f"{name}, line {number}: not a JSON object: {line[:80]!r}")
            _check_fields(list(record), f"{name}, line {number}")
            yield make_row(f"{name}, line {number}", {column: record.get(column) for column in RATING_COLUMNS})


def _read_export(text: str, name: str) -> Iterator[RatingRow]:
    """Yield the ratings in an export of Label Studio or of Argilla, told apart by their records' fields."""
    records = _parse_json(text, name)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise RatingsError(f"{name}: expected a JSON array of objects, as Label Studio and Argilla export it")
    for exporter in (label_studio, argilla_records):
        if records and all(set(exporter.EXPORT_FIELDS) <= set(record) for record in records):
            for found in exporter.iterate_ratings(records):
                yield make_row(f"{name}, {found.place}", found.record, found.content, found.problems)
            return
    raise RatingsError(
        f"{name}: neither Label Studio's JSON export (each record with {list(label_studio.EXPORT_FIELDS)}; not "
        f"JSON-MIN) nor Argilla's records (with {list(argilla_records.EXPORT_FIELDS)})"
    )


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_refuse_doubled, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RatingsError(f"{place}: not JSON: {error}: {text[:80]!r}") from error


def _refuse_doubled(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"fields {doubled} stand twice in one object")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _check_fields(fields: Sequence[str], place: str) -> None:
    if missing := [column for column in _REQUIRED if column not in fields]:
        raise RatingsError(f"{place}: missing columns {missing}; found {list(fields)}")
    if doubled := sorted({field for field in fields if fields.count(field) > 1}):
        raise RatingsError(f"{place}: columns {doubled} stand twice")
