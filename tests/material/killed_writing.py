"""A process that stores numbered artifacts with their lineage and is killed before or amid one of its operations."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sharing_machine import write_numbered

from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore

_OPERATIONS = (
    (os, "fsync"), (os, "utime"), (os, "link"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"),
    (Path, "write_bytes"), (Path, "write_text"), (shutil, "rmtree"),
)  # fmt: skip


def write_and_record(home: Path, number: int) -> ArtifactRef:
    """Store the numbered artifact and the record of its computation."""
    store = ArtifactStore(home)
    ref = write_numbered(store, number)
    refs = {"reads": [], "writes": [str(ref)], "returns": [str(ref)]}
    about = {"step": "probe", "version": 1, "key": f"key-{number}", "config": {}, "seconds": 1.0}
    store.record_lineage(f"key-{number}", {**about, **refs})
    return ref


def write_when_ready(home: Path, number: int, ready: Connection) -> None:
    """Do the same after saying that it begins."""
    ready.send(number)
    write_and_record(home, number)


def write_and_be_killed(home: Path, number: int, n_operations: int) -> None:
    """Do the same in a process that is killed at its operation of this number; a write is cut off halfway."""

    def die(count: int, name: str, arguments: tuple[Any, ...]) -> None:
        if count == n_operations:
            if name.startswith("write_"):
                path, content = arguments
                with path.open("wb") as file:
                    file.write((content if isinstance(content, bytes) else content.encode())[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    with _watching(die):
        write_and_record(home, number)


def count_operations(home: Path, number: int) -> int:
    """Return how many operations storing the numbered artifact takes."""
    counts = [0]
    with _watching(lambda count, name, arguments: counts.append(count)):
        write_and_record(home, number)
    return max(counts) + 1


@contextmanager
def _watching(before: Callable[[int, str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Call a function before every operation that changes what is on the disk, with its number and arguments."""
    n_done = 0

    def watch(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal n_done
            before(n_done, name, arguments)
            n_done += 1
            return operation(*arguments, **options)

        return wrapper

    patches = [patch.object(place, name, watch(name, getattr(place, name))) for place, name in _OPERATIONS]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
