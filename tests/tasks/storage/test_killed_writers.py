"""A writer that is killed, or whose disk is full, leaves every artifact whole or absent; the rest is garbage."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path

import polars as pl
import pytest
from forks import processes
from killed_writing import count_operations, write_and_be_killed, write_and_record, write_when_ready
from rounds import n_rounds

from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.garbage import collect, find_garbage

__all__ = ["processes"]

pytestmark = pytest.mark.torture
N_KILLS_AT_RANDOM, N_KILLS_CHOSEN, N_FULL_DISKS = n_rounds(200), n_rounds(100), n_rounds(100)
MONTH = timedelta(days=30)


def _assert_whole(store: ArtifactStore, earlier: list[ArtifactRef]) -> None:
    """Assert that all under a final name is whole, nothing that was there is lost, and records name what is there."""
    found = [store.find(kind, sha256) for kind, sha256 in store.folders()]
    for ref in found:
        store.verify(ref)
    assert set(earlier) <= set(found)
    for record in store.computations.read_all(strict=True).values():
        assert {ArtifactRef.parse(text) for text in record["writes"]} <= set(found)


def _assert_garbage_goes(store: ArtifactStore, refs: list[ArtifactRef]) -> None:
    """Assert that collecting leaves the roots, whole, and no trace of anything else."""
    roots = refs[::2]
    then = time.time() - 40 * 86_400
    for path in store.home.rglob("*"):
        os.utime(path, (then, then))
    collect(store, roots, older_than=MONTH)
    assert find_garbage(store, roots, older_than=timedelta(0)) == []
    assert set(store.folders()) == {(ref.kind, ref.sha256) for ref in roots}
    left = {path.relative_to(store.home) for path in store.home.rglob("*") if path.is_file()}
    records = {record["key"] for record in store.lineage() if ArtifactRef.parse(record["writes"][0]) in roots}
    assert left == {
        *(file.relative_to(store.home) for ref in roots for file in store.path(ref).iterdir()),
        *(Path("lineage") / f"{key}.json" for key in records),
    }
    assert len(records) == len(roots)
    for ref in roots:
        store.verify(ref)


def test_a_writer_killed_at_any_moment_leaves_no_half_artifact(tmp_path: Path, processes: ForkServerContext) -> None:
    moments, seconds, n_killed = random.Random(13), [], 0
    store, refs = ArtifactStore(tmp_path), []
    while n_killed < N_KILLS_AT_RANDOM:
        number = len(refs)
        begun, begins = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_when_ready, args=(tmp_path, number, begins))
        writer.start()
        begins.close()
        assert begun.recv() == number
        if number >= 3:
            writer.join(moments.uniform(0, min(seconds)))
            writer.kill()
        writer.join()
        n_killed += writer.exitcode == -signal.SIGKILL
        _assert_whole(store, refs[-5:])
        started = time.monotonic()
        refs.append(write_and_record(tmp_path, number + 1_000_000 if number < 3 else number))
        seconds.append(time.monotonic() - started)  # how long it takes undisturbed, at first
    _assert_whole(store, refs)
    _assert_garbage_goes(store, refs)
    print(f"{n_killed} of {len(refs)} writers killed")


@pytest.mark.parametrize("before", ["nothing", "a whole one", "a damaged one"])
def test_a_writer_killed_at_every_operation_leaves_no_half_artifact(
    tmp_path: Path, processes: ForkServerContext, before: str
) -> None:
    def prepare(number: int) -> None:
        if before != "nothing":
            ref = write_and_record(tmp_path, number)
            if before == "a damaged one":
                (store.path(ref) / "weights-3.bin").write_bytes(b"x")

    store, refs = ArtifactStore(tmp_path), []
    write_and_record(tmp_path, 1000)  # makes the folders
    prepare(1001)
    n_operations = count_operations(tmp_path, 1001)
    n_kills = min(n_operations, -(-N_KILLS_CHOSEN // 3))
    for number, operation in enumerate(range(0, n_operations, n_operations // n_kills)):
        prepare(number)
        writer = processes.Process(target=write_and_be_killed, args=(tmp_path, number, operation))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        if before != "a damaged one":  # which is damaged until it is written again
            _assert_whole(store, refs[-5:])
        refs.append(write_and_record(tmp_path, number))
        store.verify(refs[-1])
    _assert_whole(store, refs)
    _assert_garbage_goes(store, refs)


@contextmanager
def _files_limited_to(n_bytes: int) -> Iterator[None]:
    """Have every write beyond so many bytes of a file fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_fails_the_write_and_leaves_no_half_artifact(tmp_path: Path) -> None:
    store, refs, n_failed = ArtifactStore(tmp_path), [], 0
    sizes = random.Random(13)
    for number in range(N_FULL_DISKS):
        # Files are up to 200 kB; the table, the manifest and the record have one to four.
        limit = sizes.choice([sizes.randrange(5_000), sizes.randrange(199_000)])
        with _files_limited_to(limit):
            try:
                write_and_record(tmp_path, number)
            except (OSError, pl.exceptions.PolarsError):
                n_failed += 1
        _assert_whole(store, refs[-5:])
        refs.append(write_and_record(tmp_path, number))
    assert n_failed == N_FULL_DISKS
    _assert_whole(store, refs)
    _assert_garbage_goes(store, refs)
