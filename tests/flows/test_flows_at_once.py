"""Processes that run the same flow at once, in one home: each key is computed once, and all get the same."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from forks import mlflow_home, processes
from killed_flow import hold_lock, open_mlflow, run_flow, server_url
from mlflow import MlflowClient
from rounds import n_rounds
from small_line import SMALL

from schemas.artifacts import ArtifactRef
from tasks.caching import FlockLockManager
from tasks.storage.artifact_store import ArtifactStore

__all__ = ["mlflow_home", "processes"]

pytestmark = pytest.mark.torture
N_ROUNDS, N_COLD = n_rounds(20), n_rounds(10)


def _client(home: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")


def test_two_processes_on_the_same_flow_compute_each_key_once(
    tmp_path: Path, processes: ForkServerContext, prefect_server: None, mlflow_home: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(mlflow_home / "mlflow", home / "mlflow")
    n_steps = 0
    for number in range(N_ROUNDS):
        overrides = [*SMALL, "name=at-once", f"splits.seed={number}"]
        barrier = processes.Barrier(2)
        runs = [
            processes.Process(target=run_flow, args=(home, server_url(), "pairs", overrides, f"{name}.json", barrier))
            for name in ("one", "other")
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        assert [run.exitcode for run in runs] == [0, 0]
        one, other = (json.loads((home / f"{name}.json").read_text()) for name in ("one", "other"))
        assert one == other
        assert len(one) == 2 + 2 * 4
        for reference in one.values():
            ArtifactStore(home).verify(ArtifactRef.parse(reference))
        experiment = _client(home).get_experiment_by_name("at-once")
        assert experiment is not None
        found = _client(home).search_runs([experiment.experiment_id], "tags.`capo.level` = 'step'", max_results=10_000)
        times = Counter(run.data.tags["capo.cache_key"] for run in found)
        assert set(times.values()) == {1}
        assert len(times) > n_steps
        n_steps = len(times)
    assert not (home / "damaged").exists()
    print(f"{N_ROUNDS} rounds of two processes, {n_steps} keys, each computed once")


def test_the_lock_of_a_killed_step_is_free_within_five_seconds(
    home: Path, tmp_path: Path, processes: ForkServerContext
) -> None:
    for number in range(N_ROUNDS):
        marks = tmp_path / f"marks-{number}"
        marks.mkdir()
        holder = processes.Process(target=hold_lock, args=(home, marks))
        holder.start()
        while not list(marks.iterdir()):
            assert holder.is_alive()
            time.sleep(0.01)
        locks = FlockLockManager()
        assert locks.is_locked("slow")
        holder.kill()
        killed = time.monotonic()
        assert locks.acquire_lock("slow", "me", acquire_timeout=60)
        assert time.monotonic() - killed < 5
        locks.release_lock("slow", "me")
        holder.join()
        assert holder.exitcode == -signal.SIGKILL


def test_four_processes_on_a_cold_mlflow_store_do_not_crash(tmp_path: Path, processes: ForkServerContext) -> None:
    for number in range(N_COLD):
        home, barrier = tmp_path / str(number), processes.Barrier(4)
        openers = [processes.Process(target=open_mlflow, args=(home, barrier)) for _ in range(4)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        assert [opener.exitcode for opener in openers] == [0] * 4
        experiment = _client(home).get_experiment_by_name("cold")
        assert experiment is not None
        runs = _client(home).search_runs([experiment.experiment_id])
        assert [run.info.status for run in runs] == ["FINISHED"] * 4
        assert len({run.data.params["pid"] for run in runs}) == 4
