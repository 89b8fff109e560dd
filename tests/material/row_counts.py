"""How many annotations a file holds, counted by other means than capo's readers; None where only they can tell."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

LABELS = ("entailment", "neutral", "contradiction")


class _UnclearError(ValueError):
    """The file is not plain enough to count."""


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _UnclearError("a key stands twice")
    return dict(pairs)


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]


def count_json_lines(content: bytes) -> int:
    """A table's rows are its lines."""
    return len(_lines(content))


def count_varierr(content: bytes) -> int:
    """A line's annotations stand in lists under labels; a line that is no record, or has no texts, is one row."""
    return sum(_count_record(line) for line in _lines(content))


def _count_record(line: bytes) -> int:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return 1
    texts = [record.get(name) for name in ("context", "statement")] if isinstance(record, dict) else [None]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return 1
    n_rows = 0
    for name, value in record.items():
        if isinstance(value, list) and (name in LABELS or any(isinstance(e, dict) and "reason" in e for e in value)):
            n_rows += len(value)
        elif name in LABELS and value is not None:
            n_rows += 1
    return n_rows


def count_lewidi(content: bytes) -> int | None:
    """Every explanation is a row; a record whose explanations cannot be told apart from its labels is one row."""
    records = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_plain)
    total = 0
    for record in records.values():
        try:
            texts, labels = record["text"].values(), record["annotations"].values()
            n_slots = sum(len(label.split(",")) for label in labels)
            explanations = record["other_info"]["explanations"]
            names = [name.strip() for name in record["annotators"].split(",")]
            fits = len(texts) == 2 and all(text.strip() for text in texts) and isinstance(explanations, list)
            plain = names == [name.strip() for name in record["annotations"]] and all(label.strip() for label in labels)
        except (KeyError, TypeError, AttributeError):
            return None
        if not plain or not fits:
            return None
        total += n_slots if n_slots == len(explanations) else 1
    return total


def count_csv(content: bytes) -> int | None:
    """Rows as Arrow's reader sees them, those with too few or too many cells included; plain quoting only."""
    if b"\r" in content.replace(b"\r\n", b"") or b"\x00" in content:
        return None  # what a lone carriage return or a NUL means is a matter of taste
    ragged: list[int] = []
    table = pa_csv.read_csv(
        io.BytesIO(content),
        read_options=pa_csv.ReadOptions(encoding="latin-1", use_threads=False),
        parse_options=pa_csv.ParseOptions(
            newlines_in_values=True, invalid_row_handler=lambda row: (ragged.append(1), "skip")[1]
        ),
        convert_options=pa_csv.ConvertOptions(check_utf8=False),
    )
    return table.num_rows + len(ragged)


def count_parquet(content: bytes) -> int:
    """The file says so itself."""
    return pq.read_metadata(io.BytesIO(content)).num_rows


COUNTERS: dict[str, Callable[[bytes], int | None]] = {
    "varierr": count_varierr,
    "lewidi": count_lewidi,
    "csv": count_csv,
    "jsonl": count_json_lines,
    "parquet": count_parquet,
}


def count_rows(form: str, content: bytes) -> int | None:
    """Return how many rows a file holds, None where it is not plain enough to say."""
    try:
        return COUNTERS[form](content)
    except (ValueError, RecursionError, AttributeError, KeyError, OSError, pa.ArrowException):
        return None
