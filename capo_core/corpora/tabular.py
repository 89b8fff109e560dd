"""Tables with one annotation per row: CSV, JSON Lines or Parquet, chosen by the file's suffix."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from capo_core.corpora.parquet_tables import read_parquet_rows
from capo_core.corpora.records import read_bytes, read_json_lines
from capo_core.errors import InputFileError
from capo_core.quality import HALF_CHARACTER, Candidate, Problem, as_text, is_blank
from capo_core.spreadsheet import restore_cell

ITEM = ("item_id", "text_a", "text_b")
REQUIRED = (*ITEM, "annotator_id", "label", "explanation")
WITHDRAWN = "withdrawn"
RANK_COLUMN = "suggestion_rank"
"""A column of tables that `capo suggest` wrote: their texts may stand behind an apostrophe of ours."""

_YES, _NO = ("yes", "true", "1"), ("", "no", "false", "0")


def read_tables(paths: list[Path]) -> tuple[list[Candidate], Counter[str]]:
    """Return every row of the tables as a candidate, in file order, and counts of what is peculiar to them.

    Columns beside the required ones become metadata. `source_line` is the line on which a CSV or JSON Lines row
    begins, and the row number in Parquet.

    Raises:
        InputFileError: if a file cannot be read, its suffix is unknown or it lacks required columns.
    """
    candidates = [candidate for path in paths for candidate in _read(path, REQUIRED)]
    readable = [candidate.source_id for candidate in candidates if candidate.problem is None]
    n_blank = sum(source_id is None or not str(source_id).strip() for source_id in readable)
    return candidates, Counter(blank_source_ids=n_blank)


def read_changes(path: Path) -> tuple[list[Candidate], list[Candidate]]:
    """Return a table's annotations and its withdrawals, the rows whose column `withdrawn` says so, in file order.

    A table of withdrawals alone needs the columns annotator_id and withdrawn only. A value of `withdrawn` that is
    neither a yes nor a no leaves the row with the annotations, with its problem.

    Raises:
        InputFileError: as `read_tables`.
    """
    rows = [_restore_texts(row) for row in _read(path, ())]
    if not any(WITHDRAWN in row.metadata for row in rows if row.problem is None):
        _read(path, REQUIRED)  # for the message where a column is missing
        return rows, []
    annotations, withdrawals = [], []
    for row in rows:
        flag = str(row.metadata.get(WITHDRAWN) or "").strip().casefold()
        if row.problem is None and flag in _YES:
            withdrawals.append(row)
        elif row.problem is None and flag not in _NO:
            detail = f"column {WITHDRAWN!r} holds {flag!r}; write one of {', '.join(_YES)}, or leave it empty"
            annotations.append(replace(row, problem=Problem(WITHDRAWN, "unclear_withdrawal", detail)))
        else:
            annotations.append(row)
    return annotations, withdrawals


def _restore_texts(row: Candidate) -> Candidate:
    """Return a row of a table of suggestions with its texts as they were suggested; any other row as it is."""
    if RANK_COLUMN not in row.metadata or not (isinstance(row.text_a, str) and isinstance(row.text_b, str)):
        return row
    return replace(row, text_a=restore_cell(row.text_a), text_b=restore_cell(row.text_b))


def read_items(path: Path) -> pl.DataFrame:
    """Return the items of a table, columns item_id, text_a and text_b, in file order; other columns are left out.

    Raises:
        InputFileError: if the file cannot be read, lacks a column, or any row cannot be used; names the line.
    """
    rows = []
    seen: dict[str, int] = {}
    for row in _read(path, ITEM):
        where = f"{path}, line {row.source_line}"
        if row.problem is not None:
            raise InputFileError(f"{where}: {row.problem.detail}")
        cells = {
            name: _require_text(cell, where, name)
            for name, cell in (("item_id", row.source_id), ("text_a", row.text_a), ("text_b", row.text_b))
        }
        item_id = cells["item_id"]
        if item_id in seen:
            raise InputFileError(
                f"{where}: item_id {item_id!r} stands on line {seen[item_id]} already; make ids unique"
            )
        seen[item_id] = row.source_line
        rows.append(cells)
    if not rows:
        raise InputFileError(f"{path}: there are no rows")
    return pl.DataFrame(rows)


def _require_text(cell: object, where: str, name: str) -> str:
    """Return a cell of an item as text.

    Raises:
        InputFileError: if it is something else, shows nothing, or holds half a character.
    """
    text = as_text(cell, number_allowed=name == "item_id")
    if text is None:
        raise InputFileError(f"{where}: {name} must be text, found {type(cell).__name__}; correct the row")
    if is_blank(text):
        raise InputFileError(f"{where}: {name} is empty; fill it in, or take the row out")
    if HALF_CHARACTER.search(text):
        raise InputFileError(f"{where}: {name} holds half a character, which is not UTF-8: {text[:40]!r}; correct it")
    return text


def _read(path: Path, required: Sequence[str]) -> list[Candidate]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputFileError(f"{path}: suffix {path.suffix!r} is none of {', '.join(_READERS)}; convert the file")
    return reader(path, required)


def _read_csv(path: Path, required: Sequence[str]) -> list[Candidate]:
    """Return the rows of a CSV file; ragged ones and broken quotes are candidates with a problem."""
    # Undecodable bytes survive as half characters, so that only the rows they stand in are refused.
    text = read_bytes(path).decode("utf-8", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(row for row in reader if row)]
    except (csv.Error, StopIteration) as error:
        raise InputFileError(f"{path}: the header line cannot be read ({error}); save the file as CSV") from None
    _require_columns(path, header, required)
    candidates: list[Candidate] = []
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return candidates
        except csv.Error as error:
            raw = "".join(lines[start - 1 : reader.line_num])
            detail = f"lines {start} to {reader.line_num} cannot be read ({error}); a quote inside quotes is doubled"
            problem = Problem("row", "malformed_row", detail)
            candidates.append(Candidate(path.name, start, record={"line": raw}, problem=problem))
            continue
        if row:
            candidates.append(_csv_candidate(path.name, start, header, row))


def _csv_candidate(file: str, line: int, header: list[str], row: list[str]) -> Candidate:
    """Return one CSV row as a candidate."""
    if len(row) != len(header):
        detail = f"the row has {len(row)} fields, the header {len(header)}; a text with a comma in it needs quotes"
        return Candidate(file, line, record={"fields": row}, problem=Problem("row", "malformed_row", detail))
    fields = dict(zip(header, row, strict=True))
    spoiled = next((name for name, cell in fields.items() if HALF_CHARACTER.search(cell)), None)
    if spoiled is not None:
        problem = Problem(
            spoiled, "not_utf8", f"column {spoiled!r} holds a byte that is not UTF-8; save the file as UTF-8"
        )
        return Candidate(file, line, fields.get("item_id"), record=fields, problem=problem)
    return _candidate(file, line, fields)


def _read_json_lines(path: Path, required: Sequence[str]) -> list[Candidate]:
    """Return the rows of a JSON Lines file; a key that a record lacks is a missing value."""
    lines = read_json_lines(path)
    records = [line.value for line in lines if line.value is not None]
    if records:
        _require_columns(path, list(dict.fromkeys(key for record in records for key in record)), required)
    return [
        Candidate(path.name, line.number, record={"line": line.text}, problem=line.problem)
        if line.value is None
        else _candidate(path.name, line.number, line.value)
        for line in lines
    ]


def _read_parquet(path: Path, required: Sequence[str]) -> list[Candidate]:
    """Return the rows of a Parquet file."""
    columns, rows = read_parquet_rows(path)
    _require_columns(path, columns, required)
    return [_candidate(path.name, number, row) for number, row in enumerate(rows, start=1)]


def _candidate(file: str, line: int, row: dict[str, Any]) -> Candidate:
    """Return a row of named cells as a candidate."""
    fields = {name: row.get(name) for name in REQUIRED}
    source_id = fields.pop("item_id")
    metadata = {name: value for name, value in row.items() if name not in REQUIRED}
    return Candidate(file, line, source_id, **fields, metadata=metadata, record=row)


def _require_columns(path: Path, found: Sequence[str], required: Sequence[str]) -> None:
    """Raise InputFileError if a required column is missing or a column stands twice."""
    missing = [name for name in required if name not in found]
    if missing:
        hint = ""
        if len(found) == 1 and any(separator in found[0] for separator in ";\t"):
            hint = " (the header holds ';' or tabs: columns must be separated by commas)"
        raise InputFileError(
            f"{path}: missing column(s) {', '.join(missing)}; found {', '.join(map(repr, found))}{hint}. "
            f"Rename or add columns so that there are {', '.join(required)}"
        )
    repeated = sorted(name for name, n in Counter(found).items() if n > 1)
    if repeated:
        raise InputFileError(f"{path}: column(s) {', '.join(map(repr, repeated))} stand twice; rename one of each")


_READERS: dict[str, Callable[[Path, Sequence[str]], list[Candidate]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
