"""How often a test of survival does to capo what it does: as often as is promised, or a tenth of that."""

from __future__ import annotations

import os

VARIABLE = "CAPO_TORTURE"


def n_rounds(full: int) -> int:
    """Return `full` where CAPO_TORTURE is 1, as `make torture` sets it, else a tenth, at least one."""
    return full if os.environ.get(VARIABLE) == "1" else max(1, full // 10)
