"""What a machine that shares artifacts does, as functions for processes of its own; each has a home of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from schemas.artifacts import ArtifactRef
from schemas.frames import RETENTION
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home
from tasks.storage.object_folder import ObjectFolder

N_WEIGHTS = 8


def write_numbered(store: ArtifactStore, number: int) -> ArtifactRef:
    """Store the artifact with this number: a table and eight files of 200 kB, always the same."""
    random = np.random.default_rng(number)

    def fill(folder: Path) -> None:
        for part in range(N_WEIGHTS):
            (folder / f"weights-{part}.bin").write_bytes(random.bytes(200_000))

    table = pl.DataFrame(
        [("sft", "ben", number, "neutral_perplexity", 9.0, 0.5, None, None, None, 60)], schema=RETENTION, orient="row"
    )
    return store.write("retention", {"data.parquet": table}, fill=fill, metadata={"number": number})


def write_when_told(settings: dict[str, str], numbers: list[int], told: Connection | Barrier) -> None:
    """Store numbered artifacts, each after saying that it is ready."""
    os.environ |= settings
    store = ArtifactStore()
    for number in numbers:
        if isinstance(told, Barrier):
            told.wait(60)
        else:
            told.send(number)
        write_numbered(store, number)


def write_and_die(settings: dict[str, str], number: int, n_objects: int) -> None:
    """Store the numbered artifact in a process that is killed when so many objects of it are shared."""
    os.environ |= settings
    n_left = n_objects

    def dying(put: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            nonlocal n_left
            if n_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            n_left -= 1
            return put(*arguments)

        return wrapper

    ObjectFolder.upload = dying(ObjectFolder.upload)
    ObjectFolder.create = dying(ObjectFolder.create)
    write_numbered(ArtifactStore(), number)


@step("probe-slow", version=1)
def compute_slowly(step: Step, subject: str, seconds: float, marks: str) -> ArtifactRef:
    """Take some seconds, and leave one mark each time; the outcome is another each time."""
    mark = Path(marks) / f"{subject}-{os.getpid()}-{time.monotonic_ns()}"
    mark.touch()
    time.sleep(seconds)
    return step.write("retention", {"data.parquet": pl.DataFrame(schema=RETENTION)}, metadata={"mark": mark.name})


def compute_when_told(settings: dict[str, str], subject: str, seconds: float, marks: Path, barrier: Barrier) -> None:
    """Compute the slow step at the same time as others, and leave its result in the home."""
    os.environ |= settings
    barrier.wait(60)
    ref = compute_slowly.fn(subject, seconds, str(marks))
    (capo_home() / f"result-{subject}").write_text(str(ref), encoding="utf-8")
