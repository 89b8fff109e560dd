"""Garbage: what nothing names and is old goes, whatever is reachable or young stays."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sharing_machine import write_numbered

from capo_core.errors import StoreError
from schemas.artifacts import ArtifactRef
from tasks.caching import FlockLockManager
from tasks.storage import garbage
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.garbage import Garbage, collect, find_garbage
from tasks.storage.object_folder import reach

MONTH = timedelta(days=30)


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    return ArtifactStore()


def _record(store: ArtifactStore, key: str, reads: list[ArtifactRef], writes: list[ArtifactRef]) -> None:
    read, written = [str(ref) for ref in reads], [str(ref) for ref in writes]
    record = {"step": "probe", "version": 1, "key": key, "config": {}, "reads": read, "writes": written}
    store.record_lineage(key, {**record, "returns": written, "seconds": 1.0})


def _age(place: Path, days: float = 40) -> None:
    """Make everything under a folder look as if it was last written so many days ago."""
    then = time.time() - days * 86_400
    for path in [*place.rglob("*"), place]:
        os.utime(path, (then, then))


def _names(found: list[Garbage]) -> set[tuple[str, str]]:
    return {(one.name, one.reason) for one in found}


def test_what_led_to_a_root_stays_and_what_nothing_names_goes_with_its_records(
    store: ArtifactStore, tmp_path: Path
) -> None:
    source, derived, root, orphan, other = (write_numbered(store, number) for number in range(5))
    _record(store, "a", [], [source])
    _record(store, "b", [source], [derived])
    _record(store, "c", [derived], [root])
    _record(store, "d", [source], [orphan])
    results = tmp_path / "results"
    results.mkdir()
    for key in "cd":
        (results / key).write_text("{}")
    _age(store.home)
    found = collect(store, [root], older_than=MONTH, results=results)
    assert _names(found) == {
        (f"artifacts/retention/{orphan.sha256}", garbage.ORPHAN),
        (f"artifacts/retention/{other.sha256}", garbage.ORPHAN),
        ("lineage/d.json", garbage.FORGOTTEN),
        (str(results / "d"), garbage.FORGOTTEN),
    }
    assert sum(one.n_bytes for one in found) > 2 * 8 * 200_000
    assert set(store.folders()) == {(ref.kind, ref.sha256) for ref in (source, derived, root)}
    assert [record["key"] for record in store.lineage()] == ["a", "b", "c"]
    assert [path.name for path in results.iterdir()] == ["c"]
    for ref in (source, derived, root):
        store.verify(ref)
    assert find_garbage(store, [root], older_than=MONTH, results=results) == []


def test_looking_removes_nothing(store: ArtifactStore) -> None:
    ref = write_numbered(store, 1)
    _age(store.home)
    assert len(find_garbage(store, [], older_than=MONTH)) == 1
    store.verify(ref)


@pytest.mark.parametrize("use", ["verify", "write"])
def test_what_is_used_is_young_again(store: ArtifactStore, use: str) -> None:
    ref = write_numbered(store, 1)
    _age(store.home)
    if use == "verify":
        store.verify(ref)
    else:
        write_numbered(store, 1)
    assert find_garbage(store, [], older_than=MONTH) == []


def test_what_was_computed_lately_stays_with_all_it_was_made_from(store: ArtifactStore) -> None:
    source, derived = write_numbered(store, 1), write_numbered(store, 2)
    _record(store, "a", [], [source])
    _age(store.home)
    _record(store, "b", [source], [derived])
    assert find_garbage(store, [], older_than=MONTH) == []
    assert len(find_garbage(store, [], older_than=timedelta(0))) == 4


def test_leftovers_of_killed_processes_go_and_paid_answers_stay(store: ArtifactStore) -> None:
    ref = write_numbered(store, 1)
    _record(store, "done", [], [ref])
    for name, content in (
        ("artifacts/adapter/.tmp-0123/weights.safetensors", "half"),
        ("lineage/.k.json.0123.tmp", "half"),
        ("damaged/result-1-0123", "{}"),
        ("damaged/adapter-1-0123/manifest.json", "{}"),
        ("scratch/done/checkpoints/step-8/state.json", "{}"),
        ("scratch/never/checkpoints/step-8/state.json", "{}"),
        ("scratch/paid/verdicts.jsonl", '{"judge"}\n{"answer"}\n'),
        ("scratch/unpaid/verdicts.jsonl", '{"judge"}\n'),
        ("locks/0123", ""),
        ("keys/release.key", "00"),
    ):
        (store.home / name).parent.mkdir(parents=True, exist_ok=True)
        (store.home / name).write_text(content)
    assert collect(store, [ref], older_than=MONTH) == [], "everything is young"
    _age(store.home)
    os.utime(store.home / "scratch/never/checkpoints/step-8/state.json")
    assert _names(collect(store, [ref], older_than=MONTH)) == {
        ("artifacts/adapter/.tmp-0123", garbage.UNFINISHED),
        ("lineage/.k.json.0123.tmp", garbage.UNFINISHED),
        ("damaged/result-1-0123", garbage.DAMAGED),
        ("damaged/adapter-1-0123", garbage.DAMAGED),
        ("scratch/done", garbage.COMPUTED),
        ("scratch/unpaid", garbage.STALE),
    }
    left = {str(path.relative_to(store.home)) for path in store.home.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("artifacts/retention")} == {
        "keys/release.key", "lineage/done.json", "locks/0123", "scratch/paid/verdicts.jsonl",
        "scratch/never/checkpoints/step-8/state.json",
    }  # fmt: skip
    store.verify(ref)


def test_nothing_of_the_last_day_is_collected_while_a_step_runs(store: ArtifactStore) -> None:
    write_numbered(store, 1)
    locks = FlockLockManager()
    locks.acquire_lock("k", "me")
    with pytest.raises(StoreError, match="a step is running"):
        collect(store, [], older_than=timedelta(0))
    assert len(store.folders()) == 1
    assert collect(store, [], older_than=timedelta(days=1)) == []
    locks.release_lock("k", "me")
    assert len(collect(store, [], older_than=timedelta(0))) == 1


def test_a_collector_that_is_killed_leaves_no_half_of_an_artifact(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write_numbered(store, 1)
    _age(store.home)

    def die(folder: Path) -> None:
        next(iter(folder.iterdir())).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.storage.garbage.shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            collect(store, [], older_than=MONTH)
    assert not store.path(ref).exists()
    _age(store.home)
    assert [one.reason for one in collect(store, [], older_than=MONTH)] == [garbage.UNFINISHED]
    assert list(store.path(ref).parent.iterdir()) == []


def test_what_is_shared_is_collected_where_it_is_shared(here: ArtifactStore, there: ArtifactStore) -> None:
    assert here.remote is not None
    objects = here.remote.objects
    root, orphan = write_numbered(here, 1), write_numbered(here, 2)
    _record(here, "old", [], [orphan])
    here.remote.create_record("old", here.lineage()[0])
    unfinished = f"adapter/{'0' * 64}/adapter_model.safetensors"
    for name in (unfinished, "damaged/adapter-1/manifest.json", "probes/1", "leases/1"):
        objects.write(name, b"x")
    assert find_garbage(here, [root], older_than=timedelta(days=1)) == [], "another machine may be about to finish"
    with pytest.raises(StoreError, match="another machine computes"):
        collect(here, [root], older_than=timedelta(0))
    objects.delete("leases/1")
    names = _names(collect(here, [root], older_than=timedelta(0)))
    assert {name for name in names if not name[0].startswith(("artifacts/", "lineage/"))} == {
        (f"retention/{orphan.sha256}", garbage.ORPHAN),
        (f"adapter/{'0' * 64}", garbage.UNFINISHED),
        ("damaged/adapter-1/manifest.json", garbage.DAMAGED),
        ("probes/1", garbage.STALE),
    }
    assert ("lineage/old.json", garbage.FORGOTTEN) in names
    files = sorted(path.name for path in here.path(root).iterdir())
    assert list(objects.sizes()) == [f"retention/{root.sha256}/{file}" for file in files]
    assert here.lineage() == there.lineage() == []
    there.verify(root)


def test_a_half_written_file_at_a_shared_folder_goes_when_it_is_old(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("CAPO_ARTIFACTS", shared.as_uri())
    reach.cache_clear()
    store = ArtifactStore()
    ref = write_numbered(store, 1)
    half = shared / "retention" / ref.sha256 / f".weights-0.bin.{'0' * 32}.tmp"
    half.write_bytes(b"half")
    assert find_garbage(store, [ref], older_than=MONTH) == []
    _age(shared)
    assert [one.objects for one in collect(store, [ref], older_than=MONTH)] == [
        (f"retention/{ref.sha256}/{half.name}",)
    ]
    assert not half.exists()
    here = store.path(ref)
    store.remote.verify(ref)  # type: ignore[union-attr]
    assert here.exists()
    reach.cache_clear()
