"""Erasing a person from everything capo keeps: what descends from the person's annotations, found through lineage.

The person is put on the list of erased people first, so that no run lets them in again, whatever happens next; what is
to be removed is written down before anything is, so that an erasure that was cut short is finished by the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from capo_core.batches.erasing import erase_from_batch
from capo_core.corpora import BatchContent
from capo_core.corpora.identities import Naming
from capo_core.durable_files import write_file_atomically
from capo_core.errors import DamagedArtifactError
from capo_core.hashing import hash_file
from schemas.artifacts import ArtifactRef
from schemas.config import CorpusConfig
from tasks.caching import results_folder
from tasks.corpus_history import read_history, replace_batch
from tasks.people import record_erasure
from tasks.sources import annotator_secret
from tasks.step import describe_step
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.garbage import check_nothing_runs, forget
from tasks.storage.home import capo_home

_SAYING = ("annotations", "batch")
"""Kinds of artifacts that people's words enter by."""
_FOUND = ("others", "refs", "keys", "remade")
_NOT_COPIES = ("artifacts", "lineage", "mlflow", "prefect", "keys", "erasures", "corpora", "locks", "inbox")


@dataclass
class Erasure:
    """What has to go with a person.

    Attributes:
        corpus: name of the corpus.
        pseudonym: of the person.
        names: what the person is called in stored annotations.
        others: what other people are called there.
        refs: artifacts that descend from the person's words, as text.
        keys: cache keys of the computations that wrote or read any of them.
        remade: those computations in words; what the next run makes without the person.
    """

    corpus: str
    pseudonym: str
    names: frozenset[str]
    others: set[str] = field(default_factory=set)
    refs: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    remade: set[str] = field(default_factory=set)


def plan_erasure(corpus: CorpusConfig, said: str) -> Erasure:
    """Return what descends from a person's annotations, and enter the person into the list of erased people.

    Args:
        corpus: the person is erased from.
        said: the person's pseudonym, or id in the raw files; not kept.

    Raises:
        StoreError: if a step is running.
        DamagedArtifactError: if a lineage record is damaged: its descendants would be missed.
    """
    store = ArtifactStore()
    check_nothing_runs(store)
    pseudonym = Naming(corpus.name, annotator_secret()).pseudonym(said)
    # Before ids became pseudonyms, or where they are kept, the person is there under the id of the raw files.
    plan = Erasure(corpus.name, pseudonym, frozenset({pseudonym, said}))
    records = store.computations.read_all(strict=True)
    record_erasure(corpus.name, pseudonym)
    _resume(plan)
    for ref, annotators in _find_saying(store, corpus, plan.names):
        plan.refs.add(str(ref))
        plan.others |= annotators - plan.names
    _follow(store, plan, records)
    found = {name: sorted(getattr(plan, name)) for name in _FOUND}
    write_file_atomically(_pending(plan), json.dumps(found, indent=1).encode("utf-8"))
    return plan


def erase_artifacts(plan: Erasure) -> list[Path]:
    """Remove what was planned from histories, copies, artifacts, lineage and results; return the copies removed.

    Raises:
        StoreError: if a step is running.
    """
    store = ArtifactStore()
    _rewrite_history(store, plan)
    copies = list(_find_copies(store, plan.refs))
    for path in copies:
        path.unlink()
    forget(store, plan.refs, plan.keys, results=results_folder())
    return copies


def finish_erasure(plan: Erasure) -> Path:
    """Write down what is to be remade, and return where; only now is the erasure complete."""
    report = capo_home() / "reports" / f"erased-{plan.corpus}-{plan.pseudonym}.txt"
    lines = [
        f"Erased from {plan.corpus}: {plan.pseudonym}.",
        "To be remade, by the next capo run:",
        *sorted(plan.remade),
    ]
    write_file_atomically(report, ("\n".join(lines) + "\n").encode("utf-8"))
    _pending(plan).unlink(missing_ok=True)
    return report


def _pending(plan: Erasure) -> Path:
    return capo_home() / "erasures" / plan.corpus / f"{plan.pseudonym}.pending"


def _resume(plan: Erasure) -> None:
    """Take over what an erasure of the same person that was cut short had found."""
    if _pending(plan).is_file():
        content = json.loads(_pending(plan).read_bytes())
        for name in _FOUND:
            setattr(plan, name, set(content[name]))


def _find_saying(
    store: ArtifactStore, corpus: CorpusConfig, names: frozenset[str]
) -> Iterator[tuple[ArtifactRef, set[str]]]:
    """Yield the artifacts that a person's words entered a corpus by, and who else is in them.

    Copies on this machine count too: where artifacts are shared, another machine may have erased the originals.
    A pseudonym is of one corpus. The same id may be in several, where ids are kept: then an artifact counts if it was
    read under the corpus's own files' names.
    """
    own = {Path(path).name for path in corpus.paths} | {taken.file for taken in read_history(corpus.name).batches}
    for kind, sha256 in sorted({*store.folders(), *store.kept()}):
        if kind not in _SAYING:
            continue
        ref = store.find(kind, sha256)
        metadata = store.metadata(ref)
        files = {source["name"] for source in metadata["sources"]}
        if metadata.get("named_by") is None and not files & own:
            continue
        tables = ["data.parquet", "quarantine.parquet", *(["withdrawals.parquet"] if kind == "batch" else [])]
        annotators = {who for table in tables for who in store.read_table(ref, table)["annotator_id"].drop_nulls()}
        if names & annotators:
            yield ref, annotators


def _follow(store: ArtifactStore, plan: Erasure, records: Mapping[str, dict[str, Any]]) -> None:
    """Add to a plan all that descends from its artifacts.

    Demonstrations of other people hold nothing of the person and end a line of descent: adapters made of them alone
    (SFT of one person) stay.
    """
    spared: set[str] = set()
    grows = True
    while grows:
        grows = False
        for key, record in records.items():
            made = {*record["writes"], *record["returns"]} - spared
            if not plan.refs.isdisjoint(record["reads"]):
                spared |= {ref for ref in made - plan.refs if _is_spared(store, ref, plan.others)}
                made -= spared
                grows |= not made <= plan.refs or key not in plan.keys
                plan.refs |= made
                plan.keys.add(key)
            elif not plan.refs.isdisjoint(made):
                grows |= key not in plan.keys
                plan.keys.add(key)
    steps = {describe_step(records[key]["step"], records[key]["config"]) for key in plan.keys if key in records}
    plan.remade |= steps


def _is_spared(store: ArtifactStore, text: str, others: set[str]) -> bool:
    """Return whether an artifact holds demonstrations of people who are known to be others, under their own names."""
    ref = ArtifactRef.parse(text)
    if ref.kind != "demonstrations":
        return False
    try:
        return others.issuperset(store.read_table(ref)["annotator_id"])
    except DamagedArtifactError:
        return False


def _rewrite_history(store: ArtifactStore, plan: Erasure) -> None:
    """Put batches without the person in place of those that hold words of theirs."""
    naming = Naming(plan.corpus, annotator_secret(), keeps_ids=True, erased=frozenset({plan.pseudonym}))
    for version, taken in enumerate(read_history(plan.corpus).batches, start=2):
        if str(taken.batch) not in plan.refs:
            continue
        metadata = store.metadata(taken.batch)
        batch = BatchContent(
            *(store.read_table(taken.batch, f"{name}.parquet") for name in ("data", "withdrawals", "quarantine")),
            metadata["counts"],
        )
        for name in sorted(plan.names):
            batch = erase_from_batch(batch, name, naming)
        tables: dict[str, pl.DataFrame] = {
            "data.parquet": batch.annotations,
            "withdrawals.parquet": batch.withdrawals,
            "quarantine.parquet": batch.quarantine,
        }
        kept = store.write("batch", tables, metadata={**metadata, "counts": batch.counts})
        replace_batch(plan.corpus, version, taken.model_copy(update={"batch": kept}))


def _find_copies(store: ArtifactStore, refs: set[str]) -> Iterator[Path]:
    """Yield files of capo's home that are copies of an artifact's: reports, validation sheets, tables of results."""
    digests = set()
    for ref in map(ArtifactRef.parse, refs):
        try:
            digests |= {entry.sha256 for entry in store.verify(ref).files.values()}
        except DamagedArtifactError:
            continue  # removed by an erasure that was cut short, or damaged and removed as it is
    for path in sorted(store.home.rglob("*")):
        place = path.relative_to(store.home).parts[0]
        if place not in _NOT_COPIES and path.is_file() and hash_file(path) in digests:
            yield path
