"""The promotion gate: what has to hold, and that what was not measured does not."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from capo_core.promotion import decide_promotion
from schemas.frames import COMPARISONS, METRICS, PROMOTION, RETENTION
from schemas.promotion import PromotionConfig

BARS = PromotionConfig(group_size=5, alpha=0.05, max_agreement_loss=0.1, max_perplexity_ratio=2.0, max_copying=0.1)
ALLOWED = {"ann": frozenset({"analysis", "modelling"})}


def frame(schema: dict[str, Any], *rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema)


def imitation(group_size: int, difference: float, p_value: float | None, n: int = 60) -> dict[str, Any]:
    return {
        "decision": "sampled", "metric": "attribution_accuracy", "condition": "surface_normalised",
        "classifier": "ngrams", "group_size": group_size, "difference": difference, "ci_low": difference - 0.1,
        "ci_high": difference + 0.1, "p_value": p_value, "n": n,
    }  # fmt: skip


def agreement(difference: float, ci_low: float, decision: str = "constrained") -> dict[str, Any]:
    about = {"decision": decision, "metric": "label_agreement", "difference": difference}
    return {**about, "ci_low": ci_low, "ci_high": difference + 0.1, "n": 60}


def copying(method: str, value: float) -> dict[str, Any]:
    decision = None if method == "human" else "sampled"
    return {
        "method": method,
        "annotator_id": "ann",
        "decision": decision,
        "metric": "near_duplicate_rate",
        "value": value,
    }


METRIC_ROWS = (copying("capo", 0.15), copying("human", 0.1))
GOOD = (imitation(5, 0.2, 0.01), agreement(-0.02, -0.08))
RETAINED = frame(RETENTION, {"metric": "neutral_perplexity", "change": 1.3, "n": 40})


def decide(
    *comparisons: dict[str, Any],
    metrics: tuple[dict[str, Any], ...] = METRIC_ROWS,
    retention: pl.DataFrame = RETAINED,
    consent: dict[str, frozenset[str] | None] = ALLOWED,
    require_consent: bool = False,
) -> dict[str, bool]:
    table = decide_promotion(
        frame(METRICS, *metrics), frame(COMPARISONS, *comparisons), retention, consent, "ann", 4, BARS,
        require_consent=require_consent,
    )  # fmt: skip
    assert dict(table.schema) == PROMOTION
    return dict(table.select("criterion", "holds").iter_rows())


def test_a_better_imitation_that_costs_nothing_passes() -> None:
    held = decide(*GOOD)
    assert held == dict.fromkeys(("imitation", "label_agreement", "retention", "copying", "consent"), True)


@pytest.mark.parametrize(
    ("difference", "p_value", "holds"),
    [(0.2, 0.05, True), (0.2, 0.051, False), (-0.2, 0.001, False), (0.0, 0.01, False), (0.2, None, False)],
)
def test_better_means_a_positive_difference_by_the_paired_test(
    difference: float, p_value: float | None, holds: bool
) -> None:
    assert decide(imitation(5, difference, p_value), GOOD[1])["imitation"] is holds


def test_too_few_items_move_nobody() -> None:
    assert decide(imitation(5, 0.2, 0.01, n=20), GOOD[1])["imitation"]
    assert not decide(imitation(5, 0.2, 0.01, n=19), GOOD[1])["imitation"]


def test_the_largest_group_up_to_the_configured_size_decides() -> None:
    rows = (imitation(1, 0.2, 0.5), imitation(3, 0.2, 0.01), imitation(10, -0.2, 0.9))
    assert decide(*rows, GOOD[1])["imitation"]


@pytest.mark.parametrize(("difference", "ci_low", "holds"), [(0.0, -0.1, True), (0.05, -0.11, False)])
def test_label_agreement_is_not_inferior_by_its_whole_interval(difference: float, ci_low: float, holds: bool) -> None:
    assert decide(GOOD[0], agreement(difference, ci_low))["label_agreement"] is holds


def test_the_constrained_decision_counts_where_there_is_one() -> None:
    rows = (agreement(-0.5, -0.6, "sampled"), agreement(0.0, -0.05))
    assert decide(GOOD[0], *rows)["label_agreement"]
    assert not decide(GOOD[0], agreement(-0.5, -0.6, "sampled"))["label_agreement"]


def test_what_was_not_measured_does_not_hold() -> None:
    held = decide(metrics=(), retention=frame(RETENTION))
    assert held == {
        "imitation": False, "label_agreement": False, "retention": False, "copying": False, "consent": True,
    }  # fmt: skip


def test_forgetting_and_copying_stand_in_the_way() -> None:
    forgotten = frame(RETENTION, {"metric": "neutral_perplexity", "change": 2.01, "n": 40})
    assert not decide(*GOOD, retention=forgotten)["retention"]
    # .31 is .21 beyond the person's own .10
    assert not decide(*GOOD, metrics=(copying("capo", 0.31), copying("human", 0.1)))["copying"]
    assert decide(*GOOD, metrics=(copying("capo", 0.31), copying("human", 0.25)))["copying"]


def test_whoever_refuses_modelling_or_must_state_a_scope_and_does_not_stands_in_the_way() -> None:
    assert not decide(*GOOD, consent={**ALLOWED, "bob": frozenset({"analysis"})})["consent"]
    assert decide(*GOOD, consent={"ann": None})["consent"]
    assert not decide(*GOOD, consent={"ann": None}, require_consent=True)["consent"]


def test_the_first_version_must_be_above_chance() -> None:
    def first(ci_low: float) -> pl.DataFrame:
        row = {
            **imitation(5, 0.0, None), "method": "capo", "annotator_id": "ann", "value": 0.5, "ci_low": ci_low,
            "ci_high": 0.7, "n_seeds": 1,
        }  # fmt: skip
        del row["difference"], row["p_value"]
        return decide_promotion(frame(METRICS, row, *METRIC_ROWS), None, RETAINED, ALLOWED, "ann", 4, BARS)

    assert first(0.26)["holds"].all()
    below = first(0.25)
    assert not below["holds"].all()
    told = "imitation: the first version: 0.50 [0.25,\u00a00.70] at k = 5, n = 60, chance is 0.25"
    assert below["reason"][0].startswith(told)
