"""How often the long suites repeat: in full under `make torture`, a tenth of it otherwise."""

from __future__ import annotations

import os


def n_rounds(full: int) -> int:
    """The rounds to play: `full` where the environment says CAPO_TORTURE=1, a tenth of it (at least one) otherwise."""
    return full if os.environ.get("CAPO_TORTURE") == "1" else max(1, full // 10)
