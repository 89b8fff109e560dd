"""Files read as `reading_worker` reads them: each within its time and memory, whatever is in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
MEGABYTES, SECONDS = 1024, 10


def read_within_limits(target: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what became of each file, in order: `outcome` (read, refused, broke, or ended with a signal's name)."""
    told: list[dict[str, Any]] = []
    while len(told) < len(paths):
        told += _read_until_the_end(target, paths[len(told) :])
    return told


def _read_until_the_end(target: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what became of the files up to the one that ended the process."""
    places = [str(ROOT), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "reading_worker.py"), target, str(MEGABYTES), str(SECONDS)],
        input="".join(f"{path}\n" for path in paths),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "POLARS_MAX_THREADS": "2"},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    ready, *lines = done.stdout.splitlines() or [""]
    if ready != "ready":
        raise RuntimeError(f"the reader did not start: {done.stderr}")
    told = [json.loads(line) for line in lines]
    if len(told) < len(paths):
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit {done.returncode}"
        told.append({"path": str(paths[len(told)]), "outcome": how, "says": done.stderr[-500:]})
    return told
