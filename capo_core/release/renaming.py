"""A corpus as it is published: its annotators under pseudonyms, without what leads back to them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from schemas.frames import CORPUS, check_columns


def rename_annotators(corpus: pl.DataFrame, pseudonyms: Mapping[str, str]) -> pl.DataFrame:
    """Return the corpus with pseudonyms in place of ids, and of the metadata only the judgements' verdicts.

    Pairing reads those verdicts (`capo_core.validity`); who judged, what the file says of the annotators and where a
    row stood in it would each give a person away.

    Args:
        corpus: a `CORPUS` frame.
        pseudonyms: of every annotator in it.
    """
    renamed = corpus.with_columns(
        pl.col("annotator_id").replace_strict(pseudonyms),
        pl.col("metadata").map_elements(_keep_verdicts, return_dtype=pl.String),
        pl.lit("").alias("source_file"),
        pl.lit("").alias("source_id"),
        pl.lit(0, dtype=pl.Int64).alias("source_line"),
    )
    return check_columns(renamed.sort("item_id", "annotator_id", "label"), CORPUS, "corpus")


def _keep_verdicts(metadata: str) -> str:
    """Return the metadata's `judgments` as verdicts alone; an empty object where there are none."""
    content = json.loads(metadata)
    judgements = content.get("judgments") if isinstance(content, dict) else None
    if not isinstance(judgements, list):
        return "{}"
    kept = [{"makes_sense": one.get("makes_sense")} for one in judgements if isinstance(one, dict)]
    return json.dumps({"judgments": kept})
