"""What a report is made from, and how single figures are found in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from capo_core.report.formats import is_measured
from schemas import frames
from schemas.config import ExperimentConfig

ALL = "all"
"""Annotator id under which METRICS keeps the mean over annotators."""

TIMINGS = {
    "step": pl.String,
    "label": pl.String,  # the step with what tells its runs apart: train-capo Ann1 seed 13
    "seconds": pl.Float64,
}
"""Columns of what the run's steps took when they were computed."""

JUDGE_USAGE = {
    "judge": pl.String,
    "status": pl.String,  # ok | unparseable | failed | not_asked
    "n_questions": pl.Int64,
    "n_prompt_tokens": pl.Int64,  # null where the judge does not say
    "n_answer_tokens": pl.Int64,
}
"""Columns of what judging used: one row per judge and kind of answer."""

_COLUMNS = {
    "quarantine": frames.QUARANTINE,
    "corpus": frames.CORPUS,
    "agreement": frames.AGREEMENT,
    "item_labels": frames.ITEM_LABELS,
    "subjectivity": frames.SUBJECTIVITY,
    "convergence": frames.CONVERGENCE,
    "convergence_fits": frames.CONVERGENCE_FITS,
    "stability": frames.STABILITY,
    "stability_annotators": frames.STABILITY_BY_ANNOTATOR,
    "metrics": frames.METRICS,
    "comparisons": frames.COMPARISONS,
    "style_distances": frames.STYLE_DISTANCES,
    "cross_attribution": frames.CROSS_ATTRIBUTION,
    "exclusions": frames.EXCLUSIONS,
    "retention": frames.RETENTION,
    "value_profiles": frames.VALUE_PROFILES,
    "judge_metrics": frames.METRICS,
    "generations": frames.GENERATIONS,
    "ratings_metrics": frames.METRICS,
    "judge_comparisons": frames.COMPARISONS,
    "judge_pairs": frames.JUDGE_PAIRS,
    "judge_agreement": frames.JUDGE_AGREEMENT,
    "ratings_comparisons": frames.COMPARISONS,
    "raters": frames.RATERS,
    "judge_usage": JUDGE_USAGE,
    "timings": TIMINGS,
}
"""Tables of a report and their columns."""


@dataclass(frozen=True)
class StyleData:
    """What the style of each annotator consists of.

    Attributes:
        features: FEATURE_TESTS frame.
        reliability: RELIABILITY frame.
        annotators: STYLE_FEATURES frame.
        words: STYLE_WORDS frame.
        examples: STYLE_EXAMPLES frame.
    """

    features: pl.DataFrame
    reliability: pl.DataFrame
    annotators: pl.DataFrame
    words: pl.DataFrame
    examples: pl.DataFrame

    def __post_init__(self) -> None:
        """Raise ValueError, naming table and column, where a frame has not exactly its kind's columns."""
        frames.check_columns(self.features, frames.FEATURE_TESTS, "features")
        frames.check_columns(self.reliability, frames.RELIABILITY, "reliability")
        frames.check_columns(self.annotators, frames.STYLE_FEATURES, "style features")
        frames.check_columns(self.words, frames.STYLE_WORDS, "style words")
        frames.check_columns(self.examples, frames.STYLE_EXAMPLES, "style examples")


@dataclass(frozen=True)
class ReportData:
    """Everything that one report shows.

    Attributes:
        config: the experiment's configuration.
        annotations_counts: ingest counts by name; `rows_in`, `rows_accepted`, `rows_quarantined` and every quirk.
        quarantine: QUARANTINE frame.
        corpus: CORPUS frame.
        agreement: AGREEMENT frame.
        item_labels: ITEM_LABELS frame.
        subjectivity: SUBJECTIVITY frame, empty where no class was proposed.
        convergence: CONVERGENCE frame.
        convergence_fits: CONVERGENCE_FITS frame.
        stability: STABILITY frame.
        stability_annotators: STABILITY_BY_ANNOTATOR frame.
        style: the tables on named features of style.
        training_logs: (method, annotator_id or "shared", seed, TRAINING_LOG frame), one per training run.
        pair_counts: counts of preference pairs by name; values may be mappings of counts.
        metrics: METRICS frame of the evaluation.
        comparisons: COMPARISONS frame.
        style_distances: STYLE_DISTANCES frame.
        cross_attribution: CROSS_ATTRIBUTION frame.
        exclusions: EXCLUSIONS frame.
        retention: RETENTION frame, of all adapters.
        value_profiles: VALUE_PROFILES frame, of all annotators.
        judge_metrics: METRICS frame of the judge, None where no judge was asked.
        generations: GENERATIONS frame.
        ratings_metrics: METRICS frame of human ratings, None where none were imported.
        provenance: `artifacts` (name to reference), `versions` (package to version), `capo_version`, `command`,
            `created_at`; other keys are shown as they are.
        judge_comparisons: COMPARISONS frame of judges' verdicts, None where none were asked.
        judge_pairs: JUDGE_PAIRS frame, likewise.
        judge_agreement: JUDGE_AGREEMENT frame, likewise.
        ratings_comparisons: COMPARISONS frame of human ratings, None where none were imported.
        raters: RATERS frame, None where no ratings were imported.
        judge_usage: JUDGE_USAGE frame, None where no judge was asked.
        timings: TIMINGS frame, None where nothing is recorded.
    """

    config: ExperimentConfig
    annotations_counts: dict[str, int]
    quarantine: pl.DataFrame
    corpus: pl.DataFrame
    agreement: pl.DataFrame
    item_labels: pl.DataFrame
    subjectivity: pl.DataFrame
    convergence: pl.DataFrame
    convergence_fits: pl.DataFrame
    stability: pl.DataFrame
    stability_annotators: pl.DataFrame
    style: StyleData
    training_logs: list[tuple[str, str, int, pl.DataFrame]]
    pair_counts: dict[str, Any]
    metrics: pl.DataFrame
    comparisons: pl.DataFrame
    style_distances: pl.DataFrame
    cross_attribution: pl.DataFrame
    exclusions: pl.DataFrame
    retention: pl.DataFrame
    value_profiles: pl.DataFrame
    judge_metrics: pl.DataFrame | None
    generations: pl.DataFrame
    ratings_metrics: pl.DataFrame | None
    provenance: dict[str, Any]
    judge_comparisons: pl.DataFrame | None = None
    judge_pairs: pl.DataFrame | None = None
    judge_agreement: pl.DataFrame | None = None
    ratings_comparisons: pl.DataFrame | None = None
    raters: pl.DataFrame | None = None
    judge_usage: pl.DataFrame | None = None
    timings: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        """Raise ValueError, naming table and column, where a frame has not exactly its kind's columns."""
        for name, columns in _COLUMNS.items():
            frame = getattr(self, name)
            if frame is not None:
                frames.check_columns(frame, columns, name)
        for method, annotator_id, seed, log in self.training_logs:
            frames.check_columns(log, frames.TRAINING_LOG, f"training log of {method}, {annotator_id}, seed {seed}")

    @property
    def annotators(self) -> list[str]:
        """Annotator ids of the corpus, sorted."""
        return sorted(self.corpus["annotator_id"].unique().to_list())

    @property
    def alpha(self) -> float:
        """The level of tests that agrees with the intervals' confidence, e.g. .05."""
        return 1 - self.config.evaluation.confidence

    @property
    def confidence_percent(self) -> str:
        """The intervals' level as it stands in a sentence, e.g. `95%`."""
        return f"{100 * self.config.evaluation.confidence:g}%"


@dataclass(frozen=True)
class Estimate:
    """One row of METRICS that holds a measured value."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    n_seeds: int | None


@dataclass(frozen=True)
class Difference:
    """One row of COMPARISONS that holds a measured value, turned so that it reads `a minus b`."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    effect_size: float | None
    n: int | None
    n_seeds: int | None

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and it lies on one side of 0."""
        if self.low is None or self.high is None or not (is_measured(self.low) and is_measured(self.high)):
            return False
        return self.low > 0 or self.high < 0

    def is_shown(self, alpha: float) -> bool:
        """Return whether interval and test both tell the difference from 0; without an interval it is not shown.

        The test counts as corrected for the number of comparisons where it was, else as it is.
        """
        p = self.p_holm if is_measured(self.p_holm) else self.p_value
        return self.excludes_zero and (p is None or not is_measured(p) or p < alpha)

    def is_shown_uncorrected(self, alpha: float) -> bool:
        """Return whether the difference would be shown were it the only comparison made."""
        p = self.p_value
        return self.excludes_zero and (p is None or not is_measured(p) or p < alpha)


def read_comparison(row: dict[str, Any], sign: int = 1) -> Difference | None:
    """Return a COMPARISONS row as a difference, turned round for sign −1; None where it was not measured."""
    if not is_measured(row["difference"]):
        return None
    low, high, effect = (_number(row[name]) for name in ("ci_low", "ci_high", "effect_size"))
    if sign < 0:
        low, high = (None if high is None else -high), (None if low is None else -low)
        effect = None if effect is None else -effect
    tests = (_number(row["p_value"]), _number(row["p_holm"]))
    return Difference(sign * row["difference"], low, high, *tests, effect, row["n"], row["n_seeds"])


def matching(frame: pl.DataFrame, **wanted: str | int | None) -> pl.DataFrame:
    """Return the rows whose columns equal the wanted values; None matches null."""
    for column, value in wanted.items():
        frame = frame.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    return frame


def is_finite(column: str) -> pl.Expr:
    """Return the condition that a column holds a number: neither null nor NaN nor infinite."""
    return pl.col(column).is_not_null() & pl.col(column).is_finite()


def find_estimate(metrics: pl.DataFrame | None, **wanted: str | int | None) -> Estimate | None:
    """Return the one measured row with the wanted keys; None where there is none, or more than one to choose from."""
    if metrics is None:
        return None
    rows = matching(metrics, **wanted).filter(is_finite("value"))
    if rows.height != 1:
        return None
    row = rows.row(0, named=True)
    return Estimate(row["value"], _number(row["ci_low"]), _number(row["ci_high"]), row["n"], row["n_seeds"])


def _number(value: float | None) -> float | None:
    """Return a finite number as it is, anything else as None."""
    return value if is_measured(value) else None


def find_difference(
    comparisons: pl.DataFrame, method_a: str, method_b: str, **wanted: str | int | None
) -> Difference | None:
    """Return a minus b for the wanted metric, turning the sign where the table holds b minus a."""
    for first, second, sign in ((method_a, method_b, 1), (method_b, method_a, -1)):
        rows = matching(comparisons, method_a=first, method_b=second, **wanted)
        if rows.height != 1:
            continue
        return read_comparison(rows.row(0, named=True), sign)
    return None


def choose_group_size(metrics: pl.DataFrame, metric: str = "attribution_accuracy", preferred: int = 5) -> int | None:
    """Return the group size for the headline: the one nearest to `preferred`, the smaller of two; None without any."""
    sizes = metrics.filter((pl.col("metric") == metric) & is_finite("value"))["group_size"]
    return choose_size(sizes.drop_nulls().to_list(), preferred)


def choose_size(sizes: Iterable[int], preferred: int = 5) -> int | None:
    """Return the size nearest to `preferred`, the smaller of two; None without any."""
    return min(set(sizes), key=lambda size: (abs(size - preferred), size), default=None)


def choose_decision(metrics: pl.DataFrame, metric: str, preferred: str) -> str | None:
    """Return the decision to quote for a metric: `preferred` where it was measured for SFT or CAPO, else another."""
    trained = metrics.filter((pl.col("metric") == metric) & pl.col("method").is_in(["sft", "capo"]))
    decisions = sorted(trained["decision"].drop_nulls().unique().to_list())
    if preferred in decisions:
        return preferred
    return decisions[0] if decisions else None
