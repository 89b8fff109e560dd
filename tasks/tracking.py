"""MLflow: one parent run per flow run, one child per step that was computed; each names what it read and wrote.

Only `MlflowClient` is used, with explicit run ids: the fluent interface keeps the active run in thread-local state,
which is wrong under a task runner's threads.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from schemas.artifacts import ArtifactRef
from schemas.section import flatten_keys
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home
from tasks.storage.manifests import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_PARAM_LENGTH = 6000
_PAGE_SIZE = 1000
_PARENT_TAG = "mlflow.parentRunId"
FLOW_RUN_TAG = "capo.flow_run_id"


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI if set, else a SQLite file in capo's home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{capo_home() / 'mlflow' / 'mlflow.db'}"


def has_store() -> bool:
    """Return whether there is anything to ask; only a local database can be missing, because nothing ever ran."""
    uri = tracking_uri()
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).exists()


@lru_cache(maxsize=8)
def _client(uri: str) -> MlflowClient:
    """Return a client; a local database is created and migrated under a lock, which MLflow itself does not take."""
    from mlflow import MlflowClient

    if not uri.startswith("sqlite:///"):
        return MlflowClient(tracking_uri=uri)
    folder = Path(uri.removeprefix("sqlite:///")).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".migration.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def tracking_client() -> MlflowClient:
    """Return the client for `tracking_uri()`."""
    return _client(tracking_uri())


def read_pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Yield everything that a search of MLflow's client finds; it takes `max_results` and `page_token`."""
    token = None
    while token != "":
        page = search(max_results=_PAGE_SIZE, page_token=token)
        yield from page
        token = page.token or ""


def find_or_create_experiment(name: str) -> str:
    """Return the id of the MLflow experiment `name`; its files lie in capo's home when the store is local."""
    from mlflow.exceptions import MlflowException

    client = tracking_client()
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    is_local = tracking_uri().startswith("sqlite:///")
    location = (capo_home() / "mlflow" / "artifacts" / name).as_uri() if is_local else None
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        experiment = client.get_experiment_by_name(name)  # another process was first
        if experiment is None:
            raise
        return experiment.experiment_id


def start_flow_run(experiment: str, run_name: str, flow_run_id: str, config: Mapping[str, Any]) -> str:
    """Return the id of a new parent run, with the configuration as parameters."""
    client = tracking_client()
    tags = {FLOW_RUN_TAG: flow_run_id, "capo.level": "flow"}
    run = client.create_run(find_or_create_experiment(experiment), tags=tags, run_name=run_name)
    _log_params(run.info.run_id, config)
    client.log_text(run.info.run_id, canonical_json(config), "config.json")
    return run.info.run_id


@lru_cache(maxsize=64)
def find_flow_run(flow_run_id: str) -> tuple[str, str] | None:
    """Return (experiment id, run id) of the parent run a flow run opened, or None outside such a run."""
    client = tracking_client()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, filter_string=f"tags.`{FLOW_RUN_TAG}` = '{flow_run_id}'", max_results=1)
    return (runs[0].info.experiment_id, runs[0].info.run_id) if runs else None


def start_step_run(
    flow_run_id: str, label: str, step: str, version: int, key: str, config: Mapping[str, Any]
) -> str | None:
    """Return the id of a new child run for one step, or None when the flow run has no parent run in MLflow."""
    parent = find_flow_run(flow_run_id)
    if parent is None:
        return None
    experiment_id, parent_id = parent
    tags = {
        _PARENT_TAG: parent_id,
        "capo.level": "step",
        "capo.step": step,
        "capo.step_version": str(version),
        "capo.cache_key": key,
    }
    run = tracking_client().create_run(experiment_id, tags=tags, run_name=label)
    _log_params(run.info.run_id, config)
    return run.info.run_id


def log_cell(
    flow_run_id: str, label: str, params: Mapping[str, Any], figures: Mapping[str, float], reads: Iterable[ArtifactRef]
) -> None:
    """Record one cell of an experiment as a finished child run, if the flow run has a parent run in MLflow."""
    parent = find_flow_run(flow_run_id)
    if parent is None:
        return
    experiment_id, parent_id = parent
    tags = {_PARENT_TAG: parent_id, "capo.level": "cell"}
    run = tracking_client().create_run(experiment_id, tags=tags, run_name=label)
    _log_params(run.info.run_id, params)
    log_metrics(run.info.run_id, figures)
    name_artifacts(run.info.run_id, reads=reads)
    finish_run(run.info.run_id)


@contextmanager
def tracked_flow(
    experiment: str, run_name: str, flow_run_id: str, config: Mapping[str, Any], artifacts: Mapping[str, ArtifactRef]
) -> Iterator[str]:
    """Run a flow's body inside its run in MLflow, whose id is yielded and which names all it made, failed or finished.

    Args:
        experiment: name of the MLflow experiment.
        run_name: what the run is called.
        flow_run_id: of Prefect.
        config: logged as parameters.
        artifacts: what the body makes, filled by it.
    """
    run_id = start_flow_run(experiment, run_name, flow_run_id, config)
    failed = True
    try:
        yield run_id
        failed = False
    finally:
        name_artifacts(run_id, writes=artifacts.values())
        finish_run(run_id, failed=failed)


def name_artifacts(run_id: str, *, reads: Iterable[ArtifactRef] = (), writes: Iterable[ArtifactRef] = ()) -> None:
    """Tag a run with the references it read and wrote: `capo.reads.<kind>.<n>` and `capo.writes.<kind>.<n>`."""
    from mlflow.entities import RunTag

    tags: list[RunTag] = []
    for verb, refs in (("reads", reads), ("writes", writes)):
        for number, ref in enumerate(refs):
            tags.append(RunTag(f"capo.{verb}.{ref.kind}.{number:03d}", str(ref)))
    for start in range(0, len(tags), 100):
        tracking_client().log_batch(run_id, tags=tags[start : start + 100])


def log_metrics(run_id: str, metrics: Mapping[str, float]) -> None:
    """Log each figure once."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    items = [Metric(name, value, now, 0) for name, value in metrics.items()]
    for start in range(0, len(items), 1000):
        tracking_client().log_batch(run_id, metrics=items[start : start + 1000])


def log_training(run_id: str, log: pl.DataFrame) -> None:
    """Log a TRAINING_LOG frame as metric histories named `<split>/<metric>`."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    items = [
        Metric(f"{row['split']}/{row['metric']}", row["value"], now, row["step"])
        for row in log.iter_rows(named=True)
        if row["value"] is not None
    ]
    for start in range(0, len(items), 1000):
        tracking_client().log_batch(run_id, metrics=items[start : start + 1000])


def log_file(run_id: str, path: Path) -> None:
    """Attach a file to a run."""
    tracking_client().log_artifact(run_id, str(path))


def finish_run(run_id: str, *, failed: bool = False) -> None:
    """Close a run as finished or failed."""
    tracking_client().set_terminated(run_id, status="FAILED" if failed else "FINISHED")


def _log_params(run_id: str, config: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in flatten_keys(config).items()]
    for start in range(0, len(params), 100):
        tracking_client().log_batch(run_id, params=params[start : start + 100])


def log_summary(run_id: str, evaluation: ArtifactRef) -> None:
    """Log an evaluation's figures over all annotators to a run."""
    metrics = ArtifactStore().read_table(evaluation).filter(pl.col("annotator_id") == "all")
    log_metrics(run_id, name_figures(metrics))


def name_figures(metrics: pl.DataFrame) -> dict[str, float]:
    """Return a METRICS frame's values by `method/metric/decision/condition/classifier/k<size>`, if measured.

    MLflow refuses `+` in a name, so `shared_words_masked+surface` becomes `shared_words_masked:surface`.
    """
    figures = {}
    for row in metrics.iter_rows(named=True):
        parts = [row["method"], row["metric"], row["decision"], row["condition"], row["classifier"]]
        parts.append(None if row["group_size"] is None else f"k{row['group_size']}")
        if row["value"] is not None:
            figures["/".join(part for part in parts if part is not None).replace("+", ":")] = row["value"]
    return figures
