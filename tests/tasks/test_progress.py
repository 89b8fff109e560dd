"""What a run says of how far it is."""

from __future__ import annotations

from tasks.progress import RunProgress, format_seconds


def planned() -> RunProgress:
    progress = RunProgress()
    progress.plan({"train-sft": 2, "generate": 1}, {"train-sft": 100.0, "generate": 30.0})
    return progress


def test_a_step_is_counted_among_those_planned_with_the_time_that_all_left_cost() -> None:
    progress = planned()
    progress.begin("train-sft")
    assert progress.describe("train-sft") == "step 1 of 3, about 3:50 left"
    progress.record("train-sft", 100.0)
    progress.begin("train-sft")
    assert progress.describe("train-sft") == "step 2 of 3, about 2:10 left"


def test_the_time_left_follows_the_runs_own_pace() -> None:
    progress = planned()
    progress.begin("train-sft")
    progress.record("train-sft", 230.0)
    progress.begin("train-sft")
    # (230 + 30) / (100 + 30) = twice as slow as usual: 2 × (100 + 30) seconds
    assert progress.describe("train-sft") == "step 2 of 3, about 4:20 left"


def test_more_steps_than_planned_are_counted_without_a_total() -> None:
    progress = planned()
    for _ in range(4):
        progress.begin("generate")
    assert progress.describe("generate") == "step 4"


def test_a_process_without_the_plan_gives_no_number() -> None:
    progress = RunProgress()
    progress.begin("train-sft")
    assert progress.describe("train-sft") == "begun"


def test_durations_are_minutes_and_seconds() -> None:
    assert [format_seconds(s) for s in (0.4, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]
