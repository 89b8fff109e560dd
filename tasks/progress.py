"""How far a run is: which step of how many, how far within it, how long left."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_LOG_EVERY_SECONDS = 10.0
_PRIOR_SECONDS = 30.0
"""Weight of the typical costs against this run's own pace, so that a few short steps do not decide it."""


def format_seconds(seconds: float) -> str:
    """Return a duration as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StepProgress:
    """A `capo_core.progress.Progress` that logs at most every ten seconds, with the time left at the rate so far."""

    def __init__(self, label: str, logger: logging.Logger | logging.LoggerAdapter) -> None:
        self._label = label
        self._logger = logger
        self._started = time.monotonic()
        self._logged = self._started

    def __call__(self, n_done: int, n_total: int) -> None:
        now = time.monotonic()
        if n_done <= 0 or n_total <= 0 or now - self._logged < _LOG_EVERY_SECONDS:
            return
        self._logged = now
        left = (now - self._started) / n_done * (n_total - n_done)
        self._logger.info(
            "%s: %d of %d (%d%%), about %s left in this step",
            self._label, n_done, n_total, round(100 * n_done / n_total), format_seconds(left),
        )  # fmt: skip


@dataclass
class RunProgress:
    """The steps one flow run has planned, begun and computed.

    The time left is the typical cost of the planned steps, scaled by how the steps computed so far compared with
    theirs.
    """

    planned: Counter[str] = field(default_factory=Counter)
    typical_seconds: dict[str, float] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)
    seconds_spent: float = 0.0
    seconds_expected: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, counts: Mapping[str, int], typical_seconds: Mapping[str, float]) -> None:
        """Declare how often each step will run and what one run of it typically costs."""
        with self._lock:
            self.planned.update(counts)
            self.typical_seconds |= typical_seconds

    def begin(self, step: str) -> None:
        """Count a step as begun, whether it will be computed or taken from the cache."""
        with self._lock:
            self.begun[step] += 1

    def record(self, step: str, seconds: float) -> None:
        """Take note of how long a computed step took."""
        with self._lock:
            if step in self.typical_seconds:
                self.seconds_spent += seconds
                self.seconds_expected += self.typical_seconds[step]

    def describe(self, step: str) -> str:
        """Return `step 7 of 41, about 3:10 left` for a step just begun, with what is known.

        A process that computes steps of another's run has no plan and counts only its own, so it gives no number.
        """
        with self._lock:
            n_begun, n_planned = self.begun.total(), self.planned.total()
            if n_planned == 0:
                return "begun"
            if n_planned < n_begun or step not in self.typical_seconds:
                return f"step {n_begun}"
            pace = (self.seconds_spent + _PRIOR_SECONDS) / (self.seconds_expected + _PRIOR_SECONDS)
            remaining = self.planned - self.begun
            remaining[step] += 1
            left = pace * sum(count * self.typical_seconds.get(name, 0.0) for name, count in remaining.items())
            return f"step {n_begun} of {n_planned}, about {format_seconds(left)} left"


_RUNS: dict[str, RunProgress] = {}


def run_progress(flow_run_id: str) -> RunProgress:
    """Return the progress of a flow run in this process."""
    return _RUNS.setdefault(flow_run_id, RunProgress())
