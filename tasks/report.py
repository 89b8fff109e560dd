"""One self-contained page on everything a run did and found."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path

import polars as pl

from capo_core.report import ReportData, render_report
from capo_core.versions import library_versions
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks.artifact_store import ArtifactStore, write_file_atomically
from tasks.home import capo_home
from tasks.step import Step, step

REPORT_FILE = "report.html"


@step("report", version=1)
def write_report(
    step: Step,
    config: ExperimentConfig,
    annotations: ArtifactRef,
    corpus: ArtifactRef,
    agreement: ArtifactRef,
    stability: ArtifactRef,
    preferences: list[ArtifactRef],
    adapters: list[ArtifactRef],
    generations: list[ArtifactRef],
    evaluation: ArtifactRef,
    verdicts: list[ArtifactRef],
    ratings: ArtifactRef | None,
) -> ArtifactRef:
    """Return the page as an artifact."""
    data = ReportData(
        config=config,
        annotations_counts=step.store.metadata(annotations)["counts"],
        quarantine=step.read(annotations, "quarantine.parquet"),
        corpus=step.read(corpus),
        agreement=step.read(agreement),
        stability=step.read(stability),
        training_logs=[_read_training(step, adapter) for adapter in adapters],
        pair_counts=_count_pairs(step, preferences),
        metrics=step.read(evaluation),
        comparisons=step.read(evaluation, "comparisons.parquet"),
        judge_metrics=step.read_all(verdicts, "metrics.parquet") if verdicts else None,
        generations=step.read_all(generations),
        ratings_metrics=step.read(ratings, "metrics.parquet") if ratings else None,
        provenance={
            "artifacts": _name_artifacts(
                [
                    annotations,
                    corpus,
                    agreement,
                    stability,
                    *preferences,
                    *adapters,
                    *generations,
                    evaluation,
                    *verdicts,
                    *([ratings] if ratings else []),
                ]
            ),
            "versions": {**library_versions(), "prefect": version("prefect"), "polars": version("polars")},
            "capo_version": version("capo"),
            "command": "capo run CONFIG.yaml, with the configuration below",
        },
    )
    page = render_report(data)
    return step.write("report", fill=lambda folder: (folder / REPORT_FILE).write_text(page, encoding="utf-8") and None)


def _read_training(step: Step, adapter: ArtifactRef) -> tuple[str, str, int, pl.DataFrame]:
    metadata = step.store.metadata(adapter)
    return metadata["method"], metadata["target"], metadata["seed"], step.read(adapter, "training_log.parquet")


def _count_pairs(step: Step, preferences: list[ArtifactRef]) -> dict:
    """Return pairs by relation and drops by reason, over all annotators and for each."""
    pairs: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    by_annotator = {}
    for ref in preferences:
        metadata = step.store.metadata(ref)
        pairs.update(metadata["pairs"])
        drops.update(metadata["drops"])
        by_annotator[metadata["annotator_id"]] = sum(metadata["pairs"].values())
    return {"pairs by relation": dict(pairs), "pairs by annotator": by_annotator, "drops by reason": dict(drops)}


def _name_artifacts(refs: list[ArtifactRef]) -> dict[str, str]:
    """Return each reference under its kind, numbered where there are several."""
    totals = Counter(ref.kind for ref in refs)
    seen: Counter[str] = Counter()
    named = {}
    for ref in refs:
        seen[ref.kind] += 1
        named[ref.kind if totals[ref.kind] == 1 else f"{ref.kind} {seen[ref.kind]}"] = str(ref)
    return named


def publish_report(report: ArtifactRef, name: str) -> Path:
    """Copy the page to `<home>/reports/<name>.html`, where a browser finds it under the same name each time."""
    store = ArtifactStore()
    store.verify(report)
    path = capo_home() / "reports" / f"{name}.html"
    write_file_atomically(path, (store.path(report) / REPORT_FILE).read_bytes())
    return path
