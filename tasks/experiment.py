"""The results of an experiment: read from every arm's evaluation, written as one table in three forms."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from capo_core.durable_files import write_file_atomically
from capo_core.evaluation.transfer import measure_transfer
from capo_core.results import ArmResult, name_transfer, results_frame
from capo_core.results_text import render_latex, render_markdown
from schemas.artifacts import ArtifactRef
from schemas.config import EvaluationConfig
from schemas.frames import TABLES, empty
from tasks.step import Step, step
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import capo_home
from tasks.tracking import name_figures

RESULT_FILES = ("results.md", "results.tex", "data.parquet")


@step("measure-transfer", version=2, uses_models=True)
def measure_adapter_transfer(
    step: Step, source: ArtifactRef, target: ArtifactRef, generations: list[ArtifactRef], evaluation: EvaluationConfig
) -> ArtifactRef:
    """Return what shows of the source's people in their adapters' answers to another corpus's items."""
    metrics = measure_transfer(step.read(source), step.read(target), step.read_all(generations), evaluation)
    others = {name: empty(columns) for name, columns in TABLES["evaluation"].items() if name != "data.parquet"}
    return step.write("evaluation", {"data.parquet": metrics, **others})


@step("collect-results", version=1)
def collect_results(step: Step, arms: list[dict[str, str]], evaluations: list[ArtifactRef]) -> ArtifactRef:
    """Return every arm's figures over all annotators and its comparisons, with the table in Markdown and LaTeX.

    `arms` name corpus, model, layout and pair strategy of the evaluations, in their order; one that also names a
    `target` is of the arm's transfer to that corpus.
    """
    found = []
    for arm, evaluation in zip(arms, evaluations, strict=True):
        metrics = step.read(evaluation)
        if "target" in arm:
            metrics = name_transfer(metrics, arm["target"])
        found.append(ArmResult(arm, metrics, step.read(evaluation, "comparisons.parquet"), str(evaluation)))
    results = results_frame(found)
    texts = {"results.md": render_markdown(results), "results.tex": render_latex(results)}

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    return step.write("experiment", {"data.parquet": results}, fill=fill, metadata={"n_evaluations": len(arms)})


def locate_results(name: str) -> list[Path]:
    """Return where an experiment's table lies for people to read: `<home>/reports/<name>-results.{md,tex,parquet}`."""
    return [capo_home() / "reports" / f"{name}-results{Path(file).suffix}" for file in RESULT_FILES]


def publish_results(experiment: ArtifactRef, name: str) -> list[Path]:
    """Copy the table to where people look for it and return the paths."""
    store = ArtifactStore()
    store.verify(experiment)
    paths = locate_results(name)
    for file, path in zip(RESULT_FILES, paths, strict=True):
        write_file_atomically(path, (store.path(experiment) / file).read_bytes())
    return paths


def narrow_to_cell(evaluation: EvaluationConfig) -> EvaluationConfig:
    """Return what a single cell is evaluated by: the point figures that the table shows, as cheaply as they come.

    The intervals, reductions and tests are the arm's, over all its seeds.
    """
    size = min(evaluation.group_sizes, key=lambda k: (abs(k - 5), k))
    cheap = {"group_sizes": (size,), "reductions": ("none",), "classifiers": ("ngrams",), "n_bootstrap": 100}
    return evaluation.model_copy(update=cheap)


def read_headlines(evaluation: ArtifactRef) -> dict[str, float]:
    """Return an evaluation's figures over all annotators by name, without those under a reduction."""
    metrics = ArtifactStore().read_table(evaluation)
    plain = pl.col("condition").is_null() | pl.col("condition").is_in(["raw", "surface_normalised"])
    return name_figures(metrics.filter((pl.col("annotator_id") == "all") & plain))
