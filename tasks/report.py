"""One self-contained page on everything a run did and found."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path

import polars as pl

from capo_core.report import ReportData, StyleData, render_report
from capo_core.versions import library_versions
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.frames import RETENTION, VALUE_PROFILES, empty
from tasks.artifact_store import ArtifactStore, write_file_atomically
from tasks.home import capo_home
from tasks.step import Step, step

REPORT_FILE = "report.html"


@step("report", version=2)
def write_report(
    step: Step,
    config: ExperimentConfig,
    annotations: ArtifactRef,
    corpus: ArtifactRef,
    agreement: ArtifactRef,
    convergence: ArtifactRef,
    stability: ArtifactRef,
    style: ArtifactRef,
    preferences: list[ArtifactRef],
    adapters: list[ArtifactRef],
    retention: list[ArtifactRef],
    value_profiles: list[ArtifactRef],
    generations: list[ArtifactRef],
    evaluation: ArtifactRef,
    verdicts: list[ArtifactRef],
    ratings: ArtifactRef | None,
) -> ArtifactRef:
    """Return the page as an artifact."""
    analyses, trained = [agreement, convergence, stability, style], [*preferences, *adapters, *retention]
    answered = [*value_profiles, *generations, evaluation, *verdicts, *([ratings] if ratings else [])]
    data = ReportData(
        config=config,
        annotations_counts=step.store.metadata(annotations)["counts"],
        quarantine=step.read(annotations, "quarantine.parquet"),
        corpus=step.read(corpus),
        **_read_analyses(step, agreement, convergence, stability),
        style=_read_style(step, style),
        training_logs=[_read_training(step, adapter) for adapter in adapters],
        pair_counts=_count_pairs(step, preferences),
        **_read_evaluation(step, evaluation),
        retention=step.read_all(retention) if retention else empty(RETENTION),
        value_profiles=step.read_all(value_profiles) if value_profiles else empty(VALUE_PROFILES),
        judge_metrics=step.read_all(verdicts, "metrics.parquet") if verdicts else None,
        generations=step.read_all(generations),
        ratings_metrics=step.read(ratings, "metrics.parquet") if ratings else None,
        provenance={
            "artifacts": _name_artifacts([annotations, corpus, *analyses, *trained, *answered]),
            "versions": {**library_versions(), "prefect": version("prefect"), "polars": version("polars")},
            "capo_version": version("capo"),
            "command": "capo run CONFIG.yaml, with the configuration below",
        },
    )
    page = render_report(data)

    def fill(folder: Path) -> None:
        (folder / REPORT_FILE).write_text(page, encoding="utf-8")

    return step.write("report", fill=fill)


def _read_analyses(
    step: Step, agreement: ArtifactRef, convergence: ArtifactRef, stability: ArtifactRef
) -> dict[str, pl.DataFrame]:
    """Return the tables on agreement, convergence and stability by their name in the report."""
    return {
        "agreement": step.read(agreement),
        "item_labels": step.read(agreement, "items.parquet"),
        "subjectivity": step.read(agreement, "subjectivity.parquet"),
        "convergence": step.read(convergence),
        "convergence_fits": step.read(convergence, "fits.parquet"),
        "stability": step.read(stability),
        "stability_annotators": step.read(stability, "annotators.parquet"),
    }


def _read_evaluation(step: Step, evaluation: ArtifactRef) -> dict[str, pl.DataFrame]:
    """Return the tables of an evaluation by their name in the report."""
    return {
        "metrics": step.read(evaluation),
        "comparisons": step.read(evaluation, "comparisons.parquet"),
        "style_distances": step.read(evaluation, "style_distances.parquet"),
        "cross_attribution": step.read(evaluation, "cross_attribution.parquet"),
        "exclusions": step.read(evaluation, "exclusions.parquet"),
    }


def _read_style(step: Step, style: ArtifactRef) -> StyleData:
    """Return the tables on named features of style."""
    return StyleData(
        features=step.read(style),
        reliability=step.read(style, "reliability.parquet"),
        annotators=step.read(style, "annotators.parquet"),
        words=step.read(style, "words.parquet"),
        examples=step.read(style, "examples.parquet"),
    )


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
