"""Two finished runs against each other, found by what the user can see of them, on one page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from capo_core.durable_files import write_file_atomically
from capo_core.errors import ConfigError
from capo_core.evaluation.run_comparison import compare_runs
from capo_core.report import render_comparison
from capo_core.report.comparison_page import ComparisonData, RunRecord
from schemas.artifacts import ArtifactRef
from schemas.config import EvaluationConfig, TaskSpec
from schemas.section import flatten_keys
from tasks import tracking
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home
from tasks.storage.lineage import trace_lineage

PAGE_FILE = "comparison.html"
_EVALUATION_TAG = re.compile(r"capo\.(reads|writes)\.evaluation\.\d+")
_OWN_SETTINGS = ("task", "method", "annotator_id", "target", "seed")
"""Parts of a step's configuration that tell its runs apart or that must be equal anyway: no settings to compare."""


@dataclass(frozen=True)
class FinishedRun:
    """A run's evaluation and what it was made from, as the store's lineage records it.

    Attributes:
        title: what the user sees of it.
        evaluation: its evaluation.
        corpus: the corpus with its splits.
        generations: all that was evaluated.
        task: what was asked.
        config: how it was evaluated.
    """

    title: str
    evaluation: ArtifactRef
    corpus: ArtifactRef
    generations: list[ArtifactRef]
    task: TaskSpec
    config: EvaluationConfig


def find_run(name: str) -> FinishedRun:
    """Return the run that an MLflow run id, or the reference or sha256 of its evaluation or report, names.

    Raises:
        ConfigError: if nothing or several evaluations are named, or the store does not know how they came about.
    """
    store = ArtifactStore()
    title, named = _find_named(store, name)
    records = [record for ref in named if ref.kind == "report" for record in _records_of(store, ref)]
    evaluations = {str(ref) for ref in named if ref.kind == "evaluation"} | {
        read for record in records for read in record["reads"] if read.startswith("capo:evaluation/")
    }
    if len(evaluations) != 1:
        raise ConfigError(
            f"{name}: names {len(evaluations)} evaluations, expected one; give the MLflow run id of a `run`, "
            "`evaluate` or `report`, or the reference of an evaluation (`capo artifacts ls --kind evaluation`)"
        )
    evaluation = ArtifactRef.parse(evaluations.pop())
    made = [record for record in _records_of(store, evaluation) if record["step"] == "evaluate"]
    if not made:
        raise ConfigError(f"{name}: {evaluation} was not made by evaluating a run's generations in {store.home}")
    reads = [ArtifactRef.parse(read) for read in made[0]["reads"]]
    return FinishedRun(
        title,
        evaluation,
        next(ref for ref in reads if ref.kind == "corpus"),
        [ref for ref in reads if ref.kind == "generations"],
        TypeAdapter(TaskSpec).validate_python(made[0]["config"]["task"]),
        EvaluationConfig.model_validate(made[0]["config"]["evaluation"]),
    )


def _find_named(store: ArtifactStore, name: str) -> tuple[str, list[ArtifactRef]]:
    """Return a title and the artifacts that a name stands for: one by reference or hash, or a run's by MLflow id."""
    wanted = name.partition("?")[0].removeprefix("capo:").rpartition("/")[2]
    found = [(kind, sha256) for kind, sha256 in store.folders() if len(wanted) >= 8 and sha256.startswith(wanted)]
    if len(found) == 1:
        ref = store.find(*found[0])
        return f"{ref.kind} {ref.sha256[:8]}", [ref]
    return _find_mlflow_run(name)


def _find_mlflow_run(run_id: str) -> tuple[str, list[ArtifactRef]]:
    """Return the name of a run in MLflow and the evaluations it made or, a single cell of an experiment, read."""
    from mlflow.exceptions import MlflowException

    try:
        run = tracking.tracking_client().get_run(run_id)
    except MlflowException as error:
        raise ConfigError(
            f"{run_id}: neither an MLflow run id nor the reference of one evaluation or report; `capo artifacts ls` "
            "shows the artifacts, the MLflow UI the runs"
        ) from error
    named = [run.data.tags[tag] for tag in sorted(run.data.tags) if _EVALUATION_TAG.fullmatch(tag)]
    return f"{run.info.run_name} ({run_id[:8]})", [ArtifactRef.parse(text) for text in named]


def _records_of(store: ArtifactStore, ref: ArtifactRef) -> list[dict[str, Any]]:
    """Return the lineage records of the computations that wrote an artifact, the newest version first."""
    records = [record for record in store.lineage() if str(ref) in record["writes"]]
    return sorted(records, key=lambda record: (-record["version"], record["key"]))


def check_comparable(first: FinishedRun, second: FinishedRun) -> None:
    """Raise ConfigError, saying what differs, unless two runs are of one corpus, its splits and one task."""
    if first.evaluation == second.evaluation:
        raise ConfigError(f"both names are the same evaluation {first.evaluation}: there is nothing to compare")
    if first.corpus != second.corpus:
        raise ConfigError(
            f"the runs read different corpora or splits: {first.corpus} and {second.corpus}; only runs on the same "
            "split of the same corpus can be compared item by item"
        )
    if first.task != second.task:
        raise ConfigError(f"the runs were asked different things: task {first.task.name!r} and {second.task.name!r}")


@step("compare", version=1)
def compare_evaluations(
    step: Step,
    corpus: ArtifactRef,
    generations: list[list[ArtifactRef]],
    titles: list[str],
    evaluations: list[ArtifactRef],
    task: TaskSpec,
    evaluation: EvaluationConfig,
) -> ArtifactRef:
    """Return the page on two runs as an artifact."""
    frame = step.read(corpus)
    first, second = (step.read_all(refs) for refs in generations)
    found = compare_runs(frame, first, second, task, evaluation, progress=step.progress)
    runs = [
        RunRecord(title, str(ref), collect_settings(step.store, ref))
        for title, ref in zip(titles, evaluations, strict=True)
    ]
    page = render_comparison(
        ComparisonData(
            runs=(runs[0], runs[1]),
            task=task,
            evaluation=evaluation,
            corpus=frame,
            generations=(first, second),
            found=found,
            command=f"capo compare {evaluations[0]} {evaluations[1]}",
        )
    )

    def fill(folder: Path) -> None:
        (folder / PAGE_FILE).write_text(page, encoding="utf-8")

    return step.write("report", fill=fill)


def collect_settings(store: ArtifactStore, ref: ArtifactRef) -> dict[str, str]:
    """Return every setting of the computations that led to an artifact, by `step · setting`; several with commas."""
    found: dict[str, set[str]] = {}
    for record in trace_lineage(store, [ref]):
        for name, value in _list_settings(record["config"]):
            found.setdefault(f"{record['step']} · {name}", set()).add(value)
    return {name: ", ".join(sorted(values)) for name, values in sorted(found.items())}


def _list_settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a step's settings by dotted name."""
    own = {name: value for name, value in config.items() if name not in _OWN_SETTINGS}
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in flatten_keys(own).items()
    ]


def publish_comparison(page: ArtifactRef, first: FinishedRun, second: FinishedRun) -> Path:
    """Copy the page to `<home>/reports/compare-<A>-<B>.html`, named by the evaluations, and return the path."""
    store = ArtifactStore()
    store.verify(page)
    name = f"compare-{first.evaluation.sha256[:8]}-{second.evaluation.sha256[:8]}.html"
    path = capo_home() / "reports" / name
    write_file_atomically(path, (store.path(page) / PAGE_FILE).read_bytes())
    return path
