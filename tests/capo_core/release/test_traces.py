"""What explanations give away in so many words."""

from __future__ import annotations

from capo_core.release.traces import NAMINGS, count_traces


def test_each_kind_of_trace_is_counted_by_explanations() -> None:
    texts = [
        "Write to jo.doe@example.org or jo@example.org.",  # one explanation with addresses, and no @name
        "See https://example.org, www.example.org.",
        "As @jo says, 5 @ 3.",
        "Call 0123 456 789.",
        "In 1999 to 2003 it was 12 345.",  # no seven digits in a row: 1999 and 2003 stand apart
        "Ann1 would say so; ann1 not.",
        "Ann12 is somebody else.",
    ]
    counts = count_traces(texts, ["Ann1", "7"])
    assert list(counts.values()) == [1, 1, 1, 1, 1]
    assert counts[NAMINGS] == 1


def test_ids_that_are_numbers_are_not_looked_for() -> None:
    assert NAMINGS not in count_traces(["1 of 2"], ["1", "2"])
