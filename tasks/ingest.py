"""Raw files → annotations and quarantine → corpus with splits."""

from __future__ import annotations

from pathlib import Path

from capo_core.corpora import read_corpus
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
    step.logger.info("ingest: %s", ", ".join(f"{name} {n}" for name, n in sorted(result.counts.items()) if n))
    step.log_metrics({name: float(count) for name, count in result.counts.items()})
    return step.write(
        "annotations",
        {"data.parquet": result.annotations, "quarantine.parquet": result.quarantine},
        metadata={"counts": result.counts, "sources": [source.cache_identity() for source in sources]},
    )


@step("split", version=1)
def split_corpus(step: Step, annotations: ArtifactRef, max_items: int | None, splits: SplitConfig) -> ArtifactRef:
    """Return the corpus: annotations of the sampled items, each item in one split."""
    frame = step.read(annotations)
    require_annotators(frame)
    split = assign_splits(frame, splits, max_items)
    n_items = {name: part["item_id"].n_unique() for (name,), part in split.group_by("split")}
    n_leaked = count_explanations_in_train(split)
    step.logger.info(
        "split: items %s; %d test explanations also stand in train", dict(sorted(n_items.items())), n_leaked
    )
    step.log_metrics({f"items_{name}": float(n) for name, n in n_items.items()})
    return step.write(
        "corpus",
        {"data.parquet": split},
        metadata={
            "annotators": sorted(split["annotator_id"].unique().to_list()),
            "n_items": dict(sorted(n_items.items())),
            "n_test_explanations_in_train": n_leaked,
        },
    )
