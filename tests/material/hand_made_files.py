"""Sixty files and more that somebody might send, by mistake or on purpose, with what is to become of each."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
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
    """A file: what reads it (varierr, lewidi, table, batch, items, meta), and accepted and refused rows, or words of
    the message that refuses it whole."""

    reader: str
    suffix: str
    make: Callable[[], bytes]
    rows: tuple[int, int] | None = None
    says: str = ""


def _csv(
    body: str, rows: tuple[int, int] | None = None, says: str = "", header: str = HEADER, encoding: str = "utf-8"
) -> HandMade:
    return HandMade("table", ".csv", lambda: (header + body).encode(encoding, "surrogateescape"), rows, says)


def _lines(*lines: Any, rows: tuple[int, int] | None = None, says: str = "") -> HandMade:
    def make() -> bytes:
        encoded = [
            line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        ]
        return b"\n".join(encoded)

    return HandMade("table", ".jsonl", make, rows, says)


def _varierr(*lines: Any, rows: tuple[int, int] | None = None, says: str = "") -> HandMade:
    return HandMade("varierr", ".json", _lines(*lines).make, rows, says)


def _lewidi(content: Any, rows: tuple[int, int] | None = None, says: str = "") -> HandMade:
    text = content if isinstance(content, str) else json.dumps(content)
    return HandMade("lewidi", ".json", text.encode, rows, says)


def _parquet(make: Callable[[], pa.Table], rows: tuple[int, int] | None = None, says: str = "", **how: Any) -> HandMade:
    def write() -> bytes:
        sink = io.BytesIO()
        pq.write_table(make(), sink, **how)
        return sink.getvalue()

    return HandMade("table", ".parquet", write, rows, says)


def _table(**columns: Any) -> pa.Table:
    cells: dict[str, Any] = {name: [value, value] for name, value in ROW.items()} | {"annotator_id": ["ada", "ben"]}
    return pa.table(cells | columns)


def _row(**changes: Any) -> dict[str, Any]:
    return ROW | changes


def _entry(**changes: Any) -> dict[str, Any]:
    return {"annotator": 0, "reason": "Rain wets.", "id": "x", "judgments": []} | changes


def _record(**changes: Any) -> dict[str, Any]:
    return {"id": "1n", "context": "It rains.", "statement": "It is wet.", "neutral": [_entry()]} | changes


def _item(**changes: Any) -> dict[str, Any]:
    base = {"text": {"context": "It rains.", "statement": "It is wet."}, "annotations": {"ada": "neutral"}}
    return base | {"other_info": {"explanations": ["Rain wets."]}} | changes


def _whole_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(_table(), sink)
    return sink.getvalue()


def _without_pages() -> bytes:
    content = _whole_parquet()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:4] + bytes(footer - 4) + content[footer:]


def _zipped(n_bytes: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../nli.csv", bytes(n_bytes))
    return sink.getvalue()


class _Raises:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def _pickled_type() -> pa.Table:
    """A column of the extension type whose definition Arrow once unpickled (CVE-2023-47248)."""
    field = pa.field(
        "label", pa.string(),
        metadata={"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(_Raises())},
    )  # fmt: skip
    table = _table()
    return table.cast(table.schema.set(COLUMNS.index("label"), field))


def _polars_object_type() -> pa.Table:
    field = pa.field(
        "label", pa.string(), metadata={"ARROW:extension:name": "polars.object", "ARROW:extension:metadata": "x"}
    )
    table = _table()
    return table.cast(table.schema.set(COLUMNS.index("label"), field))


def _one_text_many_times(n_rows: int, length: int) -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), pa.array(["x" * length]))
    return pa.table({name: texts for name in COLUMNS})


DEEP = "[" * 100_000 + "]" * 100_000
HAND_MADE: dict[str, HandMade] = {
    # encodings
    "utf-8": _csv(GOOD, (2, 0)),
    "byte-order mark": _csv(GOOD, (2, 0), encoding="utf-8-sig"),
    "byte-order mark in every line": _csv(GOOD.replace("\n", "\n\ufeff"), (2, 1)),
    "utf-16 with mark": _csv(GOOD, says="UTF-16", encoding="utf-16"),
    "utf-16 without mark": _csv(GOOD, says="missing column", encoding="utf-16-le"),
    "utf-32": _csv(GOOD, says="UTF-16", encoding="utf-32"),
    "latin-1": _csv(GOOD.replace("wets", "wéts"), (1, 1), encoding="latin-1"),
    "overlong utf-8": _csv(GOOD.replace("wets", "\udcc0\udcaf"), (1, 1)),
    "lone surrogate in bytes": _csv(GOOD.replace("wets", "\udced\udca0\udc80"), (1, 1)),
    "no final line end": _csv(GOOD.rstrip(), (2, 0)),
    "windows line ends": _csv(GOOD.replace("\n", "\r\n"), (2, 0), header=HEADER.replace("\n", "\r\n")),
    "old mac line ends": _csv(GOOD.replace("\n", "\r"), (2, 0), header=HEADER.replace("\n", "\r")),
    "unicode line separators inside": _csv(GOOD.replace("Rain", "Ra\u2028in\x85"), (2, 0)),
    "gzip under a wrong name": HandMade("table", ".csv", lambda: gzip.compress(HEADER.encode()), says="column"),
    # characters
    "nul in a text": _csv(GOOD.replace("wets", "we\0ts"), (2, 0)),
    "nothing but nul": HandMade("table", ".csv", lambda: bytes(1000), says="column"),
    "nul as an explanation": _csv(GOOD.replace("Rain wets.", "\0"), (1, 1)),
    "right-to-left marks": _csv(GOOD.replace("wets", "\u202ewets\u202c"), (2, 0)),
    "only right-to-left marks": _csv(GOOD.replace("Rain wets.", "\u202e\u200f"), (1, 1)),
    "zero-width annotator": _csv(GOOD.replace("ada", "\u200b"), (1, 1)),
    "combining flood": _csv(GOOD.replace("wets", "w" + "\u0301" * 50_000), (2, 0)),
    "emoji and astral": _csv(GOOD.replace("wets", "👩‍👩‍👧‍👦 𝒘𝒆𝒕𝒔"), (2, 0)),
    "formulas": _csv(GOOD.replace("Rain wets.", "=cmd|' /C calc'!A1"), (2, 0)),
    "markup": _csv(GOOD.replace("Rain wets.", "<script>alert(1)</script>{{7*7}}"), (2, 0)),
    "path as ids": _csv(GOOD.replace("ada", "../../etc/passwd").replace("1,", "../x,", 1), (2, 0)),
    # structure of CSV
    "empty": HandMade("table", ".csv", bytes, says="is empty"),
    "blank lines only": HandMade("table", ".csv", lambda: b"\n\n \n", says="is empty"),
    "header only": _csv("", says="no annotations at all"),
    "semicolons": _csv(GOOD.replace(",", ";"), says="separated by commas", header=HEADER.replace(",", ";")),
    "column twice": _csv(GOOD, says="stand twice", header=HEADER.replace("text_b", "text_a,text_b", 1).replace("text_b", "text_b")),
    "column missing": _csv(GOOD, says="missing column", header=HEADER.replace("label", "etikett")),
    "too few cells": _csv(GOOD + "3,only\n", (2, 1)),
    "too many cells": _csv(GOOD + "3,a,b,ada,neutral,e,f,g\n", (2, 1)),
    "quote never closed": _csv(GOOD + '3,a,"b,ada,neutral,e\n4,a,b,ada,neutral,e\n', (2, 1)),
    "quote inside quotes": _csv(GOOD + '3,"a"b",c,ada,neutral,e\n', (2, 1)),
    "line break in a cell": _csv(GOOD + '3,"a\nb",c,ada,neutral,e\n', (3, 0)),
    "gigantic cell": _csv(GOOD + f"3,{'x' * 30_000_000},c,ada,neutral,e\n", (2, 1)),
    "gigantic cell of many lines": _csv(GOOD + '3,"' + "x\n" * 100_000 + '",c,ada,neutral,e\n'),
    "a hundred thousand cells": _csv(GOOD + "," * 100_000 + "\n", (2, 1)),
    "a hundred thousand columns": _csv("", says="missing column", header=",".join(f"c{i}" for i in range(100_000)) + "\n"),
    "fifty thousand broken rows": _csv(GOOD + '3,"a"b,c,ada,neutral,e\n' * 50_000, (2, 50_000)),
    # JSON Lines
    "good lines": _lines(_row(), _row(annotator_id="ben"), rows=(2, 0)),
    "mixed types": _lines(_row(), _row(label=3), _row(annotator_id=7), _row(explanation=["a"]), 5, None, "x", rows=(2, 5)),
    "numbers beyond floats": _lines(_row(), _row(annotator_id=10**400), '{"label": 1e999}', rows=(2, 1)),
    "absurdly long number": _lines(_row(), "[" + "9" * 100_000 + "]", rows=(1, 1)),
    "not numbers": _lines(_row(), '{"label": NaN}', '{"label": -Infinity}', rows=(1, 2)),
    "duplicate keys": _lines(_row(), json.dumps(_row())[:-1] + ', "label": "entailment"}', rows=(1, 1)),
    "duplicate keys inside metadata": _lines(json.dumps(_row())[:-1] + ', "extra": {"a": 1, "a": 2}}', rows=(1, 0)),
    "lone surrogates": _lines(_row(), json.dumps(_row(explanation="\ud800")), json.dumps(_row(annotator_id="\udfff")), rows=(1, 2)),
    "lone surrogate in metadata and key": _lines(_row(**{"\ud800": "\ud800"}), rows=(1, 0)),
    "nested lines": _lines(_row(), DEEP, '{"a":' * 50_000, _row(annotator_id="ben", extra=json.loads("[" * 90 + "]" * 90)), rows=(2, 2)),
    "two objects on a line": _lines(_row(), json.dumps(_row()) * 2, rows=(1, 1)),
    "gigantic line": _lines(_row(), _row(explanation="x" * 20_000_000, annotator_id="ben"), rows=(2, 0)),
    "array instead of lines": _lines(json.dumps([_row()]), says="none of"),
    # VariErr
    "varierr plain": _varierr(_record(), rows=(1, 0)),
    "varierr types": _varierr(_record(), _record(idk=3, error_labels=5, label_count_round_1="x", neutral="no"), _record(id=["a"], neutral=[None, _entry(annotator={"a": 1}), _entry(judgments=7)]), rows=(1, 4)),
    "varierr doubled label": _varierr(_record(), json.dumps(_record())[:-1] + ', "neutral": []}', rows=(1, 1)),
    "varierr deep": _varierr(_record(), json.dumps(_record())[:-1] + ', "x": ' + DEEP + "}", rows=(1, 1)),
    "varierr huge annotator": _varierr(_record(), _record(statement="x", neutral=[_entry(annotator=10**300), _entry(annotator="²")]), rows=(3, 0)),
    # LeWiDi
    "lewidi plain": _lewidi({"1": _item()}, (1, 0)),
    "lewidi doubled item": _lewidi(f'{{"1": {json.dumps(_item())}, "1": {json.dumps(_item())}}}', (1, 1)),
    "lewidi deep": _lewidi('{"1": ' + DEEP + "}", says="nested too deeply"),
    "lewidi deep objects": _lewidi('{"a":' * 100_000, says="not valid JSON"),
    "lewidi types": _lewidi({"1": _item(), "2": None, "3": _item(text=[]), "4": _item(annotations={"a": 3}, other_info={"explanations": [1]}), "5": _item(annotators=9, other_info=[])}, (1, 4)),
    "lewidi list": _lewidi([_item()], says="an object of items by id is needed"),
    "lewidi surrogates": _lewidi({"1": _item(), "\ud800": _item(annotations={"\ud800": "neutral"})}, (1, 1)),
    "lewidi cut": _lewidi(json.dumps({"1": _item()})[:-9], says="line 1, column"),
    "lewidi many explanations": _lewidi({"1": _item(), "2": _item(other_info={"explanations": ["x"] * 200_000})}, (1, 1)),
    # Parquet
    "parquet plain": _parquet(_table, (2, 0)),
    "parquet wrong types": _parquet(lambda: _table(label=pa.array([1, 2]), explanation=pa.array([[1], [2]])), says="none of 2"),
    "parquet null columns": _parquet(lambda: _table(label=pa.nulls(2)), says="none of 2"),
    "parquet binary label": _parquet(lambda: _table(label=pa.array([b"\xff", b"a"])), says="none of 2"),
    "parquet column twice": _parquet(lambda: _table().append_column("label", pa.array(["a", "b"])), says="stand twice"),
    "parquet dictionaries": _parquet(lambda: _table(label=pa.array(["neutral"] * 2).dictionary_encode()), (2, 0)),
    "parquet times and decimals": _parquet(lambda: _table(when=pa.array([2**62, -(2**62)], pa.timestamp("ns")), day=pa.array([2**30, -(2**30)], pa.date32()), n=pa.array([1, 2]).cast(pa.decimal128(30, 2))), (2, 0)),
    "parquet nested times": _parquet(lambda: _table(when=pa.array([[2**62], None], pa.list_(pa.timestamp("us")))), says="not a readable Parquet"),
    "parquet no rows": _parquet(lambda: _table().slice(0, 0), says="no annotations at all"),
    "parquet no columns": _parquet(lambda: pa.table({}), says="missing column"),
    "parquet without its footer": HandMade("table", ".parquet", lambda: _whole_parquet()[:-30], says="not a readable Parquet"),
    "parquet without pages": HandMade("table", ".parquet", _without_pages, says="not a readable Parquet"),
    "parquet that is CSV": HandMade("table", ".parquet", (HEADER + GOOD).encode, says="not a readable Parquet"),
    "parquet of a million equal rows": _parquet(lambda: _one_text_many_times(1_000_000, 3), says="rows, at most"),
    "parquet of one long text": _parquet(lambda: _one_text_many_times(9_000, 200_000), says="bytes, at most"),
    "parquet of one long text in lists": _parquet(lambda: _table(extra=[["x" * 100_000] * 5_000] * 2), says="bytes, at most"),
    "parquet of one long text in structs": _parquet(lambda: _table(extra=[{"a": [{"b": "x" * 100_000}] * 5_000}] * 2), says="bytes, at most"),
    "parquet of a hundred megabytes of zeros": _parquet(lambda: _table(extra=["0" * 60_000_000] * 2), says="bytes, at most", compression="zstd"),
    "parquet with a pickled type": _parquet(_pickled_type, (2, 0)),
    "parquet with a polars object type": _parquet(_polars_object_type, (2, 0)),
    # archives, batches, items, annotators
    "zip bomb as a table": HandMade("table", ".csv", lambda: _zipped(50_000_000), says="column"),
    "zip": HandMade("table", ".zip", lambda: _zipped(10), says="suffix '.zip' is none of"),
    "batch of withdrawals": HandMade("batch", ".csv", lambda: b"annotator_id,withdrawn\nada,yes\n,yes\nben,perhaps\n", (1, 2)),
    "batch as excel": HandMade("batch", ".xlsx", lambda: _zipped(10), says="suffix '.xlsx'"),
    "items with a doubled id": HandMade("items", ".csv", lambda: b"item_id,text_a,text_b\n1,a,b\n1,c,d\n", says="line 3"),
    "items with surrogates": HandMade("items", ".jsonl", lambda: b'{"item_id": 1, "text_a": "\\ud800", "text_b": "b"}', says="line 1"),
    "items of wrong types": HandMade("items", ".jsonl", lambda: b'{"item_id": 1, "text_a": {"a": 1}, "text_b": ["b"]}', says="line 1"),
    "annotators with trailing commas": HandMade("meta", ".json", lambda: b'{"ada": {"age": "3",},}', (1, 0)),
    "annotators deep": HandMade("meta", ".json", lambda: ('{"ada": ' + DEEP + "}").encode(), says="nested too deeply"),
    "annotators of many commas": HandMade("meta", ".json", lambda: b"," + b" " * 200_000 + b",", says="not valid JSON"),
}  # fmt: skip
