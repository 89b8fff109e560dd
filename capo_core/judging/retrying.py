"""When to ask again: growing random pauses, a server's own wishes, and a deadline over all of it.

The endpoint's client library can repeat calls itself, but neither on an unreadable body nor within a deadline, and
its attempts cannot be counted or observed; so it makes single calls here and the repetition is ours.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime


class Deadline:
    """A stretch of time that begins now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    @property
    def remaining(self) -> float:
        """Seconds left, 0 once it is over."""
        return max(self.seconds - self.elapsed, 0.0)


def draw_pauses(backoff_seconds: float, seed: str) -> Iterator[float]:
    """Yield pauses in seconds: the i-th uniform between half and all of `backoff_seconds` · 2^i, at most 16 times it.

    Args:
        backoff_seconds: longest first pause.
        seed: sequences of different seeds differ, so that questions refused together do not return together.
    """
    rng = random.Random(seed)
    factor = 1
    while True:
        yield backoff_seconds * factor * rng.uniform(0.5, 1.0)
        factor = min(2 * factor, 16)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to wait, given as a number or a date; None where it asks for nothing readable.

    Source: RFC 9110, section 10.2.3.
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


def explain_lost_wait(wait_seconds: float | None, deadline: Deadline) -> str:
    """Return why no further attempt is made: the pause before it would end past the deadline."""
    if wait_seconds is not None and wait_seconds >= deadline.remaining:
        return f"the server asks to wait {wait_seconds:.3g} s, past the deadline of {deadline.seconds:g} s"
    return f"the deadline of {deadline.seconds:g} s leaves no time for another attempt"
