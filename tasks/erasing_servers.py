"""What MLflow and Prefect know of artifacts that are erased: runs, registered versions, traces, files, logs.

Runs and versions are deleted for real where the database is this machine's own, as `mlflow gc` does, and the file is
written anew, so that nothing stays in pages that are only marked as free. Of a server, deleted things are gone from
sight only; `left_to_gc` names what whoever runs it has to collect.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks import tracking
from tasks.registry import Version, list_versions

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class ErasedRuns:
    """What was deleted in MLflow.

    Attributes:
        versions: of registered models, as they were.
        n_runs: deleted runs.
        flow_run_ids: of Prefect, whose runs they were.
        left_to_gc: ids of runs and models that a server still has, marked as deleted.
    """

    versions: tuple[Version, ...] = ()
    n_runs: int = 0
    flow_run_ids: tuple[str, ...] = ()
    left_to_gc: tuple[str, ...] = ()


def erase_from_mlflow(refs: Collection[str]) -> ErasedRuns:
    """Delete every run and registered version that names one of the artifacts, and return what was deleted.

    Args:
        refs: artifacts, as text.
    """
    if not tracking.has_store():
        return ErasedRuns()
    client, wanted = tracking.tracking_client(), set(refs)
    versions = [version for version in list_versions() if str(version.adapter) in wanted]
    for version in versions:
        # First, because who is cut short after this finds the files by the version.
        _delete_files(client.get_logged_model(version.model_id).artifact_location)
        for tag in version.tags:  # MLflow would keep those of a deleted version
            client.delete_model_version_tag(version.name, version.number, tag)
        client.delete_model_version(version.name, version.number)
    for name in {version.name for version in versions}:
        if not client.search_model_versions(f"name='{name}'", max_results=1):
            client.delete_registered_model(name)
    runs = [run for run in _list_runs() if not wanted.isdisjoint(run.data.tags.values())]
    for run in runs:
        _delete_run(run)
    models = [version.model_id for version in versions]
    for model_id in models:
        client.delete_logged_model(model_id)
    flow_runs = {run.data.tags[tracking.FLOW_RUN_TAG] for run in runs if tracking.FLOW_RUN_TAG in run.data.tags}
    left = _delete_for_good([run.info.run_id for run in runs], models)
    return ErasedRuns(tuple(versions), len(runs), tuple(sorted(flow_runs)), left)


def _list_runs() -> Iterator[Any]:
    from mlflow.entities import ViewType

    client = tracking.tracking_client()
    found = tracking.read_pages(lambda **page: client.search_experiments(view_type=ViewType.ALL, **page))
    experiments = [one.experiment_id for one in found]
    if experiments:
        yield from tracking.read_pages(
            lambda **page: client.search_runs(experiments, run_view_type=ViewType.ALL, **page)
        )


def _delete_run(run: Any) -> None:
    """Delete a run with its files, traces and tags: a server keeps those of a run that is only marked as deleted.

    Tags that name artifacts stay: they are how an erasure that was cut short finds the run again, and say nothing.
    """
    client, run_id = tracking.tracking_client(), run.info.run_id
    _delete_traces(run)
    _delete_files(run.info.artifact_uri)
    if run.info.lifecycle_stage != "active":
        return
    for tag in run.data.tags:
        if tag == "mlflow.runName":
            client.set_tag(run_id, tag, "erased")
        elif not tag.startswith("mlflow.") and not run.data.tags[tag].startswith("capo:"):
            client.delete_tag(run_id, tag)
    client.delete_run(run_id)


def _delete_files(location: str) -> None:
    """Delete the files of a run or a model where they are kept, through the server if they are kept behind it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(location, tracking_uri=tracking.tracking_uri()).delete_artifacts()


def _delete_traces(run: Any) -> None:
    """Delete the calls to judges that were recorded under a run: they hold what was asked and answered."""
    client, experiment = tracking.tracking_client(), run.info.experiment_id
    while found := client.search_traces(
        locations=[experiment], run_id=run.info.run_id, max_results=100, include_spans=False
    ):
        client.delete_traces(experiment, trace_ids=[trace.info.trace_id for trace in found])


def _delete_for_good(run_ids: list[str], model_ids: list[str]) -> tuple[str, ...]:
    """Delete what is marked as deleted from a database of this machine; return what a server keeps in its own."""
    uri = tracking.tracking_uri()
    if not uri.startswith(_SQLITE):
        return (*run_ids, *model_ids)
    from mlflow.tracking._tracking_service.utils import _get_store

    store = _get_store(uri)
    for model_id in model_ids:
        store._hard_delete_logged_model(model_id)
    for run_id in run_ids:
        store._hard_delete_run(run_id)
    _rewrite(Path(uri.removeprefix(_SQLITE)))
    return ()


def erase_from_prefect(flow_run_ids: Iterable[str]) -> int:
    """Delete flow runs with their task runs, logs and what they showed in the UI; return how many there were."""
    n_deleted = 0
    with get_client(sync_client=True) as client:
        for flow_run_id in map(UUID, flow_run_ids):
            shown = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
            while artifacts := client.read_artifacts(artifact_filter=shown):
                for artifact in artifacts:
                    client.delete_artifact(artifact.id)
            try:
                client.delete_flow_run(flow_run_id)
                n_deleted += 1
            except ObjectNotFound:
                continue  # of another server, or deleted before
    url = get_current_settings().server.database.connection_url
    text = "" if url is None else url.get_secret_value()
    if text.startswith("sqlite+aiosqlite:///") and Path(path := text.partition(":///")[2]).is_file():
        _rewrite(Path(path))
    return n_deleted


def _rewrite(database: Path) -> None:
    """Write a database anew without what was deleted from it.

    Raises:
        sqlite3.OperationalError: if another process keeps it locked for a minute.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
