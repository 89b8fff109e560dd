"""The tables of a published data set: what stands in them, in which files, and what of the corpus stays behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from capo_core.errors import CorpusError
from capo_core.preference_pairs import TRAINING_SPLITS
from capo_core.splits import SPLITS
from schemas.frames import CORPUS, DEMONSTRATIONS, PREFERENCES, check_columns

PREFERENCES_TABLE, DEMONSTRATIONS_TABLE, ANNOTATIONS_TABLE = "preferences", "demonstrations", "annotations"
ANNOTATORS_TABLE = "annotators"

WITHHELD = ("source_file", "source_line", "source_id", "metadata")
"""Columns of the corpus that are not published: they lead back to the files, and hold whatever the files held."""

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_TYPES = {pl.String: pa.string(), pl.Float64: pa.float64()}


def build_tables(
    corpus: pl.DataFrame,
    demonstrations: Sequence[pl.DataFrame],
    preferences: Sequence[pl.DataFrame],
    annotators: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Return the published tables by name, each with its `split`, the one that loads by default first.

    preferences: prompt, chosen and rejected as conversations, which TRL's preference trainers read as they stand.
    demonstrations: prompt and completion, for its SFT trainer. annotations: label and explanation of every annotator.
    annotators: what is published of each, if anything.

    Args:
        corpus: a `CORPUS` frame, its annotators under pseudonyms.
        demonstrations: `DEMONSTRATIONS` of every annotator, made from that corpus.
        preferences: `PREFERENCES`, likewise.
        annotators: annotator_id under pseudonyms, and one column or more; None where nothing is published of them.

    Raises:
        CorpusError: if a pair or demonstration is of another split than its item, of a test item, or of somebody who
            is not in the corpus.
    """
    tables = {
        PREFERENCES_TABLE: check_columns(pl.concat(preferences), PREFERENCES, "preferences"),
        DEMONSTRATIONS_TABLE: check_columns(pl.concat(demonstrations), DEMONSTRATIONS, "demonstrations"),
        ANNOTATIONS_TABLE: check_columns(corpus, CORPUS, "corpus").drop(WITHHELD),
    }
    for name in (PREFERENCES_TABLE, DEMONSTRATIONS_TABLE):
        _require_training_items(tables[name], corpus, name)
    order = ["prompt", "chosen", "rejected"]
    rest = [name for name in PREFERENCES if name not in order]
    if annotators is not None:
        # Files are by split; what is of no split stands in the first, as in other data sets.
        tables[ANNOTATORS_TABLE] = annotators.with_columns(pl.lit("train").alias("split"))
    return {**tables, PREFERENCES_TABLE: tables[PREFERENCES_TABLE].select(*order, *rest)}


def _require_training_items(table: pl.DataFrame, corpus: pl.DataFrame, name: str) -> None:
    """Raise CorpusError unless every row is of a training or validation item and of people in the corpus."""
    split_of = corpus.select("item_id", pl.col("split").alias("split_of_item")).unique()
    joined = table.join(split_of, on="item_id", how="left")
    wrong = joined.filter(
        ~pl.col("split").eq_missing(pl.col("split_of_item")) | ~pl.col("split").is_in(TRAINING_SPLITS)
    )
    people = {column for column in ("annotator_id", "rejected_annotator_id") if column in table.columns}
    strangers = sorted({who for column in people for who in table[column]} - set(corpus["annotator_id"]))
    if wrong.height or strangers:
        found = f"{wrong.height} row(s) of a test item or of another split than their item's"
        raise CorpusError(
            f"{name}: {found}; not in the corpus: {', '.join(strangers) or 'nobody'}. Make the pairs again"
        )


def list_files(tables: Mapping[str, pl.DataFrame]) -> dict[str, dict[str, str]]:
    """Return the path of every file, by table and split, for those that have rows."""
    return {
        name: {split: f"data/{name}/{split}.parquet" for split in SPLITS if split in set(table["split"])}
        for name, table in tables.items()
    }


def write_tables(tables: Mapping[str, pl.DataFrame], folder: Path) -> None:
    """Write one Parquet file per table and split below `folder`, without the column `split`."""
    for name, paths in list_files(tables).items():
        for split, path in paths.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            rows = tables[name].filter(split=split).drop("split")
            pq.write_table(_to_arrow(rows), folder / path, compression="zstd")


def _to_arrow(rows: pl.DataFrame) -> pa.Table:
    """Return the rows with the plain types that other libraries expect, not polars' large ones."""
    types = [(name, _TYPES.get(dtype, pa.list_(_MESSAGE))) for name, dtype in rows.schema.items()]
    return rows.to_arrow().cast(pa.schema(types))
