"""What Prefect, MLflow, caching and hashing cost beside the work: `python -m benchmarks.overhead [--set KEY=VALUE]`.

The whole line runs once in an empty home, and once more, when every step comes from the cache. Work is the time in the
bodies of steps and of the few tasks that are not cached (a model's conversion, registration); all else between the
flow's first and last moment is overhead: MLflow's runs of steps and flows, and what is left, which is Prefect's task
runs, results, locks, keys, hashes, publishing. The temporary Prefect server's start stands apart: `capo up` keeps one
running.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

DEMO = Path(__file__).parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
_TRACKING = (
    "start_flow_run", "start_step_run", "name_artifacts", "log_metrics", "log_training", "log_file", "finish_run",
)  # fmt: skip


def main() -> None:
    """Print the machine, then seconds and shares of both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEMO, help="by default the demo's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of capo run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="capo-overhead-") as home:
        for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "CAPO_ARTIFACTS", "CAPO_FANOUT"):
            os.environ.pop(name, None)
        os.environ["PREFECT_HOME"] = f"{home}/prefect"
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
        from deployments.environment import prepare_environment

        prepare_environment(Path(home))
        _measure(options.config, options.set)


def _measure(path: Path, overrides: list[str]) -> None:
    from prefect.client.orchestration import get_client

    from benchmarks.machine import describe_machine
    from capo_core.config_file import load_config
    from flows import stages
    from tasks.step import STEP_VERSIONS
    from tasks.storage.artifact_store import ArtifactStore

    print(describe_machine())
    config = load_config(path, overrides)
    started = time.monotonic()
    with get_client(sync_client=True) as client:
        print(
            f"{config.name}; start of a temporary Prefect server: {time.monotonic() - started:.1f} s, counted nowhere"
        )
        for name in ("first run", "all from the cache"):
            known = {record["key"] for record in ArtifactStore().lineage()}
            with _timed_tracking() as tracked:
                begun = time.monotonic()
                stages.run(config)
                wall = time.monotonic() - begun
            computed = [record for record in ArtifactStore().lineage() if record["key"] not in known]
            flow = max(client.read_flow_runs(), key=lambda run: run.created)
            runs = _read_task_runs(client, flow.id)
            others: dict[str, float] = {}
            for run in runs:
                task = run.name.split()[0]
                if task not in STEP_VERSIONS:
                    others[task] = others.get(task, 0.0) + run.total_run_time.total_seconds()
            steps, mlflow = sum(record["seconds"] for record in computed), sum(tracked.values())
            over = wall - steps - sum(others.values())
            print(
                f"  {name}: {wall:.1f} s; {len(computed)} steps computed in {steps:.1f} s, other tasks in "
                f"{sum(others.values()):.1f} s ({_show(others)})\n"
                f"    overhead {over:.1f} s = {over / wall:.1%}: MLflow {mlflow:.1f} s ({_show(tracked)}), the rest "
                f"{over - mlflow:.1f} s = {(over - mlflow) / wall:.1%}, {(over - mlflow) / len(runs) * 1000:.0f} ms "
                f"for each of {len(runs)} task runs"
            )


def _show(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {spent:.1f}" for name, spent in sorted(seconds.items(), key=lambda pair: -pair[1]))


@contextmanager
def _timed_tracking() -> Iterator[dict[str, float]]:
    """Yield the seconds spent in each function that steps and flows call to write to MLflow."""
    from tasks import tracking

    originals, seconds = {name: getattr(tracking, name) for name in _TRACKING}, dict.fromkeys(_TRACKING, 0.0)

    def timed(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.monotonic()
            try:
                return originals[name](*args, **kwargs)
            finally:
                seconds[name] += time.monotonic() - begun

        return call

    for name in _TRACKING:
        setattr(tracking, name, timed(name))
    try:
        yield seconds
    finally:
        for name, original in originals.items():
            setattr(tracking, name, original)


def _read_task_runs(client: Any, flow_run_id: UUID) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    found: list[Any] = []
    while True:
        page = client.read_task_runs(flow_run_filter=wanted, limit=200, offset=len(found))
        found += page
        if len(page) < 200:
            return found


if __name__ == "__main__":
    main()
