"""How long-running functions say how far they are."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the number of units done and the number in all; units are the function's own (items, steps)."""

    def __call__(self, n_done: int, n_total: int) -> None: ...


def silent(n_done: int, n_total: int) -> None:
    """Report to nobody."""
