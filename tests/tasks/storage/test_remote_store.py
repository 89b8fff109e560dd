"""Artifacts shared at a URL: on a folder, and on a real S3 server where one is installed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from forks import processes
from object_store import BUCKET
from sharing_machine import (
    N_WEIGHTS,
    compute_slowly,
    compute_when_told,
    write_and_die,
    write_numbered,
    write_when_told,
)

from capo_core.errors import DamagedArtifactError, StoreError
from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.leases import hold_turn
from tasks.storage.object_folder import ObjectFolder, reach
from tasks.storage.remote_artifacts import RemoteArtifacts

ROOT = Path(__file__).parents[3]
__all__ = ["processes"]

EXAMPLE = "deployments/configs/example/nli-smollm2-135m.yaml"
N_KILLS = 20
N_FILES = N_WEIGHTS + 2  # the table and the manifest


def _remote(store: ArtifactStore) -> RemoteArtifacts:
    assert store.remote is not None
    return store.remote


def _settings(home: Path) -> dict[str, str]:
    """Return the environment of a process that is a machine with this home."""
    shared = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "CAPO_ARTIFACTS"))}
    return {**shared, "CAPO_HOME": str(home)}


def _capo(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        cwd=ROOT, env=os.environ | {"CAPO_HOME": str(home), "COLUMNS": "240"} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _names(ref: ArtifactRef) -> list[str]:
    files = ["data.parquet", "manifest.json", *(f"weights-{part}.bin" for part in range(N_WEIGHTS))]
    return [f"{ref.kind}/{ref.sha256}/{file}" for file in files]


def _flip(objects: ObjectFolder, name: str) -> bytes:
    """Change one bit of an object and return what it is then."""
    content = bytearray(objects.read(name) or b"")
    content[len(content) // 2] ^= 1
    objects.write(name, bytes(content))
    return bytes(content)


def test_what_one_machine_writes_another_reads(here: ArtifactStore, there: ArtifactStore) -> None:
    ref = write_numbered(here, 1)
    assert list(_remote(here).objects.sizes()) == _names(ref)
    assert not there.path(ref).exists()
    assert there.find(ref.kind, ref.sha256) == ref
    assert there.read_table(ref).equals(here.read_table(ref))
    assert there.metadata(ref) == {"number": 1}
    assert there.folders() == [(ref.kind, ref.sha256)]
    for name in _names(ref):
        file = name.rpartition("/")[2]
        assert (there.path(ref) / file).read_bytes() == (here.path(ref) / file).read_bytes()


def test_what_is_whole_here_is_not_fetched_and_what_is_not_is(here: ArtifactStore) -> None:
    ref = write_numbered(here, 1)
    objects = _remote(here).objects
    (here.path(ref) / "weights-0.bin").write_bytes(b"changed")
    here.verify(ref)
    assert (here.path(ref) / "weights-0.bin").stat().st_size == 200_000
    assert len(list((here.home / "damaged").iterdir())) == 1
    for name in _names(ref):
        objects.delete(name)
    here.verify(ref)


def test_one_flipped_bit_is_named_by_its_url_and_repaired_by_computing_again(
    here: ArtifactStore, there: ArtifactStore, url: str
) -> None:
    ref = write_numbered(here, 1)
    objects = _remote(here).objects
    for name in _names(ref):
        flipped = _flip(objects, name)
        with pytest.raises(DamagedArtifactError) as caught:
            there.read_table(ref)
        assert f"{url}/{ref.kind}/{ref.sha256}" in str(caught.value)
        assert name.rpartition("/")[2] in str(caught.value)
        assert not there.path(ref).exists()
        assert list(there.root.glob("*/.tmp-*")) == []
        with pytest.raises(DamagedArtifactError, match=ref.sha256):
            here.audit(ref)
        assert write_numbered(here, 1) == ref
        here.audit(ref)
        (aside,) = [found for found in objects.sizes("damaged") if objects.read(found) == flipped]
        assert aside.endswith(name.rpartition("/")[2])
    assert there.read_table(ref).equals(here.read_table(ref))


def test_missing_and_foreign_objects_are_noticed(here: ArtifactStore, there: ArtifactStore) -> None:
    ref = write_numbered(here, 1)
    objects = _remote(here).objects
    foreign = f"{ref.kind}/{ref.sha256}/foreign.bin"
    objects.write(foreign, b"x")
    with pytest.raises(DamagedArtifactError, match=r"foreign\.bin"):
        there.verify(ref)
    objects.delete(foreign)
    objects.delete(_names(ref)[0])
    with pytest.raises(DamagedArtifactError, match=r"data\.parquet"):
        there.verify(ref)
    objects.delete(_names(ref)[1])
    with pytest.raises(DamagedArtifactError, match="is missing"):
        there.verify(ref)
    assert there.folders() == []


def test_an_uploader_killed_before_any_object_leaves_no_half_artifact(
    tmp_path: Path, there: ArtifactStore, processes: ForkServerContext
) -> None:
    for n_objects in range(N_FILES):
        home = tmp_path / f"home-{n_objects}"
        writer = processes.Process(target=write_and_die, args=(_settings(home), n_objects, n_objects))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        assert len(there.folders()) == n_objects  # the ones that were finished below
        ref = write_numbered(ArtifactStore(home), n_objects)
        there.verify(ref)
        _remote(there).verify(ref)
    assert _remote(there).objects.sizes("damaged") == {}


def test_an_uploader_killed_at_any_moment_leaves_no_half_artifact(
    tmp_path: Path, there: ArtifactStore, processes: ForkServerContext
) -> None:
    moments = random.Random(13)
    seconds = 0.0
    for number in range(N_KILLS + 1):
        home = tmp_path / f"home-{number}"
        told, tells = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_when_told, args=(_settings(home), [number], tells))
        writer.start()
        tells.close()
        assert told.recv() == number
        if number == 0:  # how long it takes undisturbed
            started = time.monotonic()
            writer.join()
            seconds = time.monotonic() - started
        time.sleep(moments.uniform(0, seconds))
        writer.kill()
        writer.join()
        for kind, sha256 in there.folders():
            there.verify(there.find(kind, sha256))
        ref = write_numbered(ArtifactStore(home), number)
        there.verify(ref)
        _remote(there).verify(ref)
    assert len(there.folders()) == N_KILLS + 1
    assert _remote(there).objects.sizes("damaged") == {}


def test_machines_that_write_the_same_at_once_write_one_artifact(
    tmp_path: Path, there: ArtifactStore, processes: ForkServerContext
) -> None:
    numbers, n_machines = list(range(5)), 3
    barrier = processes.Barrier(n_machines)
    machines = [
        processes.Process(target=write_when_told, args=(_settings(tmp_path / str(n)), numbers, barrier))
        for n in range(n_machines)
    ]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()
        assert machine.exitcode == 0
    assert len(there.folders()) == len(numbers)
    for kind, sha256 in there.folders():
        there.verify(there.find(kind, sha256))
    assert _remote(there).objects.sizes("damaged") == {}


def test_of_several_who_create_a_name_one_succeeds(url: str) -> None:
    objects, numbers = reach(url), range(6)
    with ThreadPoolExecutor(len(numbers)) as pool:
        for race in ("first", "second", "third"):
            outcomes = list(pool.map(lambda number, race=race: objects.create(race, b"%d" % number), numbers))
            assert outcomes.count(True) == 1
            assert objects.read(race) == b"%d" % outcomes.index(True)


def test_a_key_is_computed_on_one_machine_only(url: str, tmp_path: Path, processes: ForkServerContext) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    barrier = processes.Barrier(2)
    homes = [tmp_path / "first", tmp_path / "second"]
    machines = [
        processes.Process(target=compute_when_told, args=(_settings(home), "Ann", 2.0, marks, barrier))
        for home in homes
    ]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()
        assert machine.exitcode == 0
    assert len(list(marks.iterdir())) == 1
    first, second = (ArtifactRef.parse((home / "result-Ann").read_text()) for home in homes)
    assert first == second
    for home in homes:
        store = ArtifactStore(home)
        store.verify(first)
        assert [record["writes"] for record in store.lineage()] == [[str(first)]]
    assert reach(url).sizes("leases") == {}


def test_a_result_whose_artifact_is_damaged_is_computed_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    results = []
    for home in ("first", "second", "third"):
        monkeypatch.setenv("CAPO_HOME", str(tmp_path / home))
        results.append(compute_slowly.fn("Ben", 0.0, str(marks)))
        if home == "second":
            _flip(reach(url), f"retention/{results[-1].sha256}/data.parquet")
    assert results[0] == results[1] != results[2]
    assert len(list(marks.iterdir())) == 2
    monkeypatch.setenv("CAPO_HOME", str(tmp_path / "fourth"))
    assert compute_slowly.fn("Ben", 0.0, str(marks)) == results[2]


def test_the_first_one_finished_stands(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose lease was lost finishes second: it returns what the first one found."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("CAPO_HOME", str(tmp_path / "first"))
    first: list[ArtifactRef] = []
    machine = threading.Thread(target=lambda: first.append(compute_slowly.fn("Chi", 3.0, str(marks))))
    machine.start()
    while not list(marks.iterdir()):
        time.sleep(0.05)
    (lease,) = reach(url).sizes("leases")
    reach(url).delete(lease)
    monkeypatch.setenv("CAPO_HOME", str(tmp_path / "second"))
    second = compute_slowly.fn("Chi", 3.0, str(marks))
    machine.join()
    assert len(list(marks.iterdir())) == 2
    assert [second] == first
    assert [record["writes"] for record in ArtifactStore().lineage()] == [[str(second)]]


def test_results_older_than_the_url_are_shared_when_they_are_used(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: ArtifactStore
) -> None:
    from tasks.caching import ReferenceSerializer

    monkeypatch.delenv("CAPO_ARTIFACTS")
    monkeypatch.setenv("CAPO_HOME", str(tmp_path / "before"))
    ref = write_numbered(ArtifactStore(), 1)
    stored = ReferenceSerializer().dumps(ref)
    monkeypatch.setenv("CAPO_ARTIFACTS", url)
    assert ReferenceSerializer().loads(stored) == ref
    there.verify(ref)


def test_a_turn_is_kept_while_its_holder_lives_and_lost_when_it_is_silent(url: str) -> None:
    objects, order = reach(url), []

    def wait() -> None:
        with hold_turn(objects, "k", lease_seconds=2.0):
            order.append("second")

    with hold_turn(objects, "k", lease_seconds=2.0):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(5.0)  # longer than the lease: the holder touches it
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    objects.write("leases/k", b"of a machine that was killed")
    started = time.monotonic()
    with hold_turn(objects, "k", lease_seconds=2.0):
        assert 2.0 <= time.monotonic() - started < 10.0
    assert objects.sizes("leases") == {}


def test_artifacts_are_listed_shown_and_verified_where_they_are_shared(
    url: str, here: ArtifactStore, tmp_path: Path
) -> None:
    ref = write_numbered(here, 1)
    here.record_lineage("k", {"step": "probe-numbered", "key": "k", "writes": [str(ref)]})
    _remote(here).create_record("k", here.lineage()[0])
    listed = _capo("artifacts", "ls", home=tmp_path / "new")
    assert url in listed.stdout
    assert ref.sha256[:16] in listed.stdout
    shown = _capo("artifacts", "show", ref.sha256[:8], home=tmp_path / "new")
    assert "probe-numbered" in shown.stdout
    assert "1 artifacts verified, 0 damaged" in _capo("artifacts", "verify", home=tmp_path / "new").stdout
    _flip(_remote(here).objects, _names(ref)[0])
    damaged = _capo("artifacts", "verify", home=here.home)  # its own copy is whole
    assert damaged.returncode == 1
    assert f"{url}/{ref.kind}/{ref.sha256}: file data.parquet" in damaged.stdout
    doctor = _capo("doctor", home=tmp_path / "new")
    assert "can be read and written; conditional puts hold" in " ".join(doctor.stdout.replace("│", " ").split())


@pytest.mark.slow
def test_a_second_machine_finds_what_the_first_computed_and_makes_the_same(s3: dict[str, str], tmp_path: Path) -> None:
    outputs = []
    for name in ("first", "second"):
        home = tmp_path / name
        (home / "prefect").mkdir(parents=True)
        place = {"CAPO_ARTIFACTS": f"s3://{BUCKET}/{tmp_path.name}", "PREFECT_HOME": str(home / "prefect")}
        done = _capo("ingest", EXAMPLE, home=home, PREFECT_LOGGING_TO_API_ENABLED="false", **place, **s3)
        assert done.returncode == 0, done.stderr
        outputs.append(done)
    n_steps = len(list((tmp_path / "first" / "lineage").iterdir()))
    assert n_steps > 0
    assert (outputs[0].stdout + outputs[0].stderr).count("computed before, found at s3://") == 0
    assert (outputs[1].stdout + outputs[1].stderr).count("computed before, found at s3://") == n_steps
    references = [[line for line in done.stdout.splitlines() if "capo:" in line] for done in outputs]
    assert references[0] == references[1] != []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"CAPO_ARTIFACTS": "s3://nobody-made-this/x"}, "bucket does not exist"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "wrong-id"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nonexistent"}, "credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "check that the bucket is there, AWS_ENDPOINT_URL"),
    ],
)
def test_a_bucket_out_of_reach_says_what_to_check_and_gives_no_secret_away(
    s3: dict[str, str], home: Path, change: dict[str, str], says: str
) -> None:
    done = _capo("artifacts", "ls", home=home, **({"CAPO_ARTIFACTS": f"s3://{BUCKET}/x"} | s3 | change))
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert s3["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    assert "wrong-secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("file:///nowhere/at/all", "file:///nowhere/at/all: cannot reach: it does not exist; check that the folder"),
        ("/mnt/shared", "write s3://bucket/prefix or file:///folder"),
        ("s3://me:my-password@bucket/x", "write s3://bucket/prefix or file:///folder"),
        ("gopher://x/y", "gopher"),
    ],
)
def test_a_place_that_is_none_is_refused(place: str, says: str) -> None:
    with pytest.raises(StoreError) as caught:
        ObjectFolder(place)
    assert says in str(caught.value)
    assert "my-password" not in str(caught.value)
