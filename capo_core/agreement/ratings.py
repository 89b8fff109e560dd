"""Labels as arrays: who gave which label to which item.

A slot is (item, annotator). Coefficients of single labels have no value for a slot with several different labels: they
take it as missing, as a slot without a label is, and `count_multiple_label_slots` says how many there are. α at level
`masi` takes the set of a slot's labels as its value. The same label given twice counts once.

Notation: I items, A annotators, L labels that occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from capo_core.errors import CorpusError

Level = Literal["nominal", "ordinal", "interval", "masi"]
"""Level of measurement of the labels; masi: sets of nominal labels."""

NUMERIC_LEVELS = ("ordinal", "interval")


@dataclass(frozen=True)
class Ratings:
    """Every label given, as an incidence.

    Attributes:
        given: [I, A, L] whether the annotator gave the item the label.
        items: sorted ids of the items with a label.
        annotators: sorted ids; those without any label keep a column.
        labels: the labels that occur, sorted; as numbers at the levels ordinal and interval.
    """

    given: np.ndarray
    items: tuple[str, ...]
    annotators: tuple[str, ...]
    labels: tuple[str, ...] | tuple[float, ...]

    def single_codes(self) -> np.ndarray:
        """Return [I, A] index of the slot's only label, -1 where it has none or several."""
        if not self.labels:
            return np.full(self.given.shape[:2], -1)
        return np.where(self.given.sum(axis=2) == 1, self.given.argmax(axis=2), -1)

    def set_codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return [I, A] index of the slot's label set, -1 where empty, and the sets that occur as rows, [S, L]."""
        n_items, n_annotators, n_labels = self.given.shape
        slots = self.given.reshape(-1, n_labels)
        codes = np.full(len(slots), -1)
        filled = slots.any(axis=1)
        if not filled.any():
            return codes.reshape(n_items, n_annotators), np.zeros((0, n_labels), dtype=bool)
        sets, code_of = np.unique(slots[filled], axis=0, return_inverse=True)
        codes[filled] = code_of.ravel()
        return codes.reshape(n_items, n_annotators), sets

    def filled(self) -> np.ndarray:
        """Return [I, A] whether the annotator gave the item any label."""
        return np.asarray(self.given.any(axis=2))

    def has_multiple_label_slots(self) -> bool:
        """Return whether any slot has several labels."""
        return bool((self.given.sum(axis=2) > 1).any())


def read_ratings(annotations: pl.DataFrame, level: Level) -> Ratings:
    """Return the labels given, independent of the order of rows.

    Args:
        annotations: columns item_id, annotator_id, label; null labels are missing.
        level: at ordinal and interval labels are read as numbers.

    Raises:
        CorpusError: if a label is not a number at level ordinal or interval.
    """
    rows = annotations.select("item_id", "annotator_id", "label").drop_nulls().unique().sort(pl.all())
    annotators = tuple(annotations["annotator_id"].drop_nulls().unique().sort().to_list())
    items = tuple(rows["item_id"].unique().sort().to_list())
    read = [_as_number(label) for label in rows["label"]] if level in NUMERIC_LEVELS else rows["label"].to_list()
    labels = tuple(sorted(set(read)))
    item_of, annotator_of, label_of = (
        {name: i for i, name in enumerate(names)} for names in (items, annotators, labels)
    )
    given = np.zeros((len(items), len(annotators), len(labels)), dtype=bool)
    given[
        [item_of[item] for item in rows["item_id"]],
        [annotator_of[annotator] for annotator in rows["annotator_id"]],
        [label_of[label] for label in read],
    ] = True
    return Ratings(given=given, items=items, annotators=annotators, labels=labels)


def count_multiple_label_slots(annotations: pl.DataFrame) -> int:
    """Return the number of slots (item, annotator) with several different labels, missing to single-label figures."""
    slots = annotations.drop_nulls("label").group_by("item_id", "annotator_id").agg(pl.col("label").n_unique())
    return int(slots.filter(pl.col("label") > 1).height)


def value_counts(codes: np.ndarray, n_values: int) -> np.ndarray:
    """Return how often each value stands on each item, [I, A] codes -> [I, V]."""
    return (codes[:, :, None] == np.arange(n_values)).sum(axis=1)


def _as_number(label: str) -> float:
    """Return the label as a finite number."""
    try:
        number = float(label)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise CorpusError(
            f"label {label!r} is not a number, so agreement at level ordinal or interval has no meaning; "
            "use level nominal or correct the task's label type"
        )
    return number
