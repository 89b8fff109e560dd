from __future__ import annotations

import numpy as np
import pytest

from capo_core.human_validation.crossed_test import compare_crossed
from capo_core.human_validation.power import (
    PLANNED,
    DifferenceVariance,
    detectable_difference,
    plan_variance,
    power_of_test,
    required_tasks,
)


def test_with_one_rater_it_is_the_power_of_the_paired_t_test() -> None:
    # Standardised difference .5, 34 pairs, two-sided 5%: power .808, and 34 is the fewest for .80
    # (Cohen 1988, table 2.3; G*Power 3.1).
    unit = DifferenceVariance(item=0.4, rater=0.3, residual=0.6)
    assert power_of_test(0.5, 34, 1, unit) == pytest.approx(0.808, abs=0.001)
    assert required_tasks(0.5, 1, unit) == 34
    assert detectable_difference(34, 1, unit, power=0.8078) == pytest.approx(0.5, abs=1e-3)


def test_a_difference_of_nothing_is_found_as_often_as_the_level_says() -> None:
    assert power_of_test(0.0, 20, 4) == pytest.approx(0.05)


@pytest.mark.parametrize(("n_tasks", "n_raters", "difference"), [(20, 4, 0.25), (48, 3, 0.15)])
def test_the_formula_agrees_with_simulation(n_tasks: int, n_raters: int, difference: float) -> None:
    rng = np.random.default_rng(n_tasks)
    n = 2000
    differences = (
        difference
        + rng.normal(0, np.sqrt(PLANNED.item), (n, 1, n_tasks))
        + rng.normal(0, np.sqrt(PLANNED.rater), (n, n_raters, 1))
        + rng.normal(0, np.sqrt(PLANNED.residual), (n, n_raters, n_tasks))
    )
    simulated = (compare_crossed(differences).p_value < 0.05).mean()
    # The test estimates what the plan knows; the simulation's own standard error is .01.
    assert simulated == pytest.approx(power_of_test(difference, n_tasks, n_raters), abs=0.05)


def test_more_tasks_and_more_raters_find_smaller_differences() -> None:
    found = [detectable_difference(n, m) for n, m in ((16, 3), (48, 3), (48, 6))]
    assert None not in found
    assert found[0] > found[1] > found[2]  # type: ignore[operator]


def test_required_tasks_and_detectable_difference_are_each_others_inverse() -> None:
    needed = required_tasks(0.2, 5)
    assert needed is not None
    enough, too_few = detectable_difference(needed, 5), detectable_difference(needed - 1, 5)
    assert enough is not None
    assert too_few is not None
    assert enough <= 0.2 < too_few


def test_tasks_do_not_make_up_for_raters() -> None:
    # With two raters of whom each has a difference of his own, the error stays at sqrt(.01 / 2) = .07 or more with one
    # degree of freedom (t .975 = 12.7): no number of tasks finds .1.
    assert required_tasks(0.1, 2) is None
    assert detectable_difference(2, 2) is None


def test_planned_variance_is_that_of_two_independent_answers() -> None:
    # 2 * .5 * .5 = .5; a fifth between items, a fiftieth between raters.
    assert (PLANNED.item, PLANNED.rater, PLANNED.residual) == pytest.approx((0.1, 0.01, 0.39))
    # 2 * .8 * .2 = .32
    assert sum(vars(plan_variance(rate=0.8)).values()) == pytest.approx(0.32)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="rate 1 is not between 0 and 1"):
        plan_variance(rate=1)
    with pytest.raises(ValueError, match=r"shares 0\.8 and 0\.3"):
        plan_variance(item_share=0.8, rater_share=0.3)
    with pytest.raises(ValueError, match="1 tasks and 3 raters"):
        power_of_test(0.1, 1, 3)
    with pytest.raises(ValueError, match="a difference of 0"):
        required_tasks(0.0, 3)
