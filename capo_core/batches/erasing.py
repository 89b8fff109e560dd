"""A batch that was taken in, without a person who is erased."""

from __future__ import annotations

import polars as pl

from capo_core.corpora import BatchContent, count_reasons, count_surface_habits
from capo_core.corpora.identities import ERASED_ROWS, Naming, forget_mentions


def erase_from_batch(batch: BatchContent, annotator: str, naming: Naming) -> BatchContent:
    """Return a batch without what a person said, without what is said of the person, and with counts that say so.

    Args:
        batch: as it was taken in.
        annotator: the person, as the batch's rows name them.
        naming: by which that name is erased.
    """
    tables = (batch.annotations, batch.withdrawals, batch.quarantine)
    # Rows of which nobody can say whose they are might be the person's.
    quarantine = batch.quarantine.with_columns(
        pl.when(pl.col("annotator_id").is_null())
        .then(pl.lit('{"withheld": "it cannot be told whose it was"}'))
        .otherwise(pl.col("record"))
        .alias("record")
    )
    own = pl.col("annotator_id").eq_missing(annotator)
    annotations, withdrawals, quarantine = (
        table.filter(~own) for table in (batch.annotations, batch.withdrawals, quarantine)
    )
    n_erased = [
        before.height - after.height
        for before, after in zip(tables, (annotations, withdrawals, quarantine), strict=True)
    ]
    annotations = _forget(annotations, "metadata", annotator, naming)
    quarantine = _forget(_forget(quarantine, "record", annotator, naming), "detail", annotator, naming)
    about_people = {name for name in batch.counts if "." in name or name.startswith("quarantined_")}
    counts = {name: n for name, n in batch.counts.items() if name not in about_people}
    counts |= {
        "rows_accepted": annotations.height,
        "rows_quarantined": quarantine.height,
        ERASED_ROWS: counts.get(ERASED_ROWS, 0) + sum(n_erased),
        "items": annotations["item_id"].n_unique(),
        "contexts": annotations["context_id"].n_unique(),
        "annotators": annotations["annotator_id"].n_unique(),
        **count_reasons(quarantine),
        **count_surface_habits(annotations),
    }
    if "withdrawals" in counts:
        counts["withdrawals"] = withdrawals.height
    return BatchContent(annotations, withdrawals, quarantine, counts)


def _forget(table: pl.DataFrame, column: str, annotator: str, naming: Naming) -> pl.DataFrame:
    """Return a table with a column of JSON, or of sentences, that mentions the person no more."""
    texts = table[column].to_list()
    if column == "detail":
        kept = [text.replace(annotator, "[erased]") for text in texts]
    else:
        kept = forget_mentions(texts, annotator, naming)
    return table.with_columns(pl.Series(column, kept, dtype=pl.String))
