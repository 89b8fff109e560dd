"""A flow that is killed, however often, ends as one that was not, and computes nothing twice that was committed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from forks import mlflow_home, processes, run_alone
from killed_flow import run_flow, server_url
from mlflow import MlflowClient
from rounds import is_torture, n_rounds
from small_line import SMALL
from tiny_model import save_tiny_model

__all__ = ["mlflow_home", "processes"]

pytestmark = pytest.mark.torture
N_KILLS = n_rounds(50)
# The whole line takes a minute and more; the short form goes to the adapters, and trains one for all.
FLOW, FURTHER = ("run", []) if is_torture() else ("train", ["adapter.layout=shared"])
FINAL = "outcome.json"
# What a report shows of computing times differs from run to run.
TIMED = ("report",)


@dataclass
class Life:
    """One home, in which a flow is killed until it comes through.

    Attributes:
        home: capo's.
        starts: when each process was started, in seconds since 1970.
        committed: the cache keys of which a result was kept at each start.
    """

    home: Path
    starts: list[float] = field(default_factory=list)
    committed: list[set[str]] = field(default_factory=list)

    def begin(self) -> None:
        """Note what is committed when a process starts."""
        results = self.home / "results"
        self.starts.append(time.time())
        self.committed.append({path.name for path in results.iterdir()} if results.exists() else set())

    def steps(self) -> list[tuple[float, str]]:
        """Return when each step that was computed began, and its cache key, from first to last."""
        client = MlflowClient(tracking_uri=f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, "tags.`capo.level` = 'step'", max_results=10_000)
        return sorted((run.info.start_time / 1000, run.data.tags["capo.cache_key"]) for run in runs)


def _references(home: Path) -> dict[str, str]:
    found = json.loads((home / FINAL).read_text())
    return {name: ref for name, ref in found.items() if name not in TIMED}


def test_a_flow_killed_at_any_moment_ends_as_one_that_was_not(
    tmp_path: Path, processes: ForkServerContext, prefect_server: None, mlflow_home: Path
) -> None:
    model = save_tiny_model(tmp_path / "tiny", max_position_embeddings=4096)
    overrides = [*SMALL, *FURTHER, f"model.id={model.path}", "name=killed"]

    def start(life: Life, lives_seconds: float | None) -> int | None:
        if not life.starts:
            shutil.copytree(mlflow_home / "mlflow", life.home / "mlflow")
            # The key that signs rating sheets is a home's own, and made once.
            (life.home / "keys").mkdir()
            (life.home / "keys" / "validation.key").write_text("13" * 32, encoding="ascii")
        life.begin()
        arguments = (life.home, server_url(), FLOW, overrides, FINAL)
        return run_alone(processes, run_flow, *arguments, lives_seconds=lives_seconds)

    undisturbed = Life(tmp_path / "undisturbed")
    run_alone(processes, time.sleep, 0)  # starts the server of forks
    started = time.monotonic()
    assert start(undisturbed, None) == 0
    seconds = time.monotonic() - started
    expected, n_steps = _references(undisturbed.home), len(undisturbed.steps())
    assert n_steps == len({key for _, key in undisturbed.steps()}) > 12

    randomness, n_kills, lives, waits, kept_steps = random.Random(13), 0, [], [], []
    while n_kills < N_KILLS:
        life = Life(tmp_path / f"life-{len(lives)}")
        lives.append(life)
        while n_kills < N_KILLS:
            exitcode = start(life, randomness.uniform(0.5, seconds / 2))
            assert exitcode in (0, -signal.SIGKILL)
            if exitcode == 0:
                break
            n_kills += 1
        if not (life.home / FINAL).exists():
            assert start(life, None) == 0
        assert _references(life.home) == expected
        steps = life.steps()
        kept_steps += [len(committed) for committed in life.committed[1:]]
        for begin, committed in zip(life.starts, life.committed, strict=True):
            assert not [key for at, key in steps if at >= begin and key in committed], "a committed step ran again"
            waits += [min((at for at, _ in steps if at >= begin), default=begin) - begin]
        assert {key for _, key in steps} == {key for _, key in undisturbed.steps()}
    assert max(waits) < 60
    print(
        f"{n_kills} kills in {len(lives)} homes, at {min(kept_steps)} to {max(kept_steps)} of {n_steps} steps; "
        f"undisturbed {seconds:.0f} s, work resumed after {max(waits):.1f} s"
    )
