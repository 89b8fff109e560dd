"""What garbage collection must leave alone: named by runs, versions and corpora, or by results the cache still has."""

from __future__ import annotations

from pathlib import Path

import pytest
from sharing_machine import write_numbered

from schemas.artifacts import ArtifactRef, SourceFile
from tasks import tracking
from tasks.corpus_history import append_batch
from tasks.roots import declared_versions, find_roots
from tasks.storage.artifact_store import ArtifactStore

UNKNOWN = "probe-that-was-deleted"


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    return ArtifactStore()


def _record(store: ArtifactStore, step: str, version: int, read: ArtifactRef, written: ArtifactRef) -> None:
    key = f"{step}-{version}"
    refs = {"reads": [str(read)], "writes": [str(written)], "returns": [str(written)]}
    store.record_lineage(key, {"step": step, "version": version, "key": key, "config": {}, "seconds": 1.0, **refs})


def test_a_result_stays_while_its_step_has_the_version_that_computed_it(store: ArtifactStore) -> None:
    refs = [write_numbered(store, number) for number in range(6)]
    version = declared_versions()["train-capo"]
    _record(store, "train-capo", version, *refs[:2])
    _record(store, "train-capo", version - 1, *refs[2:4])
    _record(store, UNKNOWN, 1, *refs[4:])
    assert find_roots(store) == set(refs[:2])
    assert find_roots(store, keep_results=False) == set()


def test_every_step_is_known_by_its_version() -> None:
    versions = declared_versions()
    assert versions["train-sft"] == 3
    assert {"ingest", "evaluate", "judge", "report", "collect-results", "decide-promotion"} <= set(versions)


def test_what_a_run_or_a_registered_version_names_stays_until_it_is_deleted(store: ArtifactStore) -> None:
    read, written, registered, evaluation = (write_numbered(store, number) for number in range(4))
    assert not tracking.has_store(), "asking for roots must not need a database"
    assert find_roots(store) == set()
    run = tracking.start_flow_run("probe", "probe", "flow-run", {})
    tracking.name_artifacts(run, reads=[read], writes=[written])
    client = tracking.tracking_client()
    client.create_registered_model("probe.ada")
    tags = {"capo.adapter": str(registered), "capo.evaluation": str(evaluation), "capo.corpus": "by hand"}
    client.create_model_version("probe.ada", "file:///nowhere", tags=tags)
    assert find_roots(store) == {read, written, registered, evaluation}
    client.delete_run(run)
    assert find_roots(store) == {registered, evaluation}
    client.delete_registered_model("probe.ada")
    assert find_roots(store) == set()


def test_many_runs_are_all_asked(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tracking._PAGE_SIZE", 2)
    refs = [write_numbered(store, number) for number in range(5)]
    for ref in refs:
        tracking.name_artifacts(tracking.start_flow_run("probe", "probe", ref.sha256, {}), writes=[ref])
    assert find_roots(store) == set(refs)


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_corpus_keeps_its_batches(
    store: ArtifactStore, is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_shared:
        (tmp_path / "shared").mkdir()
        monkeypatch.setenv("CAPO_ARTIFACTS", (tmp_path / "shared").as_uri())
    batch = write_numbered(store, 1)
    append_batch("varierr", batch, SourceFile(path="x", name="monday.csv", sha256="0" * 64), version=2)
    assert find_roots(store, keep_results=False) == {batch}
