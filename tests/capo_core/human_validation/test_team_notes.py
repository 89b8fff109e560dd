from __future__ import annotations

import pytest
from validation_material import SMALL, make_set

from capo_core.human_validation.power import detectable_difference
from capo_core.human_validation.sheet import read_consent
from capo_core.human_validation.team_notes import describe_power, plan_power, write_team_notes


def test_the_plan_counts_the_groups_two_methods_share() -> None:
    config = SMALL.model_copy(update={"methods": ("sft", "capo"), "n_tasks": 24, "n_raters": 6})
    _, key = make_set(config)
    plan = plan_power(key, config)
    # 9 test items make 4 groups of 2 for each of 3 annotators.
    assert (plan.n_tasks, plan.n_raters) == (12, 6)
    assert plan.detectable_difference == pytest.approx(detectable_difference(12, 6), abs=1e-4)
    assert plan.required_tasks[0.3] is not None
    found = plan.to_metadata()
    assert found["required_tasks"] == {f"{d:g}": n for d, n in plan.required_tasks.items()}
    assert found["assumed_variance"] == pytest.approx({"item": 0.1, "rater": 0.01, "residual": 0.39})


def test_a_set_of_one_method_compares_nothing() -> None:
    config = SMALL.model_copy(update={"methods": ("sft",)})
    _, key = make_set(config)
    plan = plan_power(key, config)
    assert (plan.n_tasks, plan.detectable_difference) == (0, None)


def test_the_power_is_said_in_a_sentence() -> None:
    assert describe_power(16, 3, 0.273) == (
        "**16 groups per method and 3 raters detect a difference of 0.27 in the share of right attributions with 80% "
        "power.**"
    )
    assert "1 rater are too few" in describe_power(2, 1, None)


def test_the_notes_say_what_was_made_and_what_is_missing() -> None:
    tasks, key = make_set()
    notes = write_team_notes(tasks, key, SMALL, read_consent(None))
    assert "17 tasks: 12 to rate (human 6, sft 6; 12 were asked for), 3 attention checks, 2 repeats." in notes
    assert "The consent text has 5 places to fill in" in notes
    assert describe_power(6, 2, plan_power(key, SMALL).detectable_difference) in notes
    assert "less than 75% of the attention checks passed" in notes
    assert "$" not in notes
    assert "The consent text is the team's own." in write_team_notes(tasks, key, SMALL, "We ask you.")
