"""What led to an artifact: the computations that wrote it and everything it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore


def trace_lineage(store: ArtifactStore, refs: Iterable[ArtifactRef]) -> list[dict[str, Any]]:
    """Return the lineage record of every computation that led to the artifacts, theirs included, sorted by key.

    Of several computations with the same outcome the one of the highest step version stands, then by key.
    """
    writers: dict[str, dict[str, Any]] = {}
    for record in sorted(store.lineage(), key=lambda record: (record["version"], record["key"])):
        writers |= dict.fromkeys(record["writes"], record)
    found: dict[str, dict[str, Any]] = {}
    open_refs = [str(ref) for ref in refs]
    while open_refs:
        record = writers.get(open_refs.pop())
        if record is not None and record["key"] not in found:
            found[record["key"]] = record
            open_refs += record["reads"]
    return [found[key] for key in sorted(found)]
