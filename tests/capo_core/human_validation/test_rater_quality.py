from __future__ import annotations

import polars as pl
import pytest
from judging_material import ANNOTATORS
from validation_material import make_key, rate

from capo_core.human_validation.rater_quality import assess_raters, describe_rule
from schemas.frames import RATERS
from schemas.human_validation import HumanValidationConfig

ADA, BO, _ = ANNOTATORS
KEY = make_key(
    ("t1", "rating", "sft", ADA),
    ("t2", "rating", "sft", BO),
    ("t3", "t1", "sft", ADA),
    ("t4", "t2", "sft", BO),
    ("t5", "attention", "human", ADA),
    ("t6", "attention", "human", BO),
)
RULE = HumanValidationConfig(min_attention_passed=0.75, min_self_consistency=0.5, min_median_seconds=3)


def test_raters_are_described_by_checks_repeats_and_time() -> None:
    # r1: both ratings and checks right, repeats answered alike once (t3 again A, t4 now C instead of B).
    # r2: t1 A, t2 no answer, so that t4 has nothing to be compared with; t3 alike; one check of two.
    # r3 has only rated t1, wrongly.
    ratings = rate(KEY, {"t1": "AAB", "t2": "B.-", "t3": "AA-", "t4": "CB-", "t5": "AA-", "t6": "BA-"}, seconds=4.0)
    raters = assess_raters(ratings, RULE)
    assert dict(raters.schema) == RATERS
    assert raters.rows() == [
        ("r1", 6, 2, 1.0, 2, 0.5, 4.0, 1.0, False, None),
        ("r2", 5, 2, 0.5, 1, 1.0, 4.0, 1.0, True, "share of 2 attention checks passed: 0.50, at least 0.75 is asked"),
        ("r3", 1, 0, None, 0, None, 4.0, 0.0, False, None),
    ]


@pytest.mark.parametrize(
    ("answers", "seconds", "reason"),
    [
        ({"t1": "A", "t3": "B"}, 4.0, "share of 1 repeats answered alike: 0.00, at least 0.5 is asked"),
        ({"t1": "A"}, 2.5, "median seconds per task: 2.50, at least 3 is asked"),
        ({"t5": "B", "t1": "A"}, 1.0, "share of 1 attention checks passed: 0.00, at least 0.75 is asked; median sec"),
        ({"t1": "A", "t3": "A", "t5": "A"}, None, None),
        ({"t1": "."}, None, None),
    ],
)
def test_each_part_of_the_rule_excludes(answers: dict[str, str], seconds: float | None, reason: str | None) -> None:
    rater = assess_raters(rate(KEY, answers, seconds), RULE).row(0, named=True)
    assert rater["excluded"] == (reason is not None)
    assert (rater["reason"] or "").startswith(reason or "")


def test_raters_do_not_depend_on_the_order_of_rows() -> None:
    ratings = rate(KEY, {"t1": "AAB", "t2": "BAB", "t3": "AAA", "t5": "ABA"}, seconds=4.0)
    shuffled = ratings.sample(fraction=1.0, shuffle=True, seed=3)
    assert assess_raters(shuffled, RULE).equals(assess_raters(ratings, RULE))
    assert assess_raters(ratings.clear(), RULE).equals(pl.DataFrame(schema=RATERS))


def test_the_rule_is_stated_in_words() -> None:
    assert describe_rule(RULE) == (
        "less than 75% of the attention checks passed or less than 50% of the repeats answered alike or a median time "
        "per task under 3 s where it was recorded"
    )
    assert "repeats" not in describe_rule(HumanValidationConfig())
