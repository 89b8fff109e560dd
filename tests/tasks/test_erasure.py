"""What descends from a person, over lineage records made by hand; whole runs are in tests/flows/test_people.py."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from capo_core.batches.erasing import erase_from_batch
from capo_core.corpora import read_batch
from capo_core.corpora.identities import Naming
from capo_core.errors import ConfigError, CorpusError, DamagedArtifactError, StoreError
from schemas.artifacts import ArtifactRef
from schemas.config import CorpusConfig, NominalLabels, TaskSpec
from schemas.frames import ANNOTATIONS, CORPUS, DEMONSTRATIONS, QUARANTINE, empty
from tasks.caching import FlockLockManager, results_folder
from tasks.erasure import erase_artifacts, finish_erasure, plan_erasure
from tasks.people import find_naming_rule, open_naming, read_erasures, record_erasure, resolve_annotator
from tasks.sources import annotator_secret
from tasks.storage.artifact_store import ArtifactStore

TASK = TaskSpec(
    name="t", question="Does it follow?", text_a_name="A", text_b_name="B", labels=NominalLabels(names=("yes", "no"))
)
CORPUS_CONFIG = CorpusConfig(name="c", format="table", paths=("c.csv",), annotator_ids="keep")


def _annotations(store: ArtifactStore, who: str, file: str, named_by: str | None = None) -> ArtifactRef:
    rows = [dict.fromkeys(ANNOTATIONS, "x") | {"annotator_id": name, "source_line": 1} for name in (who, "bob")]
    return store.write(
        "annotations",
        {"data.parquet": pl.DataFrame(rows, schema=ANNOTATIONS), "quarantine.parquet": empty(QUARANTINE)},
        metadata={"sources": [{"name": file, "sha256": "0" * 64}], "counts": {}, "named_by": named_by},
    )


def _corpus(store: ArtifactStore, text: str) -> ArtifactRef:
    row = dict.fromkeys(CORPUS, text) | {"source_line": 1}
    return store.write("corpus", {"data.parquet": pl.DataFrame([row], schema=CORPUS)})


def _demonstrations(store: ArtifactStore, who: str) -> ArtifactRef:
    row = ("i", who, "yes", "train", [{"role": "user", "content": who}], [{"role": "assistant", "content": who}])
    frame = pl.DataFrame([row], schema=DEMONSTRATIONS, orient="row")
    return store.write("demonstrations", {"data.parquet": frame}, metadata={"annotator_id": who})


def _record(store: ArtifactStore, key: str, reads: list[ArtifactRef], writes: list[ArtifactRef]) -> None:
    written = [str(ref) for ref in writes]
    record = {
        "step": key, "version": 1, "key": key, "config": {}, "reads": [str(ref) for ref in reads], "writes": written,
        "returns": written, "seconds": 1.0,
    }  # fmt: skip
    store.record_lineage(key, record)
    results_folder().mkdir(parents=True, exist_ok=True)
    (results_folder() / key).write_text("{}")


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    return ArtifactStore()


def test_descendants_go_and_what_is_made_of_others_alone_stays(store: ArtifactStore) -> None:
    annotations, elsewhere = _annotations(store, "ann", "c.csv"), _annotations(store, "ann", "other.csv")
    corpus, own, others = _corpus(store, "ann and bob"), _demonstrations(store, "ann"), _demonstrations(store, "bob")
    released = _demonstrations(store, "a name of a release")  # which may be the person's
    adapter_of_ann, adapter_of_bob, both = (_corpus(store, text) for text in ("adapter 1", "adapter 2", "capo of bob"))
    for key, reads, made in (
        ("ingest", [], annotations), ("split", [annotations], corpus), ("own", [corpus], own),
        ("others", [corpus], others),
        ("released", [corpus], released),
        ("sft-ann", [own], adapter_of_ann), ("sft-bob", [others], adapter_of_bob),
        ("capo-bob", [corpus, adapter_of_bob], both), ("ingest-other", [], elsewhere),
    ):  # fmt: skip
        _record(store, key, reads, [made])
    report = store.home / "reports" / "c.html"
    report.parent.mkdir()
    report.write_bytes((store.path(both) / "data.parquet").read_bytes())
    (store.home / "scratch" / "half").mkdir(parents=True)

    plan = plan_erasure(CORPUS_CONFIG, "ann")
    assert plan.refs == {str(ref) for ref in (annotations, corpus, own, released, adapter_of_ann, both)}
    assert plan.keys == {"ingest", "split", "own", "others", "released", "sft-ann", "capo-bob"}
    assert erase_artifacts(plan) == [report]
    listed = finish_erasure(plan).read_text(encoding="utf-8").splitlines()
    assert listed[2:] == sorted(plan.keys)

    for ref in (elsewhere, others, adapter_of_bob):
        store.verify(ref)
    for ref in map(ArtifactRef.parse, plan.refs):
        with pytest.raises(DamagedArtifactError):
            store.verify(ref)
    assert store.computations.keys() == ["ingest-other", "sft-bob"]
    assert {path.name for path in results_folder().iterdir()} >= {"ingest-other", "sft-bob"}
    assert not plan.keys & {path.name for path in results_folder().iterdir()}
    assert not list((store.home / "scratch").iterdir())


def test_an_erasure_that_was_cut_short_is_finished_by_the_next(store: ArtifactStore) -> None:
    annotations, corpus = _annotations(store, "ann", "c.csv"), _corpus(store, "ann")
    _record(store, "ingest", [], [annotations])
    _record(store, "split", [annotations], [corpus])
    planned = plan_erasure(CORPUS_CONFIG, "ann")
    # killed: the annotations are gone, and with them the way to the corpus
    shutil.rmtree(store.path(annotations))
    store.computations.path("split").unlink()
    again = plan_erasure(CORPUS_CONFIG, "ann")
    assert (again.refs, again.keys) == (planned.refs, planned.keys)
    erase_artifacts(again)
    finish_erasure(again)
    assert not store.path(corpus).exists()
    assert plan_erasure(CORPUS_CONFIG, "ann").refs == set()


def test_shared_artifacts_are_erased_at_the_url_and_copies_on_every_machine_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("CAPO_ARTIFACTS", (tmp_path / "shared").as_uri())
    monkeypatch.setenv("CAPO_ANNOTATORS_KEY", os.urandom(32).hex())

    def at(machine: str) -> ArtifactStore:
        monkeypatch.setenv("CAPO_HOME", str(tmp_path / machine))
        return ArtifactStore()

    def what_is_said(folder: Path) -> list[str]:
        """Return the Parquet files below a folder that hold the person's words."""
        tables = folder.rglob("*.parquet")
        return [str(path) for path in tables if "words of ann" in pl.read_parquet(path).write_json()]

    here = at("here")
    annotations, corpus = _annotations(here, "ann", "c.csv"), _corpus(here, "words of ann")
    others = _demonstrations(here, "bob")
    for key, reads, made in (("ingest", [], annotations), ("split", [annotations], corpus), ("rest", [corpus], others)):
        _record(here, key, reads, [made])
        assert here.remote is not None
        here.remote.create_record(key, here.computations.read(key))
    there = at("there")
    for ref in (annotations, corpus, others):
        there.verify(ref)
    assert [record["key"] for record in there.lineage()] == ["ingest", "rest", "split"]

    at("here")
    plan = plan_erasure(CORPUS_CONFIG, "ann")
    erase_artifacts(plan)
    finish_erasure(plan)
    assert what_is_said(tmp_path / "shared") == what_is_said(tmp_path / "here") == []
    assert here.remote is not None
    assert here.folders() == [("demonstrations", others.sha256)]
    assert here.remote.record_keys() == set()

    at("there")
    assert what_is_said(tmp_path / "there") != [], "nobody reaches the copies of another machine"
    plan = plan_erasure(CORPUS_CONFIG, "ann")
    assert plan.refs == {str(annotations), str(corpus)}
    erase_artifacts(plan)
    finish_erasure(plan)
    assert what_is_said(tmp_path / "there") == []
    assert there.computations.keys() == []
    there.verify(others)


def test_nobody_is_erased_while_a_step_runs(store: ArtifactStore) -> None:
    locks = FlockLockManager()
    locks.acquire_lock("a step", "holder")
    try:
        with pytest.raises(StoreError, match="a step is running"):
            plan_erasure(CORPUS_CONFIG, "ann")
    finally:
        locks.release_lock("a step", "holder")
    assert read_erasures("c") == []


def test_a_batch_without_a_person_says_nothing_of_the_person(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text(
        "item_id,text_a,text_b,annotator_id,label,explanation,reviewed_by\n"
        "1,Rain.,Wet.,Alice,yes,words of hers,\n1,Rain.,Wet.,Bob,no,words of his,Alice\n"
        "2,Sun.,Dry.,Alice,perhaps,hers,\n3,hers\n",
        encoding="utf-8",
    )
    batch = read_batch(path, "table", TASK)
    naming = Naming("c", bytes(32))
    erased = erase_from_batch(
        batch, "Alice", Naming("c", bytes(32), keeps_ids=True, erased=frozenset({naming.pseudonym("Alice")}))
    )
    kept = "".join(
        table.write_json() for table in (erased.annotations, erased.withdrawals, erased.quarantine)
    ) + json.dumps(erased.counts)
    assert "Alice" not in kept
    assert "hers" not in kept
    assert erased.annotations["annotator_id"].to_list() == ["Bob"]
    counts = erased.counts
    assert (counts["rows_in"], counts["rows_accepted"], counts["rows_quarantined"], counts["rows_erased"]) == (
        4,
        1,
        1,
        2,
    )


def test_the_list_of_erased_people_holds_pseudonyms_and_is_respected(home: Path) -> None:
    assert find_naming_rule(CORPUS_CONFIG) is None
    pseudonym = Naming("c", annotator_secret()).pseudonym("ann")
    record_erasure("c", pseudonym)
    rule = find_naming_rule(CORPUS_CONFIG)
    assert rule is not None
    assert rule.erased == (pseudonym,)
    naming = open_naming(rule)
    assert naming is not None
    assert naming.is_erased("ann")
    assert naming.name("bob") == "bob"
    (entry,) = (home / "erasures" / "c").iterdir()
    assert "ann" not in json.loads(entry.read_text())["pseudonym"].removeprefix("annotator-")
    entry.write_text("{}")
    with pytest.raises(CorpusError, match="restore it from a backup"):
        find_naming_rule(CORPUS_CONFIG)


def test_another_key_is_an_error_and_not_another_set_of_people(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CORPUS_CONFIG.model_copy(update={"annotator_ids": "pseudonymise"})
    rule = find_naming_rule(config)
    record_erasure("c", "annotator-0123456789")
    monkeypatch.setenv("CAPO_ANNOTATORS_KEY", os.urandom(32).hex())
    with pytest.raises(CorpusError, match=r"keys/annotators\.key \(or CAPO_ANNOTATORS_KEY\)"):
        open_naming(rule)
    with pytest.raises(CorpusError, match="1 people were erased with key"):
        find_naming_rule(config)
    monkeypatch.setenv("CAPO_ANNOTATORS_KEY", "no key")
    with pytest.raises(ConfigError, match="CAPO_ANNOTATORS_KEY: is no key of 32 bytes"):
        annotator_secret()


def test_a_raw_id_is_understood_where_its_pseudonym_is_known(home: Path) -> None:
    pseudonym = Naming("c", annotator_secret()).pseudonym("ann")
    assert resolve_annotator("c", "ann", {pseudonym}) == pseudonym
    assert resolve_annotator("c", pseudonym, {pseudonym}) == pseudonym
    assert resolve_annotator("c", "ann", {"ann", pseudonym}) == "ann"
    assert resolve_annotator("c", "bob", {pseudonym}) == "bob"
