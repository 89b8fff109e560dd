"""What Prefect, MLflow, caching and hashing cost beside the work: `python -m benchmarks.overhead [--set KEY=VALUE]`.

The whole line runs once in an empty home, and once more, when every step comes from the cache. A step's work is the
time in its own body; everything else between the flow's first and last moment (task runs, results, locks, hashes of
what is read and written, MLflow runs) counts as overhead. The temporary Prefect server's start stands apart: `capo up`
keeps one running.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

DEMO = Path(__file__).parent.parent / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"


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
    from tasks.storage.artifact_store import ArtifactStore

    print(describe_machine())
    config = load_config(path, overrides)
    started = time.monotonic()
    with get_client(sync_client=True) as client:
        print(
            f"{config.name}; start of a temporary Prefect server: {time.monotonic() - started:.1f} s, counted nowhere"
        )
        for name in ("first run", "all from the cache"):
            begun, n_computed = time.monotonic(), len(ArtifactStore().lineage())
            stages.run(config)
            wall = time.monotonic() - begun
            records = ArtifactStore().lineage()
            work = sum(record["seconds"] for record in records) if n_computed == 0 else 0.0
            flow = max(client.read_flow_runs(), key=lambda run: run.created)
            n_tasks = _count_task_runs(client, flow.id)
            over = wall - work
            print(
                f"  {name}: {wall:.1f} s, {len(records) - n_computed} steps computed in {work:.1f} s; overhead "
                f"{over:.1f} s = {over / wall:.1%}, {over / n_tasks * 1000:.0f} ms for each of {n_tasks} task runs"
            )


def _count_task_runs(client: object, flow_run_id: object) -> int:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))  # type: ignore[list-item]
    found: list[object] = []
    while True:
        page = client.read_task_runs(flow_run_filter=wanted, limit=200, offset=len(found))  # type: ignore[attr-defined]
        found += page
        if len(page) < 200:
            return len(found)


if __name__ == "__main__":
    main()
