"""Who rated with care: attention checks, answers to repeated tasks, time per task, and the rule that excludes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from schemas.frames import RATERS, check_columns
from schemas.human_validation import HumanValidationConfig


def assess_raters(ratings: pl.DataFrame, config: HumanValidationConfig) -> pl.DataFrame:
    """Return one row per rater, a RATERS frame sorted by rater.

    A rater is excluded who passes a smaller share of the attention checks, answers a smaller share of the repeated
    tasks alike (naming the same person, under another letter), or has a shorter median time per task than the
    configuration asks. What a rater has not answered, or no file recorded, excludes nobody.

    Args:
        ratings: RATINGS.
        config: the rule.
    """
    answered = ratings.filter(pl.col("answer") != "")
    attention = answered.filter(pl.col("kind") == "attention")
    repeats = answered.filter(pl.col("kind") == "repeat").join(
        answered.filter(pl.col("kind") == "rating"), left_on=["repeats", "rater_id"], right_on=["task_id", "rater_id"]
    )
    alike = pl.col("annotator_id") == pl.col("annotator_id_right")
    raters = (
        ratings.select("rater_id")
        .unique()
        .join(_summarise(answered, n_answered=pl.len()), on="rater_id", how="left")
        .join(
            _summarise(attention, n_attention=pl.len(), attention_passed=pl.col("correct").mean()),
            on="rater_id",
            how="left",
        )
        .join(_summarise(repeats, n_repeats=pl.len(), self_consistency=alike.mean()), on="rater_id", how="left")
        .join(_summarise(answered, median_seconds=pl.col("seconds").median()), on="rater_id", how="left")
        .join(
            _summarise(answered.filter(pl.col("kind") == "rating"), attribution_accuracy=pl.col("correct").mean()),
            on="rater_id",
            how="left",
        )
        .with_columns(pl.col("n_answered", "n_attention", "n_repeats").fill_null(0).cast(pl.Int64))
        .sort("rater_id")
    )
    reasons = [_find_reason(row, config) for row in raters.iter_rows(named=True)]
    judged = raters.with_columns(
        pl.Series("excluded", [reason is not None for reason in reasons], dtype=pl.Boolean),
        pl.Series("reason", reasons, dtype=pl.String),
    )
    return check_columns(judged.cast({"median_seconds": pl.Float64}), RATERS, "raters")


def describe_rule(config: HumanValidationConfig) -> str:
    """Return the rule that excludes raters, in words."""
    parts = [
        f"less than {config.min_attention_passed:.0%} of the attention checks passed",
        *(
            [f"less than {config.min_self_consistency:.0%} of the repeats answered alike"]
            * (config.min_self_consistency > 0)
        ),
        f"a median time per task under {config.min_median_seconds:g} s where it was recorded",
    ]
    return " or ".join(parts)


def _summarise(rows: pl.DataFrame, **figures: pl.Expr) -> pl.DataFrame:
    return rows.group_by("rater_id").agg(**figures)


def _find_reason(rater: Mapping[str, Any], config: HumanValidationConfig) -> str | None:
    """Return what excludes a rater, None if nothing does."""
    limits = (
        ("attention_passed", config.min_attention_passed, "share of {n_attention} attention checks passed"),
        ("self_consistency", config.min_self_consistency, "share of {n_repeats} repeats answered alike"),
        ("median_seconds", config.min_median_seconds, "median seconds per task"),
    )
    reasons = [
        f"{words.format_map(rater)}: {rater[name]:.2f}, at least {least:g} is asked"
        for name, least, words in limits
        if rater[name] is not None and rater[name] < least
    ]
    return "; ".join(reasons) or None
