from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from judging_material import ANNOTATORS
from validation_material import make_key, rate

from capo_core.human_validation.judge_agreement import compare_with_judges
from schemas.frames import METRICS, VERDICTS

ADA, BO, CY = ANNOTATORS
KEY = make_key(
    ("t1", "rating", "human", ADA),
    ("t2", "rating", "human", BO),
    ("t3", "rating", "sft", ADA),
    ("t4", "rating", "sft", BO),
    ("t5", "t4", "sft", BO),
)


def judge(
    key: pl.DataFrame, answers: dict[str, list[str | None]], name: str = "judge one", **more: Any
) -> pl.DataFrame:
    """Return VERDICTS with one row per task and order of the judge's answers; None is unparseable."""
    rows = [
        {
            "question_id": f"{name} {task['task_id']} {order}",
            "protocol": "attribution",
            "normalisation": "none",
            **{field: task[field] for field in ("method", "seed", "annotator_id", "item_ids")},
            "order": order,
            "candidates": list(ANNOTATORS),
            "verdict": verdict,
            "status": "unparseable" if verdict is None else "ok",
            "judge": name,
        }
        | more
        for task in key.iter_rows(named=True)
        for order, verdict in enumerate(answers.get(task["task_id"], []))
    ]
    return pl.DataFrame(rows, schema=VERDICTS)


def value(metrics: pl.DataFrame, metric: str, method: str = "all") -> tuple[float | None, int]:
    row = metrics.filter(metric=metric, method=method).row(0, named=True)
    return row["value"], row["n"]


def test_verdicts_on_the_same_groups_are_compared() -> None:
    # Most raters name: t1 Ada, t2 Bo, t3 Bo, t4 a tie. The judge: t1 Ada, t2 Ada, t3 Bo, t4 Bo.
    ratings = rate(KEY, {"t1": "AAB", "t2": "BBB", "t3": "ABB", "t4": "AB.", "t5": "CCC"})
    verdicts = judge(KEY, {"t1": [ADA, ADA, BO], "t2": [ADA, None], "t3": [BO], "t4": [BO]})
    metrics = compare_with_judges(ratings, verdicts, seed=5)
    assert dict(metrics.schema) == METRICS
    assert metrics["classifier"].unique().to_list() == ["judge one"]
    # t1 and t3 alike of three groups; with labels Ada, Bo: p_o = 2/3, raters Ada 1/3, judge Ada 2/3,
    # p_e = 1/3 * 2/3 + 2/3 * 1/3 = 4/9, kappa = (2/3 - 4/9) / (5/9) = 2/5.
    assert value(metrics, "human_judge_agreement") == (pytest.approx(2 / 3), 3)
    assert value(metrics, "human_judge_kappa") == (pytest.approx(0.4), 3)
    assert value(metrics, "human_judge_agreement", "human") == (0.5, 2)
    assert value(metrics, "human_judge_agreement", "sft") == (1.0, 1)


def test_a_judge_that_cannot_decide_or_judged_other_groups_has_no_verdict() -> None:
    ratings = rate(KEY, {"t1": "A", "t2": "B"})
    tied = judge(KEY, {"t1": [ADA, BO]})
    elsewhere = judge(make_key(("t9", "rating", "human", ADA)), {"t9": [ADA]}, name="judge two")
    metrics = compare_with_judges(ratings, pl.concat([tied, elsewhere]), seed=5)
    assert metrics["classifier"].unique(maintain_order=True).to_list() == ["judge one", "judge two"]
    assert set(metrics["value"]) == {None}
    assert set(metrics["n"]) == {0}


def test_other_protocols_and_normalised_text_do_not_enter() -> None:
    ratings = rate(KEY, {"t1": "A"})
    verdicts = pl.concat(
        [
            judge(KEY, {"t1": [ADA]}),
            judge(KEY, {"t1": [BO, BO]}, normalisation="surface"),
            judge(KEY, {"t1": [BO, BO]}, protocol="same_author"),
        ]
    )
    assert value(compare_with_judges(ratings, verdicts, seed=5), "human_judge_agreement") == (1.0, 1)


def test_without_a_judge_there_are_no_figures() -> None:
    ratings = rate(KEY, {"t1": "A"})
    assert compare_with_judges(ratings, pl.DataFrame(schema=VERDICTS), seed=5).equals(pl.DataFrame(schema=METRICS))


def test_the_order_of_rows_and_of_items_in_a_group_does_not_matter() -> None:
    ratings = rate(KEY, {"t1": "AAB", "t2": "BBB", "t3": "ABB"})
    verdicts = judge(KEY, {"t1": [ADA, ADA, BO], "t2": [ADA, None], "t3": [BO]})
    shuffled = verdicts.sample(fraction=1.0, shuffle=True, seed=2).with_columns(pl.col("item_ids").list.reverse())
    assert compare_with_judges(ratings.reverse(), shuffled, seed=5).equals(
        compare_with_judges(ratings, verdicts, seed=5)
    )
