"""Generations held against the people they imitate."""

from __future__ import annotations

import polars as pl

from capo_core.evaluation import evaluate_generations
from capo_core.models import load_encoder
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import EvaluationConfig, TaskSpec
from tasks.step import Step, step
from tasks.tracking import name_figures


@step("evaluate", version=1, uses_models=True)
def evaluate_methods(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    encoder: ModelRef,
    task: TaskSpec,
    evaluation: EvaluationConfig,
) -> ArtifactRef:
    """Return every figure by method and annotator with intervals, and the paired comparisons between methods."""
    metrics, comparisons = evaluate_generations(
        step.read(corpus),
        step.read_all(generations),
        task,
        evaluation,
        load_encoder(encoder),
        progress=step.progress,
    )
    step.log_metrics(name_figures(metrics.filter(pl.col("annotator_id") == "all")))
    return step.write("evaluation", {"data.parquet": metrics, "comparisons.parquet": comparisons})
