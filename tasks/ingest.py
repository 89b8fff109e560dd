"""Raw files → annotations and quarantine → corpus with splits; later files → batches → the corpus's next version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from capo_core.batches.extending import add_counts, extend_corpus
from capo_core.corpora import BatchContent, read_batch, read_corpus
from capo_core.quality import count_explanations_in_train, require_annotators
from capo_core.splits import assign_splits
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.config import SplitConfig, TaskSpec
from tasks.step import Step, step


@step("ingest", version=1)
def ingest_annotations(
    step: Step,
    sources: list[SourceFile],
    annotators_source: SourceFile | None,
    corpus_format: str,
    task: TaskSpec,
) -> ArtifactRef:
    """Return the annotations of the raw files with what was quarantined and every count."""
    result = read_corpus(
        [Path(source.path) for source in sources],
        corpus_format,
        task,
        Path(annotators_source.path) if annotators_source else None,
    )
    step.logger.info("ingest: %s", _describe_counts(result.counts))
    step.log_metrics({name: float(count) for name, count in result.counts.items()})
    return step.write(
        "annotations",
        {"data.parquet": result.annotations, "quarantine.parquet": result.quarantine},
        metadata={"counts": result.counts, "sources": [source.cache_identity() for source in sources]},
    )


@step("split", version=2)
def split_corpus(step: Step, annotations: ArtifactRef, max_items: int | None, splits: SplitConfig) -> ArtifactRef:
    """Return the corpus: annotations of the sampled items, each item in one split."""
    frame = step.read(annotations)
    require_annotators(frame)
    split = assign_splits(frame, splits, max_items)
    return _write_corpus(step, split, version=1, changed_in=dict.fromkeys(split["annotator_id"].unique(), 1))


@step("batch", version=1)
def read_batch_file(
    step: Step, source: SourceFile, annotators_source: SourceFile | None, corpus_format: str, task: TaskSpec
) -> ArtifactRef:
    """Return what a later file says about a corpus: annotations, withdrawals and what was quarantined."""
    found = read_batch(
        Path(source.path), corpus_format, task, Path(annotators_source.path) if annotators_source else None
    )
    step.logger.info("batch %s: %s", source.name, _describe_counts(found.counts))
    tables = {
        "data.parquet": found.annotations,
        "withdrawals.parquet": found.withdrawals,
        "quarantine.parquet": found.quarantine,
    }
    return step.write("batch", tables, metadata={"counts": found.counts, "sources": [source.cache_identity()]})


@step("extend", version=1)
def take_batch_in(
    step: Step, annotations: ArtifactRef, corpus: ArtifactRef, batch: ArtifactRef, splits: SplitConfig, version: int
) -> tuple[ArtifactRef, ArtifactRef]:
    """Return the annotations and the corpus of the next version; those of the version before where nothing is new."""
    said = step.store.metadata(batch)
    before = step.store.metadata(annotations)
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
    n_items = {name: part["item_id"].n_unique() for (name,), part in corpus.group_by("split")}
    n_train = dict(corpus.filter(split="train").group_by("annotator_id").len().iter_rows())
    n_leaked = count_explanations_in_train(corpus)
    step.logger.info(
        "split: items %s; %d test explanations also stand in train", dict(sorted(n_items.items())), n_leaked
    )
    step.log_metrics({f"items_{name}": float(n) for name, n in n_items.items()})
    annotators = sorted(corpus["annotator_id"].unique().to_list())
    return step.write(
        "corpus",
        {"data.parquet": corpus},
        metadata={
            "annotators": annotators,
            "n_items": dict(sorted(n_items.items())),
            "n_train": {name: n_train.get(name, 0) for name in annotators},
            "n_test_explanations_in_train": n_leaked,
            "version": version,
            "changed_in": {name: changed_in[name] for name in annotators},
        },
    )


def _describe_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()) if n)
