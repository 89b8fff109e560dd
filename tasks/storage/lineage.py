"""What led to an artifact: the computations that wrote it and everything it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schemas.artifacts import ArtifactRef
from tasks.storage.artifact_store import ArtifactStore

Records = Mapping[str, dict[str, Any]]
"""Lineage records by cache key."""


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


def find_reachable(records: Iterable[Mapping[str, Any]], refs: Iterable[str]) -> set[str]:
    """Return the references given and all that led to them, by whichever computation.

    Args:
        records: of every computation there is.
        refs: references as text.
    """
    writers: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for ref in {*record["writes"], *record["returns"]}:
            writers.setdefault(ref, []).append(record)
    found: set[str] = set()
    open_refs = list(refs)
    while open_refs:
        ref = open_refs.pop()
        if ref not in found:
            found.add(ref)
            for record in writers.get(ref, ()):
                open_refs += [*record["reads"], *record["writes"]]
    return found
