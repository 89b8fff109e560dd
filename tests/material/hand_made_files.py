"""Sixty files and more that somebody might send, by mistake or on purpose, with what is to become of each."""

from __future__ import annotations

import io
import zipfile

from hand_made_forms import HandMade
from hand_made_parquet import PARQUET
from hand_made_records import DEEP, RECORDS
from hand_made_tables import TABLES


def zipped(n_bytes: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../nli.csv", bytes(n_bytes))
    return sink.getvalue()


OTHERS: dict[str, HandMade] = {
    # archives, batches, items, annotators
    "zip bomb as a table": HandMade("table", ".csv", lambda: zipped(5_000_000), says="column"),
    "zip": HandMade("table", ".zip", lambda: zipped(10), says="suffix '.zip' is none of"),
    "batch of withdrawals": HandMade(
        "batch", ".csv", lambda: b"annotator_id,withdrawn\nada,yes\n,yes\nben,perhaps\n", (1, 2)
    ),
    "batch as excel": HandMade("batch", ".xlsx", lambda: zipped(10), says="suffix '.xlsx'"),
    "items with a doubled id": HandMade(
        "items", ".csv", lambda: b"item_id,text_a,text_b\n1,a,b\n1,c,d\n", says="line 3"
    ),
    "items with surrogates": HandMade(
        "items", ".jsonl", lambda: b'{"item_id": 1, "text_a": "\\ud800", "text_b": "b"}', says="line 1"
    ),
    "items of wrong types": HandMade(
        "items", ".jsonl", lambda: b'{"item_id": 1, "text_a": {"a": 1}, "text_b": ["b"]}', says="line 1"
    ),
    "annotators with trailing commas": HandMade("meta", ".json", lambda: b'{"ada": {"age": "3",},}', (1, 0)),
    "annotators deep": HandMade("meta", ".json", lambda: ('{"ada": ' + DEEP + "}").encode(), says="nested too deeply"),
    "annotators of many commas": HandMade("meta", ".json", lambda: b"," + b" " * 200_000 + b",", says="not valid JSON"),
}

HAND_MADE = TABLES | RECORDS | PARQUET | OTHERS
