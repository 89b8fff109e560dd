"""Reads files in a process of its own, under the limits that any one file must keep to; a line of JSON for each.

    python reading_worker.py TARGET MEGABYTES SECONDS < paths, one a line

A file that breaks a limit ends the process, so the line before it is the last; the parent then knows which one it was.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from evaluation_material import NLI

from capo_core.corpora import read_batch, read_corpus
from capo_core.corpora.lewidi import read_annotators
from capo_core.corpora.tabular import read_items
from capo_core.errors import CapoError
from capo_core.human_validation.ratings import read_ratings


def _count(counts: dict[str, int], *tables: pl.DataFrame) -> dict[str, Any]:
    for table in tables:
        table.write_parquet(io.BytesIO())  # what was taken in can be stored
    return {
        name: counts[name] for name in ("rows_in", "rows_accepted", "rows_quarantined", "withdrawals") if name in counts
    }


def _corpus(form: str) -> Callable[[Path], dict[str, Any]]:
    def read(path: Path) -> dict[str, Any]:
        result = read_corpus([path], form, NLI)  # type: ignore[arg-type]
        reasons = dict(result.quarantine["reason"].value_counts().iter_rows())
        return _count(result.counts, result.annotations, result.quarantine) | {"reasons": reasons}

    return read


def _batch(path: Path) -> dict[str, Any]:
    result = read_batch(path, "table", NLI)
    return _count(result.counts, result.annotations, result.withdrawals, result.quarantine)


def _ratings() -> Callable[[Path], dict[str, Any]]:
    from validation_material import make_set

    tasks, key = make_set()
    return lambda path: {"n": read_ratings(path, key, tasks).height}


TARGETS: dict[str, Callable[[], Callable[[Path], dict[str, Any]]]] = {
    "varierr": lambda: _corpus("varierr"),
    "lewidi": lambda: _corpus("lewidi"),
    "table": lambda: _corpus("table"),
    "batch": lambda: _batch,
    "items": lambda: lambda path: {"n": read_items(path).height},
    "meta": lambda: lambda path: {"n": len(read_annotators(path)[0])},
    "ratings": _ratings,
}


def main(target: str, megabytes: int, seconds: int) -> None:
    """Read every path on standard input."""
    read = TARGETS[target]()
    # Pools and modules that any read needs are no file's doing.
    pl.DataFrame({"a": ["x"]}).write_parquet(warm := io.BytesIO())
    pl.read_parquet(io.BytesIO(warm.getvalue()))
    print("ready", flush=True)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its default action ends the process
        try:
            told: dict[str, Any] = {"outcome": "read", **read(path)}
        except CapoError as error:
            told = {"outcome": "refused", "says": str(error)}
        except BaseException as error:
            told = {"outcome": "broke", "says": f"{type(error).__name__}: {error}"[:500]}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"path": str(path), **told}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
