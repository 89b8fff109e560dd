"""Parquet files of strangers: read with pyarrow, whose errors are errors, and never unpacked beyond proportion.

polars panics on damaged files and ends the process where memory runs out; a Parquet file of a few kilobytes may claim
to hold gigabytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from capo_core.corpora.records import read_bytes
from capo_core.errors import InputFileError

if TYPE_CHECKING:
    import pyarrow as pa

# Texts that people wrote compress to about a third, repeated ones to a fiftieth.
_MAX_EXPANSION, _FREE_BYTES = 200, 64 * 2**20
_MAX_ROWS_PER_BYTE, _FREE_ROWS = 1, 10_000
_ROWS_AT_A_TIME = 1024


def read_parquet_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of a Parquet file's columns, as they stand, and its rows by name; times come as text.

    Raises:
        InputFileError: if it is not Parquet, is damaged anywhere, has a column of a type that no annotation needs, or
            unpacks to far more than it is.
    """
    import pyarrow as pa

    content = read_bytes(path)
    try:
        parts = _read(path, content)
        return parts[0].schema.names, [row for part in parts for row in part.to_pylist()]
    except InputFileError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise InputFileError(f"{path}: not a readable Parquet file ({reason}); export it again") from None


def _read(path: Path, content: bytes) -> list[pa.RecordBatch]:
    """Return the table in parts, at least one, its cells not yet Python's.

    Raises:
        InputFileError: if it unpacks to far more than it is, by what it says of itself or as it is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    most_bytes = _FREE_BYTES + _MAX_EXPANSION * len(content)
    most_rows = _FREE_ROWS + _MAX_ROWS_PER_BYTE * len(content)
    about = pq.read_metadata(pa.BufferReader(content))
    # Texts stay references to the list of them until they are counted; types that others register stay what they are
    # stored as.
    leaves = [about.schema.column(place).path for place in range(about.num_columns)]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=leaves, arrow_extensions_enabled=False)
    schema = file.schema_arrow.remove_metadata()
    for field in schema:
        _require_plain(path, field.name, field.type)
    stated = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    _require_proportion(path, stated, most_bytes, about.num_rows, most_rows)
    parts, n_bytes, n_rows = [], 0, 0
    for part in file.iter_batches(batch_size=_ROWS_AT_A_TIME, use_threads=False):
        part.validate(full=True)
        n_bytes, n_rows = n_bytes + sum(map(_count_bytes, part.columns)), n_rows + part.num_rows
        _require_proportion(path, n_bytes, most_bytes, n_rows, most_rows)
        parts.append(_unfold(part))
    if n_rows != about.num_rows:
        raise InputFileError(f"{path}: {n_rows} rows where it says {about.num_rows}; export it again")
    return parts or [pa.RecordBatch.from_pylist([], schema=schema)]


def _require_plain(path: Path, name: str, kind: pa.DataType) -> None:
    """Raise InputFileError unless a type is a value, a reference to a text, or a list or struct of these.

    Other types (views, runs, unions) let few bytes stand for many in ways that are not counted.
    """
    from pyarrow import types

    if types.is_dictionary(kind) and _is_text(kind.value_type):
        return
    if types.is_list(kind) or types.is_large_list(kind) or types.is_struct(kind) or types.is_map(kind):
        for place in range(kind.num_fields):
            _require_plain(path, name, kind.field(place).type)
        return
    plain = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_temporal)
    if not (_is_text(kind) or types.is_fixed_size_binary(kind) or any(is_kind(kind) for is_kind in plain)):
        raise InputFileError(f"{path}: column {name!r} is of type {kind}, which is not read; export it as text")


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def _count_bytes(column: pa.Array) -> int:
    """Return how much a column is, every text counted as often as it stands there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.DictionaryArray):
        lengths = pc.call_function("binary_length", [column.dictionary])
        return column.nbytes + (pc.call_function("sum", [lengths.take(column.indices)]).as_py() or 0)
    if isinstance(column, pa.StructArray):
        return sum(_count_bytes(column.field(place)) for place in range(column.type.num_fields))
    if isinstance(column, pa.ListArray | pa.LargeListArray):
        return column.nbytes + _count_bytes(column.flatten())
    return column.nbytes


def _unfold(part: pa.RecordBatch) -> pa.RecordBatch:
    """Return a part with plain texts for references and text for times, which Python's own types cannot all hold."""
    import pyarrow as pa
    from pyarrow import types

    columns = []
    for column in part.columns:
        if isinstance(column, pa.DictionaryArray):
            columns.append(column.dictionary_decode())
        elif types.is_temporal(column.type) and not types.is_duration(column.type):
            columns.append(column.cast(pa.string()))
        else:
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=part.schema.names)


def _require_proportion(path: Path, n_bytes: int, most_bytes: int, n_rows: int, most_rows: int) -> None:
    for found, most, unit in ((n_bytes, most_bytes, "bytes"), (n_rows, most_rows, "rows")):
        if found > most:
            raise InputFileError(
                f"{path}: unpacks to {found:,} {unit}, at most {most:,} are believed of a file of its size; "
                "export it without compression"
            )
