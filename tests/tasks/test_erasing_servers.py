"""What an erasure deletes on a real MLflow server, which keeps what is only marked as deleted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import ViewType

from schemas.artifacts import ArtifactRef
from tasks import tracking
from tasks.erasing_servers import erase_from_mlflow
from tasks.registry import list_versions

WANTED, OTHER = (str(ArtifactRef(kind="adapter", sha256=c * 64, rows=0, schema_version=1)) for c in "ab")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Return the address of an MLflow server that keeps files behind it, and the folder in which it keeps them."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", (folder / "files").as_uri(),
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", server)
        yield address, folder / "files"
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{url} does not answer")


def _register(person: str, adapter: str, words: Path) -> str:
    """Leave what a training leaves: a run with a file, and a registered version with weights; return the run's id."""
    client = tracking.tracking_client()
    found = client.get_experiment_by_name("people")
    experiment = client.create_experiment("people") if found is None else found.experiment_id
    tags = {"capo.step": f"train-sft {person}", "capo.writes.adapter": adapter, "capo.flow_run_id": f"flow-{person}"}
    run = client.create_run(experiment, run_name=f"train-sft {person}", tags=tags)
    client.log_artifact(run.info.run_id, str(words))
    model = client.create_logged_model(experiment, name="sft", source_run_id=run.info.run_id)
    client.log_model_artifacts(model.model_id, str(words.parent))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model(f"corpus.{person}")
    client.create_model_version(
        f"corpus.{person}", model.artifact_location, run.info.run_id, model_id=model.model_id,
        tags={"capo.adapter": adapter, "capo.logged_model": model.model_id},
    )  # fmt: skip
    return run.info.run_id


@pytest.mark.slow
def test_no_file_name_or_tag_of_a_person_stays_on_a_server(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, files = served
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    runs = {}
    for person, adapter in (("ann", WANTED), ("bob", OTHER)):
        (tmp_path / person).mkdir()
        (tmp_path / person / "weights.txt").write_text(f"words of {person}")
        runs[person] = _register(person, adapter, tmp_path / person / "weights.txt")
    assert {version.name for version in list_versions()} == {"corpus.ann", "corpus.bob"}

    erased = erase_from_mlflow([WANTED])

    assert ([version.name for version in erased.versions], erased.n_runs) == (["corpus.ann"], 1)
    assert erased.flow_run_ids == ("flow-ann",)
    assert runs["ann"] in erased.left_to_gc
    kept = {path.read_text() for path in files.rglob("weights.txt")}
    assert kept == {"words of bob"}
    assert [version.name for version in list_versions()] == ["corpus.bob"]
    client = tracking.tracking_client()
    marked = client.get_run(runs["ann"])
    assert marked.info.lifecycle_stage == "deleted"
    assert "ann" not in str(marked.to_dictionary()).replace("annotator", "")
    experiment = client.get_experiment_by_name("people")
    assert experiment is not None
    active = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    assert [run.info.run_id for run in active] == [runs["bob"]]

    again = erase_from_mlflow([WANTED])
    assert (again.versions, again.n_runs) == ((), 1), "what is marked is found again, for whoever has to run mlflow gc"
