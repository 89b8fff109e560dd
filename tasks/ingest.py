"""Raw files → annotations and quarantine → corpus with splits; later files → batches → the corpus's next version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from capo_core.batches.extending import add_counts, extend_corpus
from capo_core.corpora import BatchContent, read_batch, read_corpus
from capo_core.errors import CorpusError
from capo_core.quality import count_explanations_in_train, require_annotators
from capo_core.splits import assign_splits
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.config import SplitConfig, TaskSpec
from schemas.people import NamingRule
from tasks.people import open_naming
from tasks.step import Step, step


@step("ingest", version=2)
def ingest_annotations(
    step: Step,
    sources: list[SourceFile],
    annotators_source: SourceFile | None,
    corpus_format: str,
    task: TaskSpec,
    naming: NamingRule | None,
) -> ArtifactRef:
    """Return the annotations of the raw files with what was quarantined and every count.

    Nothing of an annotator's own id is stored or logged where it becomes a pseudonym: this is where files are read.
    """
    result = read_corpus(
        [Path(source.path) for source in sources],
        corpus_format,
        task,
        Path(annotators_source.path) if annotators_source else None,
        open_naming(naming),
    )
    step.logger.info("ingest: %s", _describe_counts(result.counts))
    step.log_metrics({name: float(count) for name, count in result.counts.items()})
    return step.write(
        "annotations",
        {"data.parquet": result.annotations, "quarantine.parquet": result.quarantine},
        metadata={
            "counts": result.counts,
            "sources": [source.cache_identity() for source in sources],
            "named_by": _named_by(naming),
        },
    )


@step("split", version=2)
def split_corpus(step: Step, annotations: ArtifactRef, max_items: int | None, splits: SplitConfig) -> ArtifactRef:
    """Return the corpus: annotations of the sampled items, each item in one split."""
    frame = step.read(annotations)
    require_annotators(frame)
    split = assign_splits(frame, splits, max_items)
    return _write_corpus(step, split, version=1, changed_in=dict.fromkeys(split["annotator_id"].unique(), 1))


@step("batch", version=2)
def read_batch_file(
    step: Step,
    source: SourceFile,
    annotators_source: SourceFile | None,
    corpus_format: str,
    task: TaskSpec,
    naming: NamingRule | None,
) -> ArtifactRef:
    """Return what a later file says about a corpus: annotations, withdrawals and what was quarantined."""
    annotators_path = Path(annotators_source.path) if annotators_source else None
    found = read_batch(Path(source.path), corpus_format, task, annotators_path, open_naming(naming))
    step.logger.info("batch %s: %s", source.name, _describe_counts(found.counts))
    tables = {
        "data.parquet": found.annotations,
        "withdrawals.parquet": found.withdrawals,
        "quarantine.parquet": found.quarantine,
    }
    about = {"counts": found.counts, "sources": [source.cache_identity()], "named_by": _named_by(naming)}
    return step.write("batch", tables, metadata=about)


@step("extend", version=2)
def take_batch_in(
    step: Step, annotations: ArtifactRef, corpus: ArtifactRef, batch: ArtifactRef, splits: SplitConfig, version: int
) -> tuple[ArtifactRef, ArtifactRef]:
    """Return the annotations and the corpus of the next version; those of the version before where nothing is new.

    Raises:
        CorpusError: if the batch knows the annotators under other names: it was read with another key, or with none.
    """
    said = step.store.metadata(batch)
    before = step.store.metadata(annotations)
    if said.get("named_by") != before.get("named_by"):
        raise CorpusError(
            f"version {version}: its batch was read with {said['named_by'] or 'ids kept'}, the corpus with "
            f"{before['named_by'] or 'ids kept'}, so nobody is recognised; set corpus.annotator_ids and the key of the "
            "pseudonyms as they were when the batch was taken in"
        )
    tables = (step.read(batch, name) for name in ("data.parquet", "withdrawals.parquet", "quarantine.parquet"))
    content = BatchContent(*tables, said["counts"])
    extended = extend_corpus(step.read(annotations), step.read(corpus), content, splits, version=version)
    who = ", ".join(extended.changed) or "nobody"
    step.logger.info("version %d: %s; changed: %s", version, _describe_counts(extended.counts), who)
    if not extended.is_new:
        return annotations, corpus
    require_annotators(extended.corpus)
    quarantine = pl.concat([step.read(annotations, "quarantine.parquet"), content.quarantine, extended.refused])
    merged = step.write(
        "annotations",
        {"data.parquet": extended.annotations, "quarantine.parquet": quarantine},
        metadata={
            "counts": add_counts(before["counts"], said["counts"], extended),
            "sources": [*before["sources"], *said["sources"]],
            "named_by": before.get("named_by"),
        },
    )
    present = set(extended.corpus["annotator_id"])
    changed_in = {
        name: n for name, n in step.store.metadata(corpus)["changed_in"].items() if name in present
    } | dict.fromkeys(extended.changed, version)
    return merged, _write_corpus(step, extended.corpus, version=version, changed_in=changed_in)


def _write_corpus(step: Step, corpus: pl.DataFrame, *, version: int, changed_in: Mapping[str, int]) -> ArtifactRef:
    """Store a version of a corpus with what the flows need to know of it.

    Metadata: annotators; n_items by split; n_train, training annotations by annotator; version; changed_in, by
    annotator the version that last changed what the annotator's model is made from; n_test_explanations_in_train.
    """
    about = describe_corpus(corpus)
    n_items = about["n_items"]
    step.logger.info(
        "split: items %s; %d test explanations also stand in train", n_items, about["n_test_explanations_in_train"]
    )
    step.log_metrics({f"items_{name}": float(n) for name, n in n_items.items()})
    changes = {"version": version, "changed_in": {name: changed_in[name] for name in about["annotators"]}}
    return step.write("corpus", {"data.parquet": corpus}, metadata={**about, **changes})


def describe_corpus(corpus: pl.DataFrame) -> dict[str, Any]:
    """Return the metadata of a corpus that follow from its rows alone."""
    n_items = {name: part["item_id"].n_unique() for (name,), part in corpus.group_by("split")}
    n_train = dict(corpus.filter(split="train").group_by("annotator_id").len().iter_rows())
    annotators = sorted(corpus["annotator_id"].unique().to_list())
    return {
        "annotators": annotators,
        "n_items": dict(sorted(n_items.items())),
        "n_train": {name: n_train.get(name, 0) for name in annotators},
        "n_test_explanations_in_train": count_explanations_in_train(corpus),
    }


def _named_by(naming: NamingRule | None) -> str | None:
    """Return which key the annotators' names come from, None where they are those of the files."""
    return None if naming is None or naming.annotator_ids == "keep" else naming.key_id


def _describe_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if n)
