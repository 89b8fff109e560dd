"""How files made by hand are written down: what makes them, and what is to become of each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEADER = "item_id,text_a,text_b,annotator_id,label,explanation\n"
GOOD = "1,It rains.,It is wet.,ada,neutral,Rain wets.\n2,It snows.,It is cold.,ben,neutral,Snow is cold.\n"
ROW = {"item_id": "1", "text_a": "It rains.", "text_b": "It is wet.", "annotator_id": "ada", "label": "neutral"} | {
    "explanation": "Rain wets."
}
COLUMNS = list(ROW)


@dataclass(frozen=True)
class HandMade:
    """A file that somebody might send.

    Attributes:
        reader: what reads it: varierr, lewidi, table, batch, items or meta.
        suffix: of its name.
        make: gives its content.
        rows: accepted and refused rows; None for any.
        says: words of the message that refuses it whole; empty where it is read.
    """

    reader: str
    suffix: str
    make: Callable[[], bytes]
    rows: tuple[int, int] | None = None
    says: str = ""


def csv_file(
    body: str, rows: tuple[int, int] | None = None, says: str = "", header: str = HEADER, encoding: str = "utf-8"
) -> HandMade:
    return HandMade("table", ".csv", lambda: (header + body).encode(encoding, "surrogateescape"), rows, says)


def lines_file(*lines: Any, rows: tuple[int, int] | None = None, says: str = "") -> HandMade:
    def make() -> bytes:
        encoded = [
            line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        ]
        return b"\n".join(encoded)

    return HandMade("table", ".jsonl", make, rows, says)


def varierr_file(*lines: Any, rows: tuple[int, int] | None = None, says: str = "") -> HandMade:
    return HandMade("varierr", ".json", lines_file(*lines).make, rows, says)


def lewidi_file(content: Any, rows: tuple[int, int] | None = None, says: str = "") -> HandMade:
    text = content if isinstance(content, str) else json.dumps(content)
    return HandMade("lewidi", ".json", text.encode, rows, says)


def parquet_file(
    make: Callable[[], pa.Table], rows: tuple[int, int] | None = None, says: str = "", **how: Any
) -> HandMade:
    def write() -> bytes:
        sink = io.BytesIO()
        pq.write_table(make(), sink, **how)
        return sink.getvalue()

    return HandMade("table", ".parquet", write, rows, says)


def table(**columns: Any) -> pa.Table:
    cells: dict[str, Any] = {name: [value, value] for name, value in ROW.items()} | {"annotator_id": ["ada", "ben"]}
    return pa.table(cells | columns)


def row(**changes: Any) -> dict[str, Any]:
    return ROW | changes


def entry(**changes: Any) -> dict[str, Any]:
    return {"annotator": 0, "reason": "Rain wets.", "id": "x", "judgments": []} | changes


def record(**changes: Any) -> dict[str, Any]:
    return {"id": "1n", "context": "It rains.", "statement": "It is wet.", "neutral": [entry()]} | changes


def item(**changes: Any) -> dict[str, Any]:
    base = {"text": {"context": "It rains.", "statement": "It is wet."}, "annotations": {"ada": "neutral"}}
    return base | {"other_info": {"explanations": ["Rain wets."]}} | changes
