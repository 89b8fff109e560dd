"""Generations held against the people they imitate."""

from __future__ import annotations

import polars as pl

from capo_core.evaluation import evaluate_generations
from capo_core.models import load_encoder
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import EvaluationConfig, TaskSpec
from tasks.step import Step, step
from tasks.tracking import name_figures


@step("evaluate", version=3, uses_models=True)
def evaluate_methods(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    encoder: ModelRef,
    task: TaskSpec,
    evaluation: EvaluationConfig,
) -> ArtifactRef:
    """Return every figure by method and annotator with intervals, the paired comparisons, and what was left out."""
    embed = load_encoder(encoder)
    found = evaluate_generations(
        step.read(corpus),
        step.read_all(generations),
        task,
        evaluation,
        embed,
        embed.embed_tokens,
        progress=step.progress,
    )
    means = found.metrics.filter(pl.col("annotator_id") == "all")
    step.log_metrics(name_figures(means))
    tables = {
        "data.parquet": found.metrics,
        "comparisons.parquet": found.comparisons,
        "style_distances.parquet": found.style_distances,
        "cross_attribution.parquet": found.cross_attribution,
        "exclusions.parquet": found.exclusions,
    }
    return step.write("evaluation", tables)
