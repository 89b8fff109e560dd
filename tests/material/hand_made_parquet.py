"""Parquet files that somebody might send, by mistake or on purpose."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hand_made_forms import COLUMNS, GOOD, HEADER, HandMade, parquet_file, table


def whole_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink)
    return sink.getvalue()


def without_pages() -> bytes:
    content = whole_parquet()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:4] + bytes(footer - 4) + content[footer:]


class _Raises:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def pickled_type() -> pa.Table:
    """A column of the extension type whose definition Arrow once unpickled (CVE-2023-47248)."""
    field = pa.field(
        "label", pa.string(),
        metadata={"ARROW:extension:name": "arrow.py_extension_type",
                  "ARROW:extension:metadata": pickle.dumps(_Raises())},
    )  # fmt: skip
    plain = table()
    return plain.cast(plain.schema.set(COLUMNS.index("label"), field))


def polars_object_type() -> pa.Table:
    field = pa.field(
        "label", pa.string(), metadata={"ARROW:extension:name": "polars.object", "ARROW:extension:metadata": "x"}
    )
    plain = table()
    return plain.cast(plain.schema.set(COLUMNS.index("label"), field))


def one_text_many_times(n_rows: int, length: int) -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), pa.array(["x" * length]))
    return pa.table(dict.fromkeys(COLUMNS, texts))


DEEP = "[" * 100_000 + "]" * 100_000


PARQUET: dict[str, HandMade] = {
    # Parquet
    "parquet plain": parquet_file(table, (2, 0)),
    "parquet wrong types": parquet_file(
        lambda: table(label=pa.array([1, 2]), explanation=pa.array([[1], [2]])), says="none of 2"
    ),
    "parquet null columns": parquet_file(lambda: table(label=pa.nulls(2)), says="none of 2"),
    "parquet binary label": parquet_file(lambda: table(label=pa.array([b"\xff", b"a"])), says="none of 2"),
    "parquet column twice": parquet_file(
        lambda: table().append_column("label", pa.array(["a", "b"])), says="stand twice"
    ),
    "parquet dictionaries": parquet_file(lambda: table(label=pa.array(["neutral"] * 2).dictionary_encode()), (2, 0)),
    "parquet times and decimals": parquet_file(
        lambda: table(
            when=pa.array([2**62, -(2**62)], pa.timestamp("ns")),
            day=pa.array([2**30, -(2**30)], pa.date32()),
            n=pa.array([1, 2]).cast(pa.decimal128(30, 2)),
        ),
        (2, 0),
    ),
    "parquet nested times": parquet_file(
        lambda: table(when=pa.array([[2**62], None], pa.list_(pa.timestamp("us")))), says="not a readable Parquet"
    ),
    "parquet no rows": parquet_file(lambda: table().slice(0, 0), says="no annotations at all"),
    "parquet no columns": parquet_file(lambda: pa.table({}), says="missing column"),
    "parquet without its footer": HandMade(
        "table", ".parquet", lambda: whole_parquet()[:-30], says="not a readable Parquet"
    ),
    "parquet without pages": HandMade("table", ".parquet", without_pages, says="not a readable Parquet"),
    "parquet that is CSV": HandMade("table", ".parquet", (HEADER + GOOD).encode, says="not a readable Parquet"),
    "parquet of a million equal rows": parquet_file(lambda: one_text_many_times(1_000_000, 3), says="rows, at most"),
    "parquet of one long text": parquet_file(lambda: one_text_many_times(9_000, 2_000), says="bytes, at most"),
    "parquet of one long text in lists": parquet_file(
        lambda: table(extra=[["x" * 20_000] * 2_000] * 2), says="bytes, at most"
    ),
    "parquet of one long text in structs": parquet_file(
        lambda: table(extra=[{"a": [{"b": "x" * 20_000}] * 2_000}] * 2), says="bytes, at most"
    ),
    "parquet of a hundred megabytes of zeros": parquet_file(
        lambda: table(extra=["0" * 40_000_000] * 2), says="bytes, at most", compression="zstd"
    ),
    "parquet with a pickled type": parquet_file(pickled_type, (2, 0)),
    "parquet with a polars object type": parquet_file(polars_object_type, (2, 0)),
}
