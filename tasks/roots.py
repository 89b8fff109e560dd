"""What must stay in the artifact store: what the cache answers with, and what people can still ask for by name."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import tasks
from schemas.artifacts import ArtifactRef
from tasks import tracking
from tasks.corpus_history import list_corpora, read_history
from tasks.step import STEP_VERSIONS
from tasks.storage.artifact_store import ArtifactStore


def find_roots(store: ArtifactStore, *, keep_results: bool = True) -> set[ArtifactRef]:
    """Return the artifacts that corpus histories, runs and registered versions in MLflow name, and current results.

    Args:
        store: whose lineage records are read.
        keep_results: whether what the cache can still answer with stays, though nothing else names it.

    Raises:
        DamagedArtifactError: if a lineage record is damaged.
        MlflowException: if MLflow cannot be asked; nothing may be collected then.
    """
    found = {taken.batch for corpus in list_corpora() for taken in read_history(corpus).batches}
    if tracking.has_store():
        found |= set(_find_named_in_mlflow())
    if keep_results:
        versions = declared_versions()
        for record in store.computations.read_all(strict=True).values():
            if is_current(record, versions):
                names = (*record["reads"], *record["writes"], *record["returns"])
                found |= {ArtifactRef.parse(text) for text in names}
    return found


def is_current(record: Mapping[str, Any], versions: Mapping[str, int]) -> bool:
    """Return whether the cache can still answer with a computation: its step is there, at the version it had."""
    return versions.get(record["step"]) == record["version"]


def declared_versions() -> dict[str, int]:
    """Return the version of every step there is."""
    for module in pkgutil.iter_modules(tasks.__path__):
        import_module(f"tasks.{module.name}")
    return dict(STEP_VERSIONS)


def _find_named_in_mlflow() -> Iterator[ArtifactRef]:
    """Yield every artifact that a tag of a run or of a version of a registered model names; deleted runs name nothing.

    Flow runs name what they made, step runs what they read and wrote, versions their adapter, corpus and evaluation.
    """
    client = tracking.tracking_client()
    experiments = [experiment.experiment_id for experiment in tracking.read_pages(client.search_experiments)]
    for run in tracking.read_pages(lambda **page: client.search_runs(experiments, **page)) if experiments else ():
        yield from _read_tags(run.data.tags)
    for version in tracking.read_pages(client.search_model_versions):
        yield from _read_tags(version.tags)


def _read_tags(tags: Mapping[str, str]) -> Iterator[ArtifactRef]:
    for name, value in tags.items():
        if name.startswith("capo.") and value.startswith("capo:"):
            yield ArtifactRef.parse(value)
