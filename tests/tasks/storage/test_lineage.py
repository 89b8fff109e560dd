"""What led to an artifact is found through all steps before it, each computation once."""

from __future__ import annotations

from pathlib import Path

from schemas.frames import RETENTION, empty
from tasks.report import read_timings
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.lineage import trace_lineage


def test_every_step_before_an_artifact_is_found_once_and_strangers_are_not(home: Path) -> None:
    store = ArtifactStore()
    tables = {"data.parquet": empty(RETENTION)}
    first, second, last, other = (store.write("retention", tables, metadata={"n": n}) for n in range(4))
    for key, version, reads, writes, seconds in (
        ("a", 1, [], first, 1.0),
        ("b", 1, [first], second, 2.0),
        ("c", 1, [first, second], last, 4.0),
        ("d", 1, [], other, 8.0),
        # The same outcome computed by a later version of the step: that one stands.
        ("e", 2, [], first, 16.0),
    ):
        record = {"step": f"step-{key}", "version": version, "key": key, "config": {"seed": 13}, "seconds": seconds}
        store.record_lineage(key, {**record, "reads": [str(ref) for ref in reads], "writes": [str(writes)]})
    assert [record["key"] for record in trace_lineage(store, [last])] == ["b", "c", "e"]
    timings = read_timings(store, [last, second])
    assert timings["seconds"].sum() == 2 + 4 + 16
    assert timings["label"].to_list() == ["step-b seed 13", "step-c seed 13", "step-e seed 13"]
