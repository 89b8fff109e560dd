"""The results of an experiment as one table: what every arm measured, CAPO against SFT, and the bars set beforehand.

An arm is one corpus × model × layout × pair strategy, over all its seeds. `capo_core.results_text` writes the table as
Markdown and LaTeX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from capo_core.evaluation.transfer import CONDITION, FLOOR_CONDITION, GROUP_SIZES
from capo_core.report.formats import NOT_MEASURED, format_difference, format_interval, format_value, is_measured
from schemas.frames import COMPARISONS, METRICS, RESULTS, check_columns

GROUP_SIZE = 5
"""Group size of the attribution figures that stand in the table and in the bars."""

MIN_GAIN = 0.10
MAX_AGREEMENT_LOSS = 0.01
MAX_LENGTH_DEVIATION = 0.15
_ROUNDING = 1e-9

DECISIONS = ("constrained", "greedy", "sampled")
IDENTITY = ("corpus", "model", "layout", "pair_strategy")

TRANSFER = "transfer:"
"""Begins the condition of every figure of an adapter on another corpus than its own."""

_METRIC_KEYS = ("decision", "metric", "condition", "classifier", "group_size")


class ArmResult(NamedTuple):
    """What one arm's evaluation found.

    Attributes:
        identity: `corpus`, `model`, `layout`, `pair_strategy`.
        metrics: METRICS.
        comparisons: COMPARISONS.
        evaluation: reference of the artifact that both were read from.
    """

    identity: Mapping[str, str]
    metrics: pl.DataFrame
    comparisons: pl.DataFrame
    evaluation: str


def results_frame(arms: Iterable[ArmResult]) -> pl.DataFrame:
    """Return the figures over all annotators, and the comparisons, of every arm.

    Beside each mean length_ratio stand length_ratio_lowest and length_ratio_highest: the ratio of the annotator whose
    is least, and greatest. A mean over annotators would let one whose texts are halved make up for one whose texts
    are doubled.

    Returns:
        `RESULTS`; arms in the order given, each with its metrics, then its comparisons, in their evaluation's order.

    Raises:
        ValueError: if a frame has other columns than its schema.
    """
    parts = [part for arm in arms for part in _arm_rows(arm)]
    return check_columns(pl.concat(parts) if parts else pl.DataFrame(schema=RESULTS), RESULTS, "results")


def _arm_rows(arm: ArmResult) -> list[pl.DataFrame]:
    metrics = check_columns(arm.metrics, METRICS, "metrics")
    comparisons = check_columns(arm.comparisons, COMPARISONS, "comparisons").rename(
        {"method_a": "method", "method_b": "compared_with", "difference": "value"}
    )
    means = metrics.filter(pl.col("annotator_id") == "all")
    tables = [(means, "metric"), (_length_extremes(metrics), "metric"), (comparisons, "comparison")]
    added = {**{name: arm.identity[name] for name in IDENTITY}, "evaluation": arm.evaluation}
    return [_as_results(table, {**added, "kind": kind}) for table, kind in tables]


def name_transfer(metrics: pl.DataFrame, target: str) -> pl.DataFrame:
    """Return METRICS of adapters on another corpus, conditions saying so: `transfer:<target>[:<condition>]`."""
    name = pl.concat_str(pl.lit(TRANSFER + target), pl.lit(":") + pl.col("condition"), ignore_nulls=True)
    return metrics.with_columns(name.alias("condition"))


def _length_extremes(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return the least and the greatest length_ratio among annotators, by method and decision, as METRICS rows."""
    measured = (pl.col("metric") == "length_ratio") & (pl.col("annotator_id") != "all") & pl.col("value").is_not_null()
    ordered = metrics.filter(measured).sort("value", "annotator_id")
    groups = ordered.group_by("method", *_METRIC_KEYS, maintain_order=True)
    extremes = [(groups.first(), "length_ratio_lowest"), (groups.last(), "length_ratio_highest")]
    rows = [frame.with_columns(pl.lit(name).alias("metric")).select(list(METRICS)) for frame, name in extremes]
    return pl.concat(rows).sort("method", "decision", "metric", nulls_last=True)


def _as_results(table: pl.DataFrame, added: Mapping[str, str]) -> pl.DataFrame:
    """Return rows with the columns of RESULTS, those that they have not being null."""
    filled = table.with_columns(pl.lit(value).alias(name) for name, value in added.items())
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in RESULTS.items() if name not in filled.columns]
    return filled.with_columns(absent).select(list(RESULTS))


@dataclass(frozen=True)
class Figure:
    """A column of the table: which rows of RESULTS stand in it."""

    title: str
    metric: str
    decision: str | None = "sampled"
    condition: str | None = None
    classifier: str | None = None
    group_size: int | None = None
    share: bool = True


def _attribution(title: str, condition: str, classifier: str) -> Figure:
    return Figure(title, "attribution_accuracy", "sampled", condition, classifier, GROUP_SIZE)


IMITATION = _attribution(f"Attributed k={GROUP_SIZE}, surface-normalised", "surface_normalised", "ngrams")
STYLE_DISTANCE = Figure("Style distance", "style_distance", share=False)
AGREEMENT = {decision: Figure(f"Label agreement, {decision}", "label_agreement", decision) for decision in DECISIONS}

FIGURES: tuple[Figure, ...] = (
    *AGREEMENT.values(),
    Figure("Macro-F1, constrained", "macro_f1", "constrained"),
    _attribution(f"Attributed k={GROUP_SIZE}, raw", "raw", "ngrams"),
    IMITATION,
    _attribution(f"Attributed k={GROUP_SIZE}, surface-normalised, by embeddings", "surface_normalised", "embeddings"),
    *(
        Figure(f"Told from the person (.5 is perfect), {name}", "distinguishability", "sampled", condition, "ngrams")
        for name, condition in (("raw", "raw"), ("surface-normalised", "surface_normalised"))
    ),
    STYLE_DISTANCE,
    Figure("Length ratio", "length_ratio", share=False),
    Figure("Near duplicates of training text", "near_duplicate_rate"),
    Figure("Readable, sampled", "parse_rate"),
)
"""The columns of the table of methods."""


def transfer_figures(target: str) -> list[Figure]:
    """Return the columns of the table of transfer to one corpus: what was read, and attribution with its floor."""
    condition = TRANSFER + target
    figures = [Figure("Readable", "parse_rate", "sampled", condition)]
    for size in GROUP_SIZES:
        for title, part in ((f"Attributed k={size}", CONDITION), (f"Floor k={size}", FLOOR_CONDITION)):
            figures.append(Figure(title, "attribution_accuracy", "sampled", f"{condition}:{part}", "ngrams", size))
    return figures


Row = dict[str, Any]


class ArmTable:
    """The rows of one arm, found by figure and method."""

    def __init__(self, identity: Mapping[str, str], rows: Sequence[Row]) -> None:
        self.identity = dict(identity)
        self._rows = {_key(row, row["method"], row["compared_with"]): row for row in rows}
        self.methods = {row["method"] for row in rows if row["kind"] == "metric"}

    @property
    def transfer_targets(self) -> list[str]:
        """The other corpora that the arm's adapters answered, by name."""
        conditions = {key[4] for key in self._rows if key[4] is not None and key[4].startswith(TRANSFER)}
        return sorted({condition.split(":")[1] for condition in conditions})

    def find(self, figure: Figure, method: str) -> Row | None:
        """Return a method's row of a figure, None where there is none.

        People's own rows have no decision: theirs is neither sampled nor constrained.
        """
        for decision in (figure.decision, None):
            if row := self._rows.get(_key({**vars(figure), "decision": decision}, method, None)):
                return row
        return None

    def compare(self, figure: Figure, method: str = "capo", with_method: str = "sft") -> Row | None:
        """Return the comparison of two methods in a figure, None where there is none."""
        return self._rows.get(_key(vars(figure), method, with_method))

    def value(self, figure: Figure, method: str) -> float | None:
        """Return a method's value of a figure, None where it was not measured."""
        row = self.find(figure, method)
        return None if row is None else row["value"]


def _key(row: Mapping[str, Any], method: str, compared_with: str | None) -> tuple:
    return (method, compared_with, *(row[name] for name in _METRIC_KEYS))


def split_arms(results: pl.DataFrame) -> list[ArmTable]:
    """Return the arms of a RESULTS frame, in its order."""
    parts = check_columns(results, RESULTS, "results").partition_by(list(IDENTITY), maintain_order=True, as_dict=True)
    return [
        ArmTable(dict(zip(IDENTITY, map(str, key), strict=True)), part.rows(named=True)) for key, part in parts.items()
    ]


@dataclass(frozen=True)
class Check:
    """Whether an arm meets one bar; `met` is None where what it needs was not measured."""

    bar: str
    found: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """`met` in words."""
        return {True: "met", False: "not met", None: NOT_MEASURED}[self.met]


def check_bars(arm: ArmTable) -> list[Check]:
    """Return what an arm's CAPO figures are beside each bar that was set beforehand; nothing without CAPO and SFT.

    1. CAPO − SFT ≥ +.10 in attribution accuracy at k = 5, surface-normalised (sampled text, n-grams), or half of what
       SFT leaves to the human ceiling, with an interval above 0.
    2. Label agreement not lower than SFT's by more than .01, in every kind of decision.
    3. The constrained decision's agreement above that of always giving the annotator's commonest label.
    4. Mean length within 15% of the person's, for every annotator.
    5. Style distance no greater than SFT's.
    """
    if not {"capo", "sft"} <= arm.methods:
        return []
    kept = [_check_agreement(arm, decision) for decision in DECISIONS if arm.find(AGREEMENT[decision], "capo")]
    return [_check_gain(arm), *kept, _check_floor(arm), _check_length(arm), _check_style(arm)]


def _check_gain(arm: ArmTable) -> Check:
    row = arm.compare(IMITATION)
    sft, ceiling = arm.value(IMITATION, "sft"), arm.value(IMITATION, "human")
    gain = None if row is None else row["value"]
    half = None if sft is None or ceiling is None else (ceiling - sft) / 2
    bar = (
        f"CAPO − SFT at least +{format_value(MIN_GAIN, share=True)} at k={GROUP_SIZE}, surface-normalised, "
        "or half of what SFT leaves to the human ceiling, interval above 0"
    )
    if row is None or gain is None or row["ci_low"] is None:
        return Check(bar, f"difference {format_difference(gain, share=True)}", None)
    needed = MIN_GAIN if half is None else min(MIN_GAIN, half)
    found = (
        f"{format_difference(gain, share=True)} {format_interval(row['ci_low'], row['ci_high'], share=True)}, "
        f"half of what SFT leaves: {format_difference(half, share=True)}"
    )
    return Check(bar, found, gain >= needed - _ROUNDING and row["ci_low"] > 0)


def _check_agreement(arm: ArmTable, decision: str) -> Check:
    figure = AGREEMENT[decision]
    capo, sft = arm.value(figure, "capo"), arm.value(figure, "sft")
    row = arm.compare(figure)
    change = row["value"] if row else None if capo is None or sft is None else capo - sft
    interval = f" {format_interval(row['ci_low'], row['ci_high'], share=True)}" if row else ""
    bar = f"{figure.title}: not lower than SFT's by more than {format_value(MAX_AGREEMENT_LOSS, share=True)}"
    met = None if change is None else change >= -MAX_AGREEMENT_LOSS - _ROUNDING
    return Check(bar, f"{format_difference(change, share=True)}{interval}", met)


def _check_floor(arm: ArmTable) -> Check:
    figure = AGREEMENT["constrained"]
    capo, floor = arm.value(figure, "capo"), arm.value(figure, "majority")
    found = f"{format_value(capo, share=True)}, floor {format_value(floor, share=True)}"
    met = None if capo is None or floor is None else capo > floor
    return Check("Constrained decision above the annotator's commonest label", found, met)


def _check_length(arm: ArmTable) -> Check:
    lowest, highest = (arm.value(Figure("", f"length_ratio_{end}"), "capo") for end in ("lowest", "highest"))
    bar = "Mean length within 15% of the person's, for every annotator"
    found = f"ratios from {format_value(lowest)} to {format_value(highest)}"
    if lowest is None or highest is None:
        return Check(bar, found, None)
    deviation = max(abs(lowest - 1), abs(highest - 1))
    return Check(bar, found, deviation <= MAX_LENGTH_DEVIATION + _ROUNDING)


def _check_style(arm: ArmTable) -> Check:
    capo, sft = arm.value(STYLE_DISTANCE, "capo"), arm.value(STYLE_DISTANCE, "sft")
    met = capo <= sft + _ROUNDING if is_measured(capo) and is_measured(sft) else None  # type: ignore[operator]
    return Check("Style distance no greater than SFT's", f"{format_value(capo)}, SFT {format_value(sft)}", met)
