"""Rows of large Parquet tables → parts, in one pass and little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from capo_core.corpora.tabular import REQUIRED
from capo_core.errors import InputFileError

SOURCE_FILE, SOURCE_LINE = "capo_source_file", "capo_source_line"
"""Columns of a part's raw rows: where a row came from, its number in that file from 1."""

_ROWS_PER_READ = 65_536
_ROWS_PER_GROUP = 4_096
_PYTHONS_WHITE_SPACE = r"[\s\x1c-\x1f]+"


def distribute_rows(sources: Sequence[Path], folder: Path, n_parts: int) -> list[Path]:
    """Return the parts of Parquet tables, `part-00000.parquet` and so on: all rows of an item in the same one.

    Memory: at most `n_parts` × 4,096 rows are held before they are written.

    Args:
        sources: Parquet files with the columns of `capo_core.corpora.tabular`; other columns go along.
        folder: empty, to be filled.
        n_parts: how many; some may stay without rows.

    Raises:
        InputFileError: if a file cannot be read, lacks a column, or has other columns than the first.
    """
    schema = _common_schema(sources)
    with _Writers(folder, n_parts, schema) as writers:
        for source in sources:
            line = 1
            for rows in _read(source, schema):
                placed = rows.with_columns(
                    pl.lit(source.name).alias(SOURCE_FILE),
                    pl.int_range(line, line + rows.height, dtype=pl.Int64).alias(SOURCE_LINE),
                    (pl.concat_str(identity("text_a"), identity("text_b"), separator="\x1f", ignore_nulls=True).hash())
                    .mod(n_parts)
                    .alias("part"),
                )
                for (part,), own in placed.group_by("part", maintain_order=True):
                    writers.add(int(part), own.drop("part"))
                line += rows.height
    return writers.paths


def identity(column: str) -> pl.Expr:
    """Return a text column in its identity form (`capo_core.text.identity_form`)."""
    text = pl.col(column).cast(pl.String, strict=False)
    return text.str.normalize("NFC").str.replace_all(_PYTHONS_WHITE_SPACE, " ").str.strip_chars(" ")


def _common_schema(sources: Sequence[Path]) -> pa.Schema:
    schemas = [_open(source).schema_arrow for source in sources]
    for source, schema in zip(sources, schemas, strict=True):
        missing = [name for name in REQUIRED if name not in schema.names]
        if missing:
            raise InputFileError(f"{source}: missing column(s) {', '.join(missing)}; there are {schema.names}")
        if not schema.remove_metadata().equals(schemas[0].remove_metadata()):
            raise InputFileError(f"{source}: has other columns, or types, than {sources[0]}; make them alike")
    taken = {SOURCE_FILE, SOURCE_LINE, "part"} & set(schemas[0].names)
    if taken:
        raise InputFileError(f"{sources[0]}: rename column(s) {', '.join(sorted(taken))}, capo uses that name")
    return schemas[0]


def _open(source: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source)
    except (OSError, pa.ArrowException) as error:
        raise InputFileError(f"{source}: not a readable Parquet file ({error}); export it again") from None


def _read(source: Path, schema: pa.Schema) -> Iterator[pl.DataFrame]:
    """Yield a file's rows, some at a time."""
    file = _open(source)
    try:
        for batch in file.iter_batches(batch_size=_ROWS_PER_READ, columns=schema.names):
            yield pl.DataFrame(batch)
    except (OSError, pa.ArrowException) as error:
        raise InputFileError(f"{source}: cannot be read to its end ({error}); export it again") from None


class _Writers:
    """One open Parquet file per part; rows wait until they make a row group."""

    def __init__(self, folder: Path, n_parts: int, schema: pa.Schema) -> None:
        self.paths = [folder / f"part-{number:05d}.parquet" for number in range(n_parts)]
        self._waiting: list[list[pl.DataFrame]] = [[] for _ in self.paths]
        extended = schema.remove_metadata()
        extended = extended.append(pa.field(SOURCE_FILE, pa.large_string()))
        self._schema = extended.append(pa.field(SOURCE_LINE, pa.int64()))
        self._open: list[pq.ParquetWriter] = []

    def __enter__(self) -> _Writers:
        self._open = [pq.ParquetWriter(path, self._schema, compression="zstd") for path in self.paths]
        return self

    def add(self, part: int, rows: pl.DataFrame) -> None:
        waiting = self._waiting[part]
        waiting.append(rows)
        if sum(frame.height for frame in waiting) >= _ROWS_PER_GROUP:
            self._write(part)

    def _write(self, part: int) -> None:
        if self._waiting[part]:
            table = pl.concat(self._waiting[part]).to_arrow().select(self._schema.names).cast(self._schema)
            self._open[part].write_table(table)
            self._waiting[part].clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part, writer in enumerate(self._open):
            if error is None:
                self._write(part)
            writer.close()
