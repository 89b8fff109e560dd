"""The flows that the command line and the deployments run: the whole line, and the line up to one stage.

Every flow takes the experiment's configuration, which the Prefect UI shows as a form, and returns the references of
what it produced. Stages before the one asked for come from the cache where nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect import Flow, flow, get_run_logger
from prefect.runtime import flow_run

from flows.fan_out import task_runner
from flows.line import Line
from flows.parts import corpus, models, registration, verdicts
from schemas.config import ExperimentConfig
from tasks import tracking
from tasks.corpus_history import announce_batch
from tasks.human_validation import copy_sheets, copy_team_notes
from tasks.report import publish_report
from tasks.run_tables import show_tables
from tasks.storage.home import capo_home

References = dict[str, str]


def _stage_flow(name: str) -> Callable[[Callable[..., References]], Flow[..., References]]:
    return flow(
        name=name,
        flow_run_name=name + " {config.name}",
        task_runner=task_runner(),
        persist_result=False,
    )


def _run(config: ExperimentConfig, name: str, *parts: Callable[[Line], None]) -> References:
    """Run parts of the line in order, inside a run in MLflow that names all it made, failed or finished."""
    flow_run_id, settings = str(flow_run.id), config.model_dump(mode="json")
    line = Line(config, flow_run_id, tuple(part.__name__ for part in parts))
    with tracking.tracked_flow(config.name, f"{name} {config.name}", flow_run_id, settings, line.artifacts) as run_id:
        line.run_id = run_id
        for part in parts:
            part(line)
        _publish(line)
    return {key: str(ref) for key, ref in line.artifacts.items()}


def _publish(line: Line) -> None:
    """Put what people look at where they look: figures and report in MLflow, report and sheets under capo's home."""
    logger = get_run_logger()
    show_tables(line.config.corpus.name, line.artifacts)
    if "evaluation" in line.artifacts:
        tracking.log_summary(line.run_id, line.artifacts["evaluation"])
    if "report" in line.artifacts:
        page = publish_report(line.artifacts["report"], line.config.name)
        tracking.log_file(line.run_id, page)
        logger.info("report: %s", page)
    if "validation_tasks" in line.artifacts:
        folder = capo_home() / "validation" / line.config.name
        logger.info("for raters: %s", copy_sheets(line.artifacts["validation_tasks"], folder / "for_raters"))
        logger.info("for the team: %s", copy_team_notes(line.artifacts["validation_key"], folder / "for_the_team"))


_TO_ADAPTERS = (corpus.ingest, corpus.pair, models.train)
_TO_GENERATIONS = (*_TO_ADAPTERS, models.describe, models.generate)
_TO_EVALUATION = (*_TO_GENERATIONS, models.measure_retention, verdicts.evaluate)
_TO_REPORT = (corpus.ingest, corpus.analyze, *_TO_EVALUATION[1:], verdicts.judge, verdicts.export)


@_stage_flow("ingest")
def ingest(config: ExperimentConfig, batch: str | None = None) -> References:
    """Read raw annotations, quarantine what is wrong, and split the items; take in a later file as the next batch."""

    def ingest(line: Line) -> None:
        corpus.ingest(line, batch)
        if "batch" in line.artifacts:
            announce_batch(config, len(line.versions), line.artifacts["corpus"])

    return _run(config, "ingest", ingest)


@_stage_flow("analyze")
def analyze(config: ExperimentConfig) -> References:
    """Measure agreement between annotators and the stability of each one's way of explaining."""
    return _run(config, "analyze", corpus.ingest, corpus.analyze)


@_stage_flow("pairs")
def pairs(config: ExperimentConfig) -> References:
    """Build demonstrations and preference pairs for every annotator."""
    return _run(config, "pairs", corpus.ingest, corpus.pair)


@_stage_flow("train")
def train(config: ExperimentConfig) -> References:
    """Train SFT and CAPO adapters."""
    return _run(config, "train", *_TO_ADAPTERS)


@_stage_flow("generate")
def generate(config: ExperimentConfig) -> References:
    """Let every method answer the held-out items."""
    return _run(config, "generate", *_TO_GENERATIONS)


@_stage_flow("evaluate")
def evaluate(config: ExperimentConfig) -> References:
    """Hold the generations against the people they imitate, and the adapters against the base model."""
    return _run(config, "evaluate", *_TO_EVALUATION)


@_stage_flow("judge")
def judge(config: ExperimentConfig) -> References:
    """Ask a language model which person each group of explanations reads like."""
    return _run(config, "judge", *_TO_GENERATIONS, verdicts.judge)


@_stage_flow("export-validation")
def export_validation(config: ExperimentConfig) -> References:
    """Export the blinded rating set to `<home>/validation/<name>/for_raters`; the key stays in the artifact store."""
    return _run(config, "export-validation", *_TO_GENERATIONS, verdicts.export)


@_stage_flow("import-validation")
def import_validation(config: ExperimentConfig, ratings: str) -> References:
    """Import raters' answers (a file, or a folder of them) and report on them."""

    def import_validation(line: Line) -> None:
        verdicts.import_validation(line, ratings)

    return _run(config, "import-validation", *_TO_REPORT, import_validation, verdicts.report)


@_stage_flow("report")
def report(config: ExperimentConfig) -> References:
    """Write the report, running whatever it still needs."""
    return _run(config, "report", *_TO_REPORT, verdicts.report)


@_stage_flow("release-dataset")
def release_dataset(config: ExperimentConfig) -> References:
    """Make what a published data set consists of: the corpus and its pairs under pseudonyms, and the measured risk."""
    return _run(
        config, "release-dataset",
        corpus.ingest, corpus.select_released, corpus.measure_stability, corpus.pseudonymise, corpus.pair,
    )  # fmt: skip


@_stage_flow("register")
def register(config: ExperimentConfig) -> References:
    """Put every person's adapter into the model registry, as challenger."""
    return _run(config, "register", *_TO_EVALUATION, registration.register)


@_stage_flow("retrain")
def retrain(config: ExperimentConfig) -> References:
    """Look for drift, train whom new batches changed, evaluate, register; all else comes from the cache."""
    return _run(config, "retrain", corpus.ingest, corpus.watch_drift, *_TO_EVALUATION[1:], registration.register)


@_stage_flow("run")
def run(config: ExperimentConfig) -> References:
    """Run the whole line, from raw files to the report, and register the adapters."""
    return _run(config, "run", *_TO_REPORT, verdicts.report, registration.register)
