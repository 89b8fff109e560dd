"""Strata of explanations: by the label they explain, or by the genre of their item."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import polars as pl

MAX_SCORES = 4
"""Integer scores of more distinct values than this are grouped into bands."""


@dataclass(frozen=True)
class Strata:
    """A partition of explanations.

    Attributes:
        names: of the strata, S.
        of_row: [n] index of every row's stratum, -1 for none.
    """

    names: tuple[str, ...]
    of_row: np.ndarray


def label_strata(labels: pl.Series) -> Strata:
    """Return the explanations by label; integer scores of many values by band.

    Scores of both signs are banded into negative, zero and positive. Other scores are cut at the terciles of the
    annotations (numpy's linear quantiles), values on a cut going to the lower band, and bands are named by the scores
    in them; a band may be lacking where a single score holds a third of the annotations.

    Args:
        labels: n labels as in CORPUS; ordinal scores are decimal integers.
    """
    names = labels.unique().drop_nulls().sort().to_list()
    scores = labels.cast(pl.Int64, strict=False)
    if scores.null_count() == labels.null_count() and len(names) > MAX_SCORES:
        return _score_bands(scores.to_numpy().astype(float))
    if scores.null_count() == labels.null_count():
        names.sort(key=int)
    return _by_name(labels.to_list(), names)


def genre_strata(metadata: pl.Series, key: str) -> Strata:
    """Return the explanations by the value of `key` in their metadata; those without one are in no stratum.

    Args:
        metadata: n JSON objects as in CORPUS.
        key: of the genre, e.g. "genre".
    """
    values = [json.loads(text).get(key) if text is not None else None for text in metadata]
    genres = [None if value is None else str(value) for value in values]
    return _by_name(genres, sorted({genre for genre in genres if genre is not None}))


def _by_name(values: list[str | None], names: list[str]) -> Strata:
    index = {name: i for i, name in enumerate(names)}
    return Strata(tuple(names), np.array([-1 if value is None else index[value] for value in values], dtype=int))


def _score_bands(scores: np.ndarray) -> Strata:
    """Return the bands of [n] scores, NaN where missing."""
    present = scores[~np.isnan(scores)]
    if present.min() < 0 < present.max():
        bands = {"negative": scores < 0, "zero": scores == 0, "positive": scores > 0}
    else:
        low, high = np.quantile(present, [1 / 3, 2 / 3])
        cuts = [scores <= low, (scores > low) & (scores <= high), scores > high]
        bands = {_span(scores[inside]): inside for inside in cuts if inside.any()}
    bands = {name: inside for name, inside in bands.items() if inside.any()}
    of_row = np.full(len(scores), -1)
    for number, inside in enumerate(bands.values()):
        of_row[inside] = number
    return Strata(tuple(bands), of_row)


def _span(scores: np.ndarray) -> str:
    low, high = int(scores.min()), int(scores.max())
    return str(low) if low == high else f"{low} to {high}"
