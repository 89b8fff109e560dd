"""The experiment: the line up to the evaluation for every arm of a matrix, and one table of their results.

Nothing is computed twice: arms share what is equal between them (the prompting baselines of a corpus, SFT adapters of
different pair strategies) through the cache of steps, and a run that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from capo_core.experiment_matrix import expand_arms, split_methods
from flows.fan_out import task_runner
from flows.line import Line
from flows.parts import corpus, models, verdicts
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from schemas.experiment import Arm, ExperimentMatrix
from tasks import tracking
from tasks.evaluate import evaluate_methods
from tasks.experiment import (
    collect_results,
    measure_adapter_transfer,
    narrow_to_cell,
    publish_results,
    read_headlines,
)
from tasks.fan_out import read_fan_out
from tasks.generate import generate_method
from tasks.progress import run_progress

References = dict[str, str]
Part = Callable[[Line], None]
Item = TypeVar("Item")

_BASELINES: tuple[Part, ...] = (models.describe, models.generate)
_TRAINED: tuple[Part, ...] = (corpus.pair, models.train, models.generate)


@dataclass
class _ArmRun:
    """One arm on its way: the line of its trained methods, and that of its baselines, which other arms may share."""

    arm: Arm
    line: Line
    baselines: Line | None

    def generations(self, seed: int) -> list[ArtifactRef]:
        """Return what the trained methods, or without any the baselines, generated with a seed."""
        methods = self.arm.config.generation.methods
        shown = {method for method in methods if method in ("sft", "capo")} or set(methods)
        return [
            ref
            for name, ref in self.line.artifacts.items()
            if name.startswith(tuple(f"generations/{method}/" for method in shown)) and name.endswith(f"/{seed}")
        ]


@flow(
    name="experiment",
    flow_run_name="experiment {matrix.name}",
    task_runner=task_runner(),  # type: ignore[arg-type]
    persist_result=False,
)
def experiment(matrix: ExperimentMatrix, configs: list[ExperimentConfig]) -> References:
    """Run every cell of a matrix and put their results into one table.

    `configs` are the configurations that the matrix names, in its order.
    """
    flow_run_id = str(flow_run.id)
    settings = {**matrix.model_dump(mode="json"), "configs": [config.model_dump(mode="json") for config in configs]}
    artifacts: dict[str, ArtifactRef] = {}
    with tracking.tracked_flow(matrix.name, f"experiment {matrix.name}", flow_run_id, settings, artifacts) as run_id:
        runs = _plan(flow_run_id, expand_arms(matrix, configs))
        _in_parallel(_run_baselines, {id(run.baselines): run.baselines for run in runs if run.baselines}.values())
        _in_parallel(_run_arm, runs)
        arms = [run.arm.identity for run in runs]
        for run in runs:
            artifacts[f"evaluation/{run.arm.label}"] = run.line.artifacts["evaluation"]
        for run, target in _transfers(matrix, runs):
            arms.append({**run.arm.identity, "target": target.config.corpus.name})
            artifacts[f"transfer/{run.arm.label}/{arms[-1]['target']}"] = _measure_transfer(run.line, target)
        artifacts["experiment"] = collect_results.submit(arms, list(artifacts.values())).result()
        for path in publish_results(artifacts["experiment"], matrix.name):
            tracking.log_file(run_id, path)
            get_run_logger().info("results: %s", path)
    return {key: str(ref) for key, ref in artifacts.items()}


def _plan(flow_run_id: str, arms: Sequence[Arm]) -> list[_ArmRun]:
    """Read every arm's corpus, so that the whole run is planned before anything is trained."""
    baselines: dict[str, Line] = {}
    runs = []
    for arm in arms:
        prompted, trained = split_methods(arm.config)
        shared = None
        if prompted is not None:
            # Layout and pairs do not reach a prompt, so arms that differ in nothing else share their baselines.
            key = prompted.model_dump_json()
            if key not in baselines:
                baselines[key] = _begin(flow_run_id, prompted, _BASELINES)
            shared = baselines[key]
        parts = (*(_TRAINED if trained else ()), verdicts.evaluate)
        runs.append(_ArmRun(arm, _begin(flow_run_id, trained or arm.config, parts), shared))
    n_cells = sum(len(arm.config.seeds) for arm in arms if len(arm.config.seeds) > 1)
    run_progress(flow_run_id).plan({"evaluate": n_cells, "collect-results": 1}, {"collect-results": 1})
    return runs


def _begin(flow_run_id: str, config: ExperimentConfig, parts: Iterable[Part]) -> Line:
    """Return a line whose corpus is read and whose steps are planned."""
    line = Line(config, flow_run_id, ("ingest", *(part.__name__ for part in parts)))
    corpus.ingest(line)
    return line


def _run_baselines(line: Line) -> None:
    for part in _BASELINES:
        part(line)


def _run_arm(run: _ArmRun) -> None:
    """Train, generate and evaluate all cells of an arm; the evaluation reads the baselines' generations too."""
    if {"sft", "capo"} & set(run.line.config.generation.methods):
        for part in _TRAINED:
            part(run.line)
    if run.baselines is not None:
        run.line.artifacts |= {
            name: ref for name, ref in run.baselines.artifacts.items() if name.startswith("generations/")
        }
    verdicts.evaluate(run.line)
    for seed in run.arm.config.seeds:
        _log_cell(run, seed)


def _log_cell(run: _ArmRun, seed: int) -> None:
    """Log one cell's own figures: of its seed alone, without intervals, which only the arm's seeds together have."""
    config = run.arm.config
    evaluation = run.line.artifacts["evaluation"]
    if len(config.seeds) > 1:
        evaluation = evaluate_methods.submit(
            run.line.analysed, run.generations(seed), run.line.encoder(), config.task,
            narrow_to_cell(config.evaluation),
        ).result()  # fmt: skip
    params = {**run.arm.identity, "seed": seed, "methods": list(config.generation.methods)}
    label = f"{run.arm.label} · seed {seed}"
    tracking.log_cell(run.line.flow_run_id, label, params, read_headlines(evaluation), [evaluation])


def _transfers(matrix: ExperimentMatrix, runs: Sequence[_ArmRun]) -> list[tuple[_ArmRun, Line]]:
    """Return which arm's adapters answer which other corpus: with `transfer`, every arm's every other corpus."""
    if not matrix.transfer:
        return []
    corpora: dict[str, Line] = {}
    for run in runs:
        corpora.setdefault(run.line.config.corpus.name, run.line)
    trained = [run for run in runs if run.line.all_of("adapters")]
    return [(run, line) for run in trained for name, line in corpora.items() if name != run.arm.identity["corpus"]]


def _measure_transfer(line: Line, target: Line) -> ArtifactRef:
    """Let a line's adapters answer another corpus's held-out items, a shared one as each of its own annotators."""
    config, corpus = line.config, target.versions[-1]
    sampled = config.generation.model_copy(update={"decisions": ("sampled",)})
    futures = []
    for seed in config.seeds:
        for method in ("sft", "capo"):
            for name, annotators in line.answering(method):
                adapter = line.artifacts.get(f"adapters/{method}/{name}/{seed}")
                if adapter is not None:
                    futures.append(
                        generate_method.submit(
                            corpus, adapter, None, method, name, annotators, line.base(), config.model,
                            target.config.task, sampled.narrow(method), line.tag, seed,
                        )
                    )  # fmt: skip
    generations = [future.result() for future in futures]
    return measure_adapter_transfer.submit(
        line.analysed, corpus, generations, config.evaluation
    ).result()  # fmt: skip


def _in_parallel(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do `work` on every item, as many at once as steps are, each within the flow's context."""
    n_at_once = read_fan_out().n_lines
    if n_at_once == 1:
        for item in items:
            work(item)
        return
    pool = ThreadPoolExecutor(max_workers=n_at_once)
    try:
        for future in [pool.submit(copy_context().run, work, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
