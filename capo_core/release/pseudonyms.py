"""Names for annotators that say nothing of who they are, and that only the holder of a key can trace back."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping

import polars as pl

from schemas.frames import CORPUS, check_columns

PREFIX = "annotator-"
_N_DIGITS = 10


def name_pseudonyms(annotators: Iterable[str], corpus: str, key: bytes) -> dict[str, str]:
    """Return each annotator's pseudonym: `annotator-` and the first ten hex digits of HMAC-SHA256(key, corpus, id).

    The same key, corpus and id give the same pseudonym, so that later releases go on with it and a person who
    withdraws can be found; in another corpus the same id has another one.

    Raises:
        ValueError: if two annotators get the same (with a thousand of them, once in two million keys).
    """
    names = {
        annotator: PREFIX
        + hmac.digest(key, json.dumps([corpus, annotator]).encode("ascii"), "sha256").hex()[:_N_DIGITS]
        for annotator in annotators
    }
    if len(set(names.values())) < len(names):
        raise ValueError(f"two annotators of {corpus} got the same pseudonym: use another key")
    return names


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
