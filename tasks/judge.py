"""A language model's verdicts on who wrote a group of explanations."""

from __future__ import annotations

from typing import Any

import polars as pl

from capo_core.judging.attribution import collect_verdicts, summarise_verdicts
from capo_core.judging.endpoint_backend import OpenAIJudgeBackend
from capo_core.judging.local_backend import LocalJudgeBackend
from capo_core.judging.questions import build_questions
from capo_core.models import load_policy, load_tokenizer
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import TaskSpec
from schemas.frames import GENERATIONS, empty
from schemas.judge import JudgeConfig, OpenAIJudge
from schemas.training import ModelConfig
from tasks.step import Step, step
from tasks.tracking import name_figures


@step("judge", version=2, uses_models=True)
def judge_method(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    method: str,
    judge_base: ModelRef | None,
    model: ModelConfig | None,
    task: TaskSpec,
    judge: JudgeConfig,
    seeds: list[int],
) -> ArtifactRef:
    """Return the verdicts on one method's groups (`human`: the people's own, with their shuffled control)."""
    frame = step.read(corpus)
    generated = step.read_all(generations) if generations else empty(GENERATIONS)
    questions = build_questions(frame, generated, task, judge)
    verdicts = collect_verdicts(questions, _open_backend(judge, judge_base, model), step.progress)
    annotators = sorted(frame["annotator_id"].unique().to_list())
    metrics = summarise_verdicts(verdicts, judge, annotators, seeds=seeds)
    step.log_metrics(name_figures(metrics.filter(pl.col("annotator_id") == "all")))
    return step.write("verdicts", {"data.parquet": verdicts, "metrics.parquet": metrics}, metadata={"method": method})


def _open_backend(judge: JudgeConfig, base: ModelRef | None, model: ModelConfig | None) -> Any:
    """Return the judge that the configuration names."""
    if isinstance(judge.backend, OpenAIJudge):
        return OpenAIJudgeBackend(judge.backend)
    if base is None or model is None:
        raise ValueError("a local judge needs a model")
    return LocalJudgeBackend(
        load_policy(base, model, None), load_tokenizer(base), judge.backend.batch_size, name=base.id
    )
