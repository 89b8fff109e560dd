"""One self-contained page on everything a run did and found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import polars as pl
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from capo_core.durable_files import write_file_atomically
from capo_core.report import ReportData, StyleData, render_report, write_summary
from capo_core.report.data import JUDGE_USAGE, TIMINGS
from capo_core.versions import library_versions
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.frames import RETENTION, TABLES, VALUE_PROFILES, empty
from tasks.step import Step, describe_step, step
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home
from tasks.storage.lineage import trace_lineage

REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.md"


@step("report", version=6)
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
    n_left_out: dict[str, int],
) -> ArtifactRef:
    """Return the page as an artifact; `n_left_out` counts people for want of consent, by what they are left out of."""
    analyses, trained = [agreement, convergence, stability, style], [*preferences, *adapters, *retention]
    rated = [ratings] if ratings else []
    answered = [*value_profiles, *generations, evaluation, *verdicts, *rated]
    shown = [annotations, corpus, *analyses, *trained, *answered]
    data = ReportData(
        config=config,
        annotations_counts=step.store.metadata(annotations)["counts"] | n_left_out,
        quarantine=step.read(annotations, "quarantine.parquet"),
        corpus=step.read(corpus),
        **_read_analyses(step, agreement, convergence, stability),
        style=_read_style(step, style),
        training_logs=[_read_training(step, adapter) for adapter in adapters],
        pair_counts=_count_pairs(step, preferences),
        **_read_evaluation(step, evaluation),
        retention=step.read_all(retention) if retention else empty(RETENTION),
        value_profiles=step.read_all(value_profiles) if value_profiles else empty(VALUE_PROFILES),
        judge_metrics=_read_where_present(step, verdicts, "metrics.parquet"),
        judge_comparisons=_read_where_present(step, verdicts, "comparisons.parquet"),
        judge_pairs=_read_where_present(step, verdicts, "pairs.parquet"),
        judge_agreement=_read_where_present(step, verdicts, "agreement.parquet"),
        judge_usage=_sum_usage(step, verdicts),
        generations=step.read_all(generations),
        ratings_metrics=_read_where_present(step, rated, "metrics.parquet"),
        ratings_comparisons=_read_where_present(step, rated, "comparisons.parquet"),
        raters=_read_where_present(step, rated, "raters.parquet"),
        timings=read_timings(step.store, shown),
        provenance={
            "artifacts": _name_artifacts(shown),
            "versions": {**library_versions(), "prefect": version("prefect"), "polars": version("polars")},
            "capo_version": version("capo"),
            "command": "capo run CONFIG.yaml, with the configuration below",
        },
    )
    texts = {REPORT_FILE: render_report(data), SUMMARY_FILE: write_summary(data)}

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

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


def _read_where_present(step: Step, refs: Sequence[ArtifactRef], table: str) -> pl.DataFrame | None:
    """Return a table of all artifacts whose kind has it, None where none does."""
    having = [ref for ref in refs if table in TABLES[ref.kind]]
    return step.read_all(having, table) if having else None


def _sum_usage(step: Step, verdicts: Sequence[ArtifactRef]) -> pl.DataFrame | None:
    """Return questions and tokens by judge and kind of answer."""
    asked = [ref for ref in verdicts if ref.kind == "verdicts"]
    if not asked:
        return None
    # The verdicts of all judges together stand in their summary once more.
    table = step.read_all(asked).unique(["judge", "question_id"])
    # A sum over nothing known is null, not 0.
    tokens = [
        pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).cast(pl.Int64).alias(name)
        if name in table.columns
        else pl.lit(None, pl.Int64).alias(name)
        for name in ("n_prompt_tokens", "n_answer_tokens")
    ]
    counted = table.group_by("judge", "status").agg(pl.len().cast(pl.Int64).alias("n_questions"), *tokens)
    return counted.select(list(JUDGE_USAGE)).sort("judge", "status")


def read_timings(store: ArtifactStore, refs: Iterable[ArtifactRef]) -> pl.DataFrame:
    """Return a TIMINGS frame of every computation that led to the artifacts, theirs and those before them."""
    rows = [
        (record["step"], describe_step(record["step"], record["config"]), record["seconds"])
        for record in trace_lineage(store, refs)
    ]
    return pl.DataFrame(rows, schema=TIMINGS, orient="row").sort("step", "label", "seconds")


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
    """Copy the page to `<home>/reports/<name>.html`, where a browser finds it under the same name each time.

    Within a flow run the summary is shown as its artifact in Prefect, with the place of the page.
    """
    store = ArtifactStore()
    store.verify(report)
    path = capo_home() / "reports" / f"{name}.html"
    write_file_atomically(path, (store.path(report) / REPORT_FILE).read_bytes())
    if FlowRunContext.get() is not None:
        summary = (store.path(report) / SUMMARY_FILE).read_text(encoding="utf-8")
        key = re.sub("[^a-z0-9]+", "-", f"report-{name}").strip("-")
        create_markdown_artifact(f"{summary}\nThe page: `{path}`\n", key=key, description=f"Report of {name}")
    return path
