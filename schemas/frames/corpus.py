"""What was read: annotations, what was refused, the split corpus."""

from __future__ import annotations

import polars as pl

ANNOTATIONS: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,  # first 16 hex digits of sha256 over both normalised texts
    "context_id": pl.String,  # items sharing any text share it; splits never separate it
    "text_a": pl.String,
    "text_b": pl.String,
    "annotator_id": pl.String,
    "label": pl.String,  # one of the task's label names; ordinal scores as decimal integers
    "explanation": pl.String,  # as written, surrounding white space included
    "source_file": pl.String,  # file name without directory
    "source_line": pl.Int64,  # 1-based line, or record number where the format has no lines
    "source_id": pl.String,  # the file's own item id, kept for tracing only
    "metadata": pl.String,  # JSON object with every other column of the source
}

QUARANTINE: dict[str, pl.DataType | type[pl.DataType]] = {
    "source_file": pl.String,
    "source_line": pl.Int64,
    "source_id": pl.String,  # nullable
    "annotator_id": pl.String,  # nullable
    "field": pl.String,  # which field is at fault
    "reason": pl.String,  # machine-readable, e.g. unknown_label
    "detail": pl.String,  # a sentence for the reader, naming the value and what to do
    "record": pl.String,  # the row as JSON, so that nothing is lost
}

WITHDRAWALS: dict[str, pl.DataType | type[pl.DataType]] = {
    "annotator_id": pl.String,
    "item_id": pl.String,  # null unless the row gave both texts
    "source_id": pl.String,  # the item's id in earlier files; null as well: all the annotator's rows are meant
    "source_file": pl.String,
    "source_line": pl.Int64,
}

SUGGESTIONS: dict[str, pl.DataType | type[pl.DataType]] = {
    "rank": pl.Int64,  # 1 is asked first
    "item_id": pl.String,
    "text_a": pl.String,
    "text_b": pl.String,
    "score": pl.Float64,  # mean percentile rank of the three figures, as far as measured
    "uncertainty": pl.Float64,  # of the annotator's model, 0 to 1; null without one
    "disagreement": pl.Float64,  # between the annotators' models, bits; null with fewer than two
    "novelty": pl.Float64,  # 1 - cosine to the nearest text known or ranked before
}

CORPUS = {**ANNOTATIONS, "split": pl.String}  # train | validation | test
