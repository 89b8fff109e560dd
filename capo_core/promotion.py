"""The promotion gate: whether a challenger is a better imitation than the champion, and nothing is worse for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from capo_core.consent import Consent, find_objections
from capo_core.evaluation.retention import NEUTRAL_PERPLEXITY
from capo_core.evaluation.run_comparison import RunComparison, compare_runs
from capo_core.report.formats import format_estimate, format_value
from schemas.config import EvaluationConfig, TaskSpec
from schemas.frames import PROMOTION
from schemas.promotion import PromotionConfig

_DECISIONS = ("sampled", "constrained", "greedy")
_LABEL_DECISIONS = ("constrained", "greedy", "sampled")
_SAME_METHOD = "capo"


def compare_with_champion(
    corpus: pl.DataFrame,
    challenger: pl.DataFrame,
    champion: pl.DataFrame,
    learned_by_champion: Iterable[str],
    task: TaskSpec,
    config: EvaluationConfig,
) -> RunComparison | None:
    """Return the challenger's figures minus the champion's, or None where they can be compared on no item.

    Compared is on held-out items that the champion did not learn either: it may come from another split.

    Args:
        corpus: CORPUS the challenger was made from.
        challenger: GENERATIONS of one method and one seed.
        champion: likewise, of the same seed; its method may be another.
        learned_by_champion: items the champion was trained or chosen on.
        task: what both were asked.
        config: how to measure.
    """
    learned = pl.col("item_id").is_in(sorted(set(learned_by_champion)))
    first, second = (
        generations.filter(~learned).with_columns(pl.lit(_SAME_METHOD).alias("method"))
        for generations in (challenger, champion)
    )
    common = set(first["item_id"]) & set(second["item_id"])
    return compare_runs(corpus, first, second, task, config) if common else None


def decide_promotion(
    metrics: pl.DataFrame,
    comparisons: pl.DataFrame | None,
    retention: pl.DataFrame,
    consent: Consent,
    person: str,
    n_annotators: int,
    config: PromotionConfig,
    *,
    require_consent: bool = False,
) -> pl.DataFrame:
    """Return each criterion with its figure and whether it holds; the challenger is promoted if all hold.

    imitation: better than the champion by the paired test of `compare_runs`, on items enough; the first version has
    no champion and must have its interval above chance. label_agreement: the interval of the difference lies above
    minus the margin (non-inferiority). retention, copying: the challenger's own. What was not measured does not
    hold.

    Args:
        metrics: METRICS of the challenger and of people.
        comparisons: COMPARISONS of challenger minus champion, None where there is no champion.
        retention: RETENTION of the challenger.
        consent: scopes of each person the adapter answers for, None where none are stated.
        person: annotator_id of the challenger's rows of `metrics`.
        n_annotators: candidates of an attribution.
        config: the bars.
        require_consent: whether people who state no scope stand in the way too.

    Returns:
        PROMOTION.
    """
    rows = [
        _judge_imitation(metrics, comparisons, person, n_annotators, config),
        _judge_labels(comparisons, config),
        _judge_retention(retention, config),
        _judge_copying(metrics, person, config),
        _judge_consent(consent, require_consent),
    ]
    return pl.DataFrame(rows, schema=PROMOTION)


def refuse_incomparable(reason: str) -> pl.DataFrame:
    """Return PROMOTION of a challenger that cannot be held against the champion."""
    return pl.DataFrame([_row("imitation", {}, False, reason)], schema=PROMOTION)


def _judge_imitation(
    metrics: pl.DataFrame, comparisons: pl.DataFrame | None, person: str, n_annotators: int, config: PromotionConfig
) -> dict[str, Any]:
    wanted = {"metric": "attribution_accuracy", "condition": "surface_normalised", "classifier": "ngrams"}
    if comparisons is None:
        row = _find(metrics.filter(annotator_id=person), wanted, _DECISIONS, config.group_size)
        chance = 1 / n_annotators
        holds = row is not None and row["ci_low"] > chance and row["n"] >= config.min_items
        told = _tell(row, "value")
        bar = f"chance is {format_value(chance)}; on {config.min_items} items or more, all of the interval above it"
        return _row("imitation", row, holds, f"the first version: {told}, {bar}")
    row = _find(comparisons, wanted, _DECISIONS, config.group_size)
    holds = (
        row is not None
        and row["n"] >= config.min_items
        and row["difference"] > 0
        and row["p_value"] is not None
        and row["p_value"] <= config.alpha
    )
    p_value = "" if row is None or row["p_value"] is None else f", p = {row['p_value']:.3g}"
    told = _tell(row, "difference") + p_value
    bar = f"better at p ≤ {config.alpha:g} on {config.min_items} items or more is asked for"
    return _row("imitation", row, holds, f"against the champion {told}; {bar}")


def _judge_labels(comparisons: pl.DataFrame | None, config: PromotionConfig) -> dict[str, Any]:
    if comparisons is None:
        return _row("label_agreement", {}, True, "the first version: there is no champion to agree less than")
    row = _find(comparisons, {"metric": "label_agreement"}, _LABEL_DECISIONS)
    holds = row is not None and row["ci_low"] >= -config.max_agreement_loss
    told = _tell(row, "difference")
    return _row(
        "label_agreement", row, holds,
        f"against the champion {told}; no more than {format_value(config.max_agreement_loss)} lower is allowed",
    )  # fmt: skip


def _judge_retention(retention: pl.DataFrame, config: PromotionConfig) -> dict[str, Any]:
    row = _find(retention, {"metric": NEUTRAL_PERPLEXITY})
    holds = row is not None and row["change"] <= config.max_perplexity_ratio
    told = "not measured" if row is None else f"{row['change']:.2f} times the base model's"
    return _row(
        "retention", row, holds,
        f"perplexity of neutral text {told}; at most {config.max_perplexity_ratio:g} times is allowed", value="change",
    )  # fmt: skip


def _judge_copying(metrics: pl.DataFrame, person: str, config: PromotionConfig) -> dict[str, Any]:
    wanted = {"metric": "near_duplicate_rate", "annotator_id": person}
    row = _find(metrics.filter(pl.col("method") != "human"), wanted, _DECISIONS)
    own = _find(metrics.filter(method="human"), wanted)
    usual = 0.0 if own is None else own["value"]
    holds = row is not None and row["value"] - usual <= config.max_copying
    told = "not measured" if row is None else format_value(row["value"])
    return _row(
        "copying", row, holds,
        f"near-duplicates of training explanations {told}, the person's own {format_value(usual)}; at most "
        f"{format_value(config.max_copying)} more is allowed",
    )  # fmt: skip


def _judge_consent(consent: Consent, require_consent: bool) -> dict[str, Any]:
    objections = find_objections(consent, "modelling", require_consent=require_consent)
    told = "; ".join(f"{who}: {why}" for who, why in objections.items())
    silent = [name for name, scopes in consent.items() if scopes is None]
    agreed = f"{', '.join(silent)}: no scope is stated, and need not be" if silent else "modelling is consented to"
    return _row("consent", {}, not objections, told or agreed)


def _find(
    table: pl.DataFrame,
    wanted: Mapping[str, str],
    decisions: Iterable[str | None] = (None,),
    group_size: int | None = None,
) -> dict[str, Any] | None:
    """Return the measured row of a figure: of the first decision there is, of the largest group up to a size."""
    rows = table.filter(**wanted)
    if "difference" in rows.columns:
        rows = rows.drop_nulls("difference")
    if "value" in rows.columns:
        rows = rows.drop_nulls("value")
    if group_size is not None:
        rows = rows.filter(pl.col("group_size") <= group_size).sort("group_size", descending=True)
    for decision in decisions:
        found = rows if decision is None else rows.filter(decision=decision)
        if found.height:
            return found.row(0, named=True)
    return None


def _tell(row: Mapping[str, Any] | None, value: str) -> str:
    if row is None:
        return "not measured"
    size = f" at k = {row['group_size']}" if row["group_size"] is not None else ""
    estimate = format_estimate(row[value], row["ci_low"], row["ci_high"])
    return f"{estimate}{size}, n = {row['n']}"


def _row(
    criterion: str, row: Mapping[str, Any] | None, holds: bool, reason: str, value: str | None = None
) -> dict[str, Any]:
    row = row or {}
    figure = row.get(value) if value else row.get("difference", row.get("value"))
    kept = {name: row.get(name) for name in ("ci_low", "ci_high", "p_value", "n")}
    return {"criterion": criterion, "value": figure, **kept, "holds": holds, "reason": f"{criterion}: {reason}"}
