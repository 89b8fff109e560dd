"""What the store no longer needs: found by reachability and age, and removed.

An artifact stays while something names it: a root, or a computation that led to a root. Everything else goes once it
is older than a stated age, as does what killed processes left behind: half-written folders, uploads without a
manifest, leases and probes, checkpoints of steps that are finished.

The age is what makes this safe beside runs in progress, here and on other machines: an artifact is as old as its last
use, because every verified read touches it, and a lineage record as old as its computation.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from stat import S_ISREG

from capo_core.errors import StoreError
from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.leases import LEASE_SECONDS
from tasks.storage.lineage import Records, find_reachable
from tasks.storage.manifests import MANIFEST_NAME
from tasks.storage.remote_artifacts import list_folders

_ALONE = timedelta(days=1)
"""Whatever is collected younger than this is collected only while no step runs."""
_HERE = ("lineage", "corpora", "reports", "validation", "inbox")
"""Folders of the home in which files are written by way of temporary ones."""
_JOURNAL = "verdicts.jsonl"

_NOW = float("inf")
"""As the time before which things are collected: all of them, whatever the clock of the machine that wrote them."""

ORPHAN = "nothing names it"
UNFINISHED = "its writer never finished"
DAMAGED = "damaged, set aside"
FORGOTTEN = "what it computed goes too"
STALE = "left behind by a process"
COMPUTED = "its step is finished"


@dataclass(frozen=True)
class Garbage:
    """One thing to remove.

    Attributes:
        name: what it is, as a path below the home or the URL.
        reason: why nobody needs it.
        n_bytes: what it takes.
        path: file or folder of this machine, None for objects at the URL.
        objects: names at the URL, in the order in which they are to go.
    """

    name: str
    reason: str
    n_bytes: int
    path: Path | None = None
    objects: tuple[str, ...] = ()


def collect(
    store: ArtifactStore, roots: Iterable[ArtifactRef], *, older_than: timedelta, results: Path | None = None
) -> list[Garbage]:
    """Remove what the roots do not need and return what was removed.

    This is what `capo artifacts gc` does after it has looked for roots, and what erasing a person ends with: there the
    roots are what may stay, and `older_than` is zero, so that nothing else does. Lineage records and Prefect's results
    go with the artifacts they are about.

    Args:
        store: at the URL too, if artifacts are shared.
        roots: artifacts that stay, with all that led to them.
        older_than: what was written or used more recently stays in any case.
        results: folder in which Prefect keeps results, named by cache key.

    Raises:
        DamagedArtifactError: if a lineage record is damaged: what it kept would be taken for garbage.
        StoreError: if `older_than` is below a day while a step runs, here or on a machine that shares the artifacts.
    """
    found = find_garbage(store, roots, older_than=older_than, results=results)
    if older_than < _ALONE:
        check_nothing_runs(store)
    for garbage in found:
        _remove(store, garbage)
    return found


def find_garbage(
    store: ArtifactStore, roots: Iterable[ArtifactRef], *, older_than: timedelta, results: Path | None = None
) -> list[Garbage]:
    """Return what `collect` would remove; takes the same arguments.

    Raises:
        DamagedArtifactError: if a lineage record is damaged: what it kept would be taken for garbage.
    """
    before = time.time() - older_than.total_seconds() if older_than else _NOW
    records = store.computations.read_all(strict=True)
    times = _record_times(store, records)
    young = [ref for key, record in records.items() if times[key] >= before for ref in _outcome(record)]
    kept = find_reachable(records.values(), [*map(str, roots), *young])
    forgotten = {
        key for key, record in records.items() if times[key] < before and not kept.intersection(_outcome(record))
    }
    names = {_folder_name(ref) for ref in kept}
    return [
        *_find_artifacts(store, names, before),
        *_find_records(store, forgotten, results),
        *_find_leftovers(store, set(records) - forgotten, before),
        *_find_objects(store, names, forgotten, before),
    ]


def check_nothing_runs(store: ArtifactStore) -> None:
    """Raise unless no step runs, in this home or on a machine that shares the artifacts.

    Raises:
        StoreError: says where one runs.
    """
    held = [path for path in _files(store.home / "locks") if _is_locked(path)]
    if held:
        raise StoreError(f"{store.home}: a step is running; wait until it is done, or keep what is younger than a day")
    if store.remote is not None:
        now = time.time()
        for name, entry in store.remote.objects.entries("leases").items():
            if now - entry.modified < LEASE_SECONDS:
                raise StoreError(f"{store.remote.objects.place(name)}: another machine computes; wait until it is done")


# -- on this machine --------------------------------------------------------------------------------------------------


def _find_artifacts(store: ArtifactStore, kept: set[str], before: float) -> Iterator[Garbage]:
    """Yield artifacts that nothing names, and folders that never became one."""
    for folder in sorted(store.root.glob("*/*")):
        name = f"{folder.parent.name}/{folder.name}"
        if folder.name.startswith("."):
            if _last_change(folder) < before:
                yield _local(store, folder, UNFINISHED)
        elif name not in kept and folder.stat().st_mtime < before:
            yield _local(store, folder, ORPHAN)


def _find_records(store: ArtifactStore, forgotten: set[str], results: Path | None) -> Iterator[Garbage]:
    """Yield lineage records and results of computations of which nothing stays."""
    for key in sorted(forgotten):
        for path in (store.computations.path(key), *([results / key] if results else [])):
            if path.is_file():
                yield _local(store, path, FORGOTTEN)


def _find_leftovers(store: ArtifactStore, computed: set[str], before: float) -> Iterator[Garbage]:
    """Yield what killed processes left: temporary files, what was set aside, checkpoints nobody will resume.

    A journal of verdicts stays as long as it has any, unless everything goes: they were paid for, and a later run asks
    only the rest.
    """
    for name in _HERE:
        for path in sorted((store.home / name).rglob(".*.tmp")):
            if _last_change(path) < before:
                yield _local(store, path, UNFINISHED)
    for path in _files(store.home / "damaged"):
        if _last_change(path) < before:
            yield _local(store, path, DAMAGED)
    for folder in _files(store.home / "scratch"):
        if _last_change(folder) < before and (before == _NOW or not _is_journal(folder)):
            yield _local(store, folder, COMPUTED if folder.name in computed else STALE)


def _is_journal(folder: Path) -> bool:
    """Return whether a folder of scratch holds verdicts; the first line of a journal only names its judge."""
    journal = folder / _JOURNAL
    return journal.is_file() and journal.read_bytes().count(b"\n") > 1


def _local(store: ArtifactStore, path: Path, reason: str) -> Garbage:
    name = str(path.relative_to(store.home)) if path.is_relative_to(store.home) else str(path)
    return Garbage(name, reason, sum(about.st_size for about in _walk(path) if S_ISREG(about.st_mode)), path=path)


def _last_change(path: Path) -> float:
    """Return when a file, or anything in a folder, was last written; what vanishes meanwhile is in use now."""
    try:
        return max(about.st_mtime for about in _walk(path))
    except FileNotFoundError:
        return time.time()


def _walk(path: Path) -> list[os.stat_result]:
    return [file.stat() for file in (path, *(path.rglob("*") if path.is_dir() else ()))]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# -- at the URL -------------------------------------------------------------------------------------------------------


def _find_objects(store: ArtifactStore, kept: set[str], forgotten: set[str], before: float) -> Iterator[Garbage]:
    """Yield what the URL no longer needs; of an artifact the manifest goes first, so that no half of one is read."""
    if store.remote is None:
        return
    entries = store.remote.objects.entries()
    for name, files in list_folders(entries).items():
        if name not in kept and max(entries[file].modified for file in files) < before:
            manifest = f"{name}/{MANIFEST_NAME}"
            order = sorted(files, key=lambda file: file != manifest)
            reason = ORPHAN if manifest in files else UNFINISHED
            yield Garbage(name, reason, sum(entries[file].n_bytes for file in files), objects=tuple(order))
    for name, entry in entries.items():
        top, _, file = name.partition("/")
        reason = {"damaged": DAMAGED, "leases": STALE, "probes": STALE}.get(top)
        if file.rpartition("/")[2].startswith("."):
            reason = UNFINISHED
        if top == "lineage" and Path(file).stem in forgotten:
            reason = FORGOTTEN
        if reason is not None and (entry.modified < before or reason == FORGOTTEN):
            yield Garbage(name, reason, entry.n_bytes, objects=(name,))


# -- both -------------------------------------------------------------------------------------------------------------


def _record_times(store: ArtifactStore, records: Records) -> dict[str, float]:
    """Return when each computation was recorded; a copy of another machine's record says nothing about that."""
    times = {key: store.computations.path(key).stat().st_mtime for key in records}
    if store.remote is not None:
        for name, entry in store.remote.objects.entries("lineage").items():
            if Path(name).stem in times:
                times[Path(name).stem] = entry.modified
    return times


def _outcome(record: dict) -> list[str]:
    return [*record["writes"], *record["returns"]]


def _folder_name(ref: str) -> str:
    return ref.partition("?")[0].removeprefix("capo:")


def _remove(store: ArtifactStore, garbage: Garbage) -> None:
    for name in garbage.objects if store.remote is not None else ():
        store.remote.objects.delete(name)
    path = garbage.path
    if path is None:
        return
    if path.is_dir():
        # Renamed first, so that whoever is killed here leaves no half of an artifact under its name.
        aside = path.with_name(f".tmp-{uuid.uuid4().hex}")
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


# -- what has to go ---------------------------------------------------------------------------------------------------


def forget(store: ArtifactStore, refs: Iterable[str], keys: Iterable[str], *, results: Path) -> list[Garbage]:
    """Remove artifacts and the records of computations, whatever else needs them, and return what was removed.

    For erasing a person. What was set aside as damaged, half written or kept to resume from goes too, because nobody
    can tell what is in it.

    Args:
        store: at the URL too, if artifacts are shared.
        refs: artifacts, as text.
        keys: cache keys of computations that read or wrote them.
        results: folder in which Prefect keeps results, named by cache key.

    Raises:
        StoreError: if a step runs, here or on a machine that shares the artifacts.
    """
    check_nothing_runs(store)
    names = sorted(_folder_name(ref) for ref in refs)
    found = [_local(store, folder, FORGOTTEN) for name in names if (folder := store.root / name).is_dir()]
    found += _find_leftovers(store, set(), _NOW)
    found += [_local(store, folder, UNFINISHED) for folder in sorted(store.root.glob("*/.*"))]
    objects = {} if store.remote is None else store.remote.objects.entries()
    for name, files in list_folders(objects).items():
        if name in names:
            order = sorted(files, key=lambda file: file != f"{name}/{MANIFEST_NAME}")
            found.append(Garbage(name, FORGOTTEN, sum(objects[file].n_bytes for file in files), objects=tuple(order)))
    found += [
        Garbage(name, DAMAGED, entry.n_bytes, objects=(name,))
        for name, entry in objects.items()
        if name.startswith("damaged/")
    ]
    # The records last: while they are there, who was killed half-way can find the rest again.
    keys = set(keys)
    found += _find_records(store, keys, results)
    found += [
        Garbage(name, FORGOTTEN, entry.n_bytes, objects=(name,))
        for name, entry in objects.items()
        if name.startswith("lineage/") and Path(name).stem in keys
    ]
    for garbage in found:
        _remove(store, garbage)
    return found
