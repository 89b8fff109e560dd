"""How often a test of survival does to capo what it does: as often as is promised, or a tenth of that."""

from __future__ import annotations

import os

VARIABLE = "CAPO_TORTURE"


def is_torture() -> bool:
    """Return whether CAPO_TORTURE is 1, as `make torture` sets it."""
    return os.environ.get(VARIABLE) == "1"


def n_rounds(full: int) -> int:
    """Return `full` under torture, else a tenth, at least one."""
    return full if is_torture() else max(1, full // 10)
