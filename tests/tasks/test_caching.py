"""Cache keys, locks and stored results."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import get_current_settings

from capo_core.errors import DamagedArtifactError
from schemas.artifacts import ArtifactRef, ModelRef, SourceFile
from schemas.frames import RETENTION, empty
from schemas.training import CAPOConfig, PairConfig
from tasks.caching import FlockLockManager, ReferenceSerializer, compute_cache_key, set_aside_foreign_result
from tasks.storage.artifact_store import ArtifactStore

REF = ArtifactRef(kind="corpus", sha256="a" * 64, rows=3, schema_version=1)


def _key(**inputs: object) -> str:
    return compute_cache_key("probe", 1, inputs, uses_models=False)


def test_equal_inputs_have_equal_keys_whatever_their_order() -> None:
    assert _key(a=1, b=PairConfig()) == _key(b=PairConfig(), a=1)


@pytest.mark.parametrize(
    "changed",
    [
        {"ref": REF.model_copy(update={"sha256": "b" * 64}), "config": CAPOConfig()},
        {"ref": REF, "config": CAPOConfig(beta=0.2)},
        {"ref": [REF], "config": CAPOConfig()},
        {"ref": None, "config": CAPOConfig()},
    ],
)
def test_any_change_of_an_input_changes_the_key(changed: dict) -> None:
    assert _key(**changed) != _key(ref=REF, config=CAPOConfig())


def test_name_version_and_libraries_enter_the_key() -> None:
    keys = {
        compute_cache_key("probe", 1, {}, uses_models=False),
        compute_cache_key("other", 1, {}, uses_models=False),
        compute_cache_key("probe", 2, {}, uses_models=False),
        compute_cache_key("probe", 1, {}, uses_models=True),
    }
    assert len(keys) == 4


def test_a_source_is_its_content_and_a_model_its_fingerprint() -> None:
    here = SourceFile(path="/here/a.csv", name="a.csv", sha256="1" * 64)
    there = here.model_copy(update={"path": "/there/a.csv"})
    changed = here.model_copy(update={"sha256": "2" * 64})
    assert _key(source=here) == _key(source=there) != _key(source=changed)
    model = ModelRef(id="m", path="/x", fingerprint="1234567")
    assert _key(m=model) == _key(m=model.model_copy(update={"path": "/y"}))


@pytest.mark.parametrize("value", [Path("data.csv"), object(), {1, 2}, lambda: None])
def test_what_has_no_stable_identity_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no stable identity"):
        _key(value=value)


def test_a_stored_reference_counts_only_while_its_artifact_is_whole(home: Path) -> None:
    store = ArtifactStore()
    first = store.write("retention", {"data.parquet": empty(RETENTION)}, metadata={"n": 1})
    second = store.write("retention", {"data.parquet": empty(RETENTION)}, metadata={"n": 2})
    serializer = ReferenceSerializer()
    assert serializer.loads(serializer.dumps(first)) == first
    assert serializer.loads(serializer.dumps((first, second))) == (first, second)
    (store.path(second) / "data.parquet").unlink()
    with pytest.raises(DamagedArtifactError):
        serializer.loads(serializer.dumps((first, second)))


@pytest.mark.parametrize("value", [None, "text", {"a": 1}, [], [REF, "text"]])
def test_only_references_are_stored(value: object) -> None:
    with pytest.raises(TypeError, match="artifact references"):
        ReferenceSerializer().dumps(value)


class _Payload:
    """Writes a marker when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.marker),))


def test_a_planted_pickle_is_set_aside_before_prefect_reads_it(home: Path, tmp_path: Path) -> None:
    import base64

    marker = tmp_path / "executed"
    blob = base64.encodebytes(pickle.dumps(_Payload(marker))).decode()
    results = Path(get_current_settings().results.local_storage_path)
    results.mkdir(parents=True, exist_ok=True)
    record = {"metadata": {"serializer": {"type": "pickle", "picklelib": "pickle"}}, "result": blob}
    (results / "planted").write_text(json.dumps(record))
    manager = FlockLockManager()
    manager.acquire_lock("planted", "me")
    manager.release_lock("planted", "me")
    assert not (results / "planted").exists()
    assert len(list((home / "damaged").iterdir())) == 1
    assert not marker.exists()


def test_a_record_of_ours_stays(home: Path) -> None:
    results = Path(get_current_settings().results.local_storage_path)
    results.mkdir(parents=True, exist_ok=True)
    record = {"metadata": {"serializer": {"type": "capo-reference"}}, "result": str(REF)}
    (results / "ours").write_text(json.dumps(record))
    ArtifactStore().record_lineage("ours", {"key": "ours", "returns": [str(REF)]})
    set_aside_foreign_result("ours")
    assert (results / "ours").exists()


@pytest.mark.parametrize("harm", ["other result", "other lineage", "damaged lineage", "no lineage"])
def test_a_result_that_its_lineage_does_not_vouch_for_does_not_count(home: Path, harm: str) -> None:
    store, results = ArtifactStore(), Path(get_current_settings().results.local_storage_path)
    results.mkdir(parents=True, exist_ok=True)
    other = str(REF.model_copy(update={"rows": 4}))
    result = other if harm == "other result" else str(REF)
    record = {"metadata": {"serializer": {"type": "capo-reference"}}, "result": result}
    (results / "k").write_text(json.dumps(record))
    if harm != "no lineage":
        store.record_lineage("k", {"key": "k", "returns": [other if harm == "other lineage" else str(REF)]})
    if harm == "damaged lineage":
        path = store.computations.path("k")
        path.write_text(path.read_text().replace("rows=3", "rows=2"))
    set_aside_foreign_result("k")
    assert not (results / "k").exists()
    (aside,) = (home / "damaged").iterdir()
    assert json.loads(aside.read_text()) == record


def test_a_lock_excludes_and_is_released(home: Path) -> None:
    first, second = FlockLockManager(), FlockLockManager()
    assert first.acquire_lock("k", "a")
    assert first.is_lock_holder("k", "a")
    assert second.is_locked("k")
    assert not second.acquire_lock("k", "b", acquire_timeout=0.1)
    assert not second.wait_for_lock("k", timeout=0.1)
    with pytest.raises(ValueError, match="does not hold"):
        first.release_lock("k", "b")
    first.release_lock("k", "a")
    assert second.acquire_lock("k", "b", acquire_timeout=0.1)
    second.release_lock("k", "b")


def test_the_kernel_frees_the_lock_of_a_killed_holder(home: Path) -> None:
    code = (
        "from tasks.caching import FlockLockManager; import time;"
        "FlockLockManager().acquire_lock('k', 'child'); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    manager = FlockLockManager()
    assert manager.is_locked("k")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert manager.acquire_lock("k", "me", acquire_timeout=5)
    manager.release_lock("k", "me")
