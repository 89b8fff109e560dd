"""The verdicts on one group (or pair of groups), all orders together.

A group's verdict is the candidate that most of its answered orders name; where m candidates are named equally often it
is a tie. With two orders, as pairwise and same_author have, orders that disagree are a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import polars as pl

from capo_core.errors import JudgeError
from capo_core.judging.same_author import SAME
from schemas.judge import JudgeConfig, Protocol

CONDITIONS = {"none": "raw", "surface": "surface_normalised"}
"""What figures under each normalisation are called."""

_KEY = ["judge", "protocol", "normalisation", "method", "compared_with", "seed", "annotator_id", "item_ids"]


@dataclass(frozen=True)
class JudgedGroup:
    """What a judge said of one group; the first eight as in VERDICTS, the condition for the normalisation.

    Attributes:
        n_candidates: that could be named.
        n_questions: orders put to the judge, or meant to be.
        verdicts: candidates named, one per order that was answered.
        positions: where each stood.
        n_failed: orders that got no answer.
        n_not_asked: orders left out because the budget was spent.
    """

    judge: str
    protocol: str
    condition: str
    method: str
    compared_with: str | None
    seed: int
    annotator_id: str
    item_ids: tuple[str, ...]
    n_candidates: int
    n_questions: int
    verdicts: tuple[str, ...]
    positions: tuple[int, ...]
    n_failed: int
    n_not_asked: int

    @property
    def target(self) -> str:
        """The candidate that a group scores by: its author or model, the first method, or `same`."""
        return {"attribution": self.annotator_id, "pairwise": self.method, "same_author": SAME}[self.protocol]

    @property
    def named_most(self) -> frozenset[str]:
        """The candidates that most orders name."""
        counts = Counter(self.verdicts)
        return frozenset(name for name, count in counts.items() if count == max(counts.values()))

    @property
    def verdict(self) -> str | None:
        """The one candidate that most orders name; None for a tie or where the group is not measured."""
        return next(iter(self.named_most)) if self.is_measured and len(self.named_most) == 1 else None

    @property
    def is_measured(self) -> bool:
        """Whether more than half of the orders were answered."""
        return 2 * len(self.verdicts) > self.n_questions

    @property
    def credit(self) -> float:
        """1 / (number of candidates named most) if the target is among them, else 0: half for a tie of two."""
        return (self.target in self.named_most) / len(self.named_most)

    @property
    def is_tied(self) -> float:
        """1 for a tie, else 0."""
        return float(len(self.named_most) > 1)

    @property
    def consistency(self) -> float | None:
        """Share of the pairs of answered orders that name the same candidate; None with fewer than two answers."""
        n = len(self.verdicts)
        if n < 2:
            return None
        return sum(count * (count - 1) for count in Counter(self.verdicts).values()) / (n * (n - 1))


def read_groups(verdicts: pl.DataFrame) -> list[JudgedGroup]:
    """Return the verdicts by group, in sorted order.

    Raises:
        JudgeError: if a judge's name stands for two judges, so that a question has two verdicts.
    """
    if (twice := verdicts.filter(pl.struct("judge", "question_id").is_duplicated())).height:
        names = sorted(twice["judge"].unique())
        raise JudgeError(f"judge {names[0]!r} answered {twice.height} questions twice: give every judge another model")
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in verdicts.sort("judge", "question_id").iter_rows(named=True):
        key = tuple(tuple(row[name]) if name == "item_ids" else row[name] for name in _KEY)
        groups.setdefault(key, []).append(row)
    ordered = sorted(groups.items(), key=lambda entry: tuple("" if part is None else part for part in entry[0]))
    return [_read_group(key, rows) for key, rows in ordered]


def iterate_parts(
    verdicts: pl.DataFrame, config: JudgeConfig
) -> Iterator[tuple[str, Protocol, str, list[JudgedGroup]]]:
    """Yield every judge, protocol and condition with its groups: judges sorted, the rest as configured."""
    parts = partition_groups(read_groups(verdicts))
    for judge in sorted({key[0] for key in parts}):
        for protocol in config.protocols:
            for condition in (CONDITIONS[normalisation] for normalisation in config.normalisations):
                yield judge, protocol, condition, parts.get((judge, protocol, condition), [])


def partition_groups(groups: Sequence[JudgedGroup]) -> dict[tuple[str, str, str], list[JudgedGroup]]:
    """Return the groups by judge, protocol and condition."""
    parts: dict[tuple[str, str, str], list[JudgedGroup]] = {}
    for group in groups:
        parts.setdefault((group.judge, group.protocol, group.condition), []).append(group)
    return parts


def _read_group(key: tuple, rows: Sequence[dict[str, Any]]) -> JudgedGroup:
    judge, protocol, normalisation, method, compared_with, seed, annotator, item_ids = key
    named = [row for row in rows if row["status"] == "ok"]
    return JudgedGroup(
        judge=judge,
        protocol=protocol,
        condition=CONDITIONS[normalisation],
        method=method,
        compared_with=compared_with,
        seed=seed,
        annotator_id=annotator,
        item_ids=item_ids,
        n_candidates=len(rows[0]["candidates"]),
        n_questions=len(rows),
        verdicts=tuple(row["verdict"] for row in named),
        positions=tuple(row["candidates"].index(row["verdict"]) for row in named),
        n_failed=sum(row["status"] == "failed" for row in rows),
        n_not_asked=sum(row["status"] == "not_asked" for row in rows),
    )


def collect_cells(
    groups: Sequence[JudgedGroup], annotators: Sequence[str], value: Callable[[JudgedGroup], float | None]
) -> list[dict[tuple[int, Any], float]]:
    """Return a value of the measured groups by annotator, seed and items; None is left out.

    Several groups about the same items, as pairs of different methods are, give their mean.
    """
    found: list[dict[tuple[int, Any], list[float]]] = [{} for _ in annotators]
    position = {name: place for place, name in enumerate(annotators)}
    for group in groups:
        of_group = value(group) if group.is_measured and group.annotator_id in position else None
        if of_group is not None:
            found[position[group.annotator_id]].setdefault((group.seed, group.item_ids), []).append(of_group)
    return [{key: fmean(values) for key, values in own.items()} for own in found]
