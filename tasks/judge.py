"""Language models' verdicts on groups of explanations: asking, method by method, and what it all comes to."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from capo_core.judging.backends import JudgeBackend
from capo_core.judging.calibration import attribute_groups, measure_agreement
from capo_core.judging.comparisons import compare_verdicts, count_wins
from capo_core.judging.endpoint_backend import OpenAIJudgeBackend
from capo_core.judging.figures import summarise_verdicts
from capo_core.judging.groups import keep_candidates
from capo_core.judging.journal import VerdictJournal
from capo_core.judging.local_backend import LocalJudgeBackend
from capo_core.judging.question_set import build_questions
from capo_core.judging.questions import PROMPT_VERSIONS, read_prompt
from capo_core.judging.verdicts import collect_verdicts
from capo_core.models import load_policy, load_tokenizer
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import TaskSpec
from schemas.frames import GENERATIONS, TABLES, empty
from schemas.judge import JudgeConfig, OpenAIJudge
from schemas.training import ModelConfig
from tasks.caching import compute_cache_key
from tasks.judge_traces import trace_calls
from tasks.secret_blocks import read_secret_block
from tasks.step import Step, step
from tasks.tracking import name_figures

JOURNAL_FILE = "verdicts.jsonl"
_STATUSES = ("ok", "unparseable", "failed", "not_asked")


@step("judge", version=4, uses_models=True)
def judge_method(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    method: str,
    judge_base: ModelRef | None,
    model: ModelConfig | None,
    task: TaskSpec,
    judge: JudgeConfig,
) -> ArtifactRef:
    """Return one judge's verdicts on one method's groups (`human`: the people's own, with their controls).

    `judge` names one backend, one method and the protocols that ask about a method by itself.
    """
    return _ask(step, corpus, generations, judge_base, model, task, judge, {"method": method})


@step("judge-pairs", version=2, uses_models=True)
def judge_pairs(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    judge_base: ModelRef | None,
    model: ModelConfig | None,
    task: TaskSpec,
    judge: JudgeConfig,
) -> ArtifactRef:
    """Return one judge's verdicts on pairs of methods. `judge` names one backend, and pairwise alone."""
    return _ask(step, corpus, generations, judge_base, model, task, judge, {})


@step("summarise-verdicts", version=1)
def summarise_judges(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    verdicts: list[ArtifactRef],
    task: TaskSpec,
    judge: JudgeConfig,
    seeds: list[int],
) -> ArtifactRef:
    """Return all verdicts of all judges with their figures, comparisons and agreement."""
    frame, answered = _read_candidates(step, corpus, generations, judge)
    found = step.read_all(verdicts)
    annotators = sorted(frame["annotator_id"].unique().to_list())
    metrics = summarise_verdicts(found, judge, annotators, seeds=seeds)
    attributed = {}
    if "attribution" in judge.protocols:
        attributed = attribute_groups(frame, answered, task, judge)
    tables = {
        "metrics.parquet": metrics,
        "comparisons.parquet": compare_verdicts(found, judge, annotators),
        "pairs.parquet": count_wins(found, judge, annotators, metrics),
        "agreement.parquet": measure_agreement(found, judge, attributed),
    }
    step.log_metrics(name_figures(metrics.filter(pl.col("annotator_id") == "all")))
    return step.write("verdicts", {"data.parquet": found, **tables}, metadata=_count_costs(found))


def _ask(
    step: Step,
    corpus: ArtifactRef,
    generations: list[ArtifactRef],
    base: ModelRef | None,
    model: ModelConfig | None,
    task: TaskSpec,
    judge: JudgeConfig,
    metadata: dict[str, str],
) -> ArtifactRef:
    """Return the verdicts as an artifact whose other tables are empty: figures are made of all verdicts together.

    Verdicts are journalled as they come, under a name that limits and budgets are no part of: a run that was killed,
    or whose budget is raised later, asks only what is still open.
    """
    questions = build_questions(*_read_candidates(step, corpus, generations, judge), task, judge)
    asked_of = {"judge": judge.backends[0].judge, "base": base, "model": model}
    identity = {**asked_of, "questions": [question.question_id for question in questions]}
    folder = step.store.home / "scratch" / compute_cache_key("asked", 1, identity, uses_models=True)
    folder.mkdir(parents=True, exist_ok=True)
    backend = VerdictJournal(folder / JOURNAL_FILE, _open_backend(step, judge, base, model))
    verdicts = collect_verdicts(questions, backend, step.progress)
    costs = _count_costs(verdicts)
    step.log_metrics({name: float(value) for name, value in costs.items()})
    tables = {name: empty(columns) for name, columns in TABLES["verdicts"].items()} | {"data.parquet": verdicts}

    def keep_prompts(directory: Path) -> None:
        for protocol in judge.protocols:
            (directory / f"{PROMPT_VERSIONS[protocol]}.txt").write_text(read_prompt(protocol), encoding="utf-8")

    about = {"judge": backend.name, **metadata, **costs}
    asked = step.write("verdicts", tables, fill=keep_prompts, metadata=about)
    if not costs["n_not_asked"]:
        shutil.rmtree(folder)
    return asked


def _read_candidates(
    step: Step, corpus: ArtifactRef, generations: list[ArtifactRef], judge: JudgeConfig
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return corpus and generations of those among whom a judge can choose."""
    answered = step.read_all(generations) if generations else empty(GENERATIONS)
    frame, answered, left_out = keep_candidates(step.read(corpus), answered, judge.n_references)
    if left_out:
        step.logger.warning("not judged, for want of %d references: %s", judge.n_references, ", ".join(left_out))
    return frame, answered


def _open_backend(step: Step, judge: JudgeConfig, base: ModelRef | None, model: ModelConfig | None) -> JudgeBackend:
    """Return the one judge that the configuration names."""
    (backend,) = judge.backends
    if isinstance(backend, OpenAIJudge):
        key = None if backend.api_key_block is None else read_secret_block(backend.api_key_block)
        return OpenAIJudgeBackend(backend, api_key=key, on_call=trace_calls(step.run_id))
    if base is None or model is None:
        raise ValueError("a local judge needs a model")
    return LocalJudgeBackend(load_policy(base, model, None), load_tokenizer(base), backend.batch_size, name=base.id)


def _count_costs(verdicts: pl.DataFrame) -> dict[str, int]:
    """Return the number of questions by status, of attempts and of tokens as far as known."""
    counts = {f"n_{status}": verdicts.filter(status=status).height for status in _STATUSES}
    sums = {name: int(verdicts[name].sum()) for name in ("n_attempts", "n_prompt_tokens", "n_answer_tokens")}
    return {"n_questions": verdicts.height, **counts, **sums}
