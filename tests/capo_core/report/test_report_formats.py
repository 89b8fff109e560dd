"""Numbers in the report: what is rounded, what is kept, what is said where there is none."""

from __future__ import annotations

import pytest

from capo_core.report.formats import (
    NO_BREAK,
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_percent,
    format_value,
    join_and,
    plural,
)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_absent_value_says_not_measured(value: float | None) -> None:
    assert format_value(value) == "not measured"
    assert format_value(value, share=True) == "not measured"


@pytest.mark.parametrize(
    ("value", "share", "text"),
    [
        (0.714, True, ".71"),
        (0.714, False, "0.71"),
        (0.0, True, ".00"),
        (1.0, True, "1.00"),
        (-0.05, True, "−.05"),
        (1.352, False, "1.35"),
        (-2.0, False, "−2.00"),
        (12345.6, False, "12,346"),
        # .997 would round to 1.00 and .004 to .00: a third decimal keeps them apart from certainty and nothing.
        (0.997, True, ".997"),
        (0.004, True, ".004"),
        (-0.004, True, "−.004"),
        (0.9999, True, ">.999"),
        (0.0001, True, "<.001"),
        # −.0001 lies between −.001 and 0.
        (-0.0001, True, ">−.001"),
        (-0.0, True, ".00"),
    ],
)
def test_value_is_written_in_two_decimals_and_never_rounded_to_a_bound(value: float, share: bool, text: str) -> None:
    assert format_value(value, share=share) == text


def test_interval_is_empty_unless_both_ends_are_known() -> None:
    assert format_interval(0.6, 0.8, share=True) == "[.60,\u00a0.80]"
    assert format_interval(None, 0.8) == ""
    assert format_interval(0.6, float("nan")) == ""


def test_estimate_without_interval_says_so() -> None:
    assert format_estimate(0.71, None, None, share=True) == ".71 (no interval)"
    assert format_estimate(None, 0.1, 0.2, share=True) == "not measured"


def test_difference_carries_its_sign() -> None:
    assert format_difference(0.16, share=True) == "+.16"
    assert format_difference(-0.16, share=True) == "−.16"
    assert format_difference(0.0, share=True) == ".00"
    assert format_difference(None) == "not measured"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0121, "p = .012"), (0.0004, "p < .001"), (1.0, "p = 1"), (0.0, "p < .001"), (None, ""), (float("nan"), "")],
)
def test_p_value_is_never_written_as_zero(p: float | None, text: str) -> None:
    assert format_p(p).replace(NO_BREAK, " ") == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 3, "33%"), (0, 3, "0%"), (1, 300, "<1%"), (299, 300, ">99%"), (3, 3, "100%"), (0, 0, "not measured")],
)
def test_percent_is_none_or_all_only_when_it_is(part: int, whole: int, text: str) -> None:
    assert format_percent(part, whole) == text


def test_counts_agree_with_their_nouns() -> None:
    assert plural(1, "seed") == "1 seed"
    assert plural(1600, "annotation") == "1,600 annotations"
    assert join_and(["a", "b", "c"]) == "a, b and c"
    assert join_and(["a"]) == "a"
    assert join_and([]) == ""
