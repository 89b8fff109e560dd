"""What other machines have computed, by cache key: the lineage records beside the shared artifacts.

A record is written when a computation is finished and its artifacts are uploaded, and only if there is none: the
first one finished stands for its key, and who finished later returns the same references, so that everything
downstream has the same keys on every machine. A record whose artifacts are not whole stands for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from capo_core.errors import DamagedArtifactError
from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.remote_artifacts import RemoteArtifacts

Result = ArtifactRef | tuple[ArtifactRef, ...]
Logger = logging.Logger | logging.LoggerAdapter


def load_result(store: ArtifactStore, texts: list[str]) -> Result:
    """Return the reference, or the tuple of several, that was written as text; all of whole artifacts.

    Raises:
        ValueError: if a text is no reference.
        DamagedArtifactError: if an artifact is missing or damaged.
    """
    refs = tuple(ArtifactRef.parse(text) for text in texts)
    for ref in refs:
        store.verify(ref)
        store.share(ref)
    return refs[0] if len(refs) == 1 else refs


def recall(store: ArtifactStore, key: str, logger: Logger) -> Result | None:
    """Return what a finished computation with this key returned on any machine, None if there is nothing whole.

    Its artifacts and its lineage are here afterwards.
    """
    try:
        record = _read_record(store, key)
        if record is None:
            return None
        result = load_result(store, record["returns"])
    except (DamagedArtifactError, ValueError, KeyError) as error:
        logger.warning("computed again: %s", error)
        return None
    store.record_lineage(key, record)
    return result


def _read_record(store: ArtifactStore, key: str) -> dict[str, Any] | None:
    if store.remote is not None:
        return store.remote.read_record(key)
    return store.computations.read(key) if store.computations.path(key).exists() else None


def settle(
    store: ArtifactStore,
    remote: RemoteArtifacts,
    key: str,
    record: Mapping[str, JsonValue],
    result: Any,
    logger: Logger,
) -> Any:
    """Return what stands for a key after a computation: its own result, or that of the machine that was first.

    Args:
        store: has the result's artifacts.
        remote: where the machines meet.
        key: the cache key.
        record: how the computation went and, under `returns`, what it returned.
        result: what it returned.
        logger: of the step.
    """
    if remote.create_record(key, record):
        return result
    first = recall(store, key, logger)
    if first is None:
        remote.replace_record(key, record)
        return result
    return first
