"""The line from a raw file to a report, whole or by stages; each runs the Prefect flow of the same name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from capo_core.experiment_matrix import load_matrix
from deployments.commands.common import OUT, ConfigPath, DataDir, Home, Overrides, print_outcome, run_flow, say
from deployments.environment import prepare_environment

PANEL = "The line"
app = typer.Typer()
command = partial(app.command, rich_help_panel=PANEL)

_RUN_HELP = "MLflow run id, or the reference or sha256 of an evaluation or report."


def _add_stage(name: str, help_text: str) -> None:
    """Give the command line a command for the flow of the same name."""

    def run_stage(config: ConfigPath, overrides: Overrides = None, home: Home = None, data_dir: DataDir = None) -> None:
        print_outcome(*run_flow(name, config, overrides, home, data_dir))

    app.command(name, help=help_text, rich_help_panel=PANEL)(run_stage)


_add_stage("run", "Run the whole line: raw file to report.")


@command()
def ingest(
    config: ConfigPath,
    batch: Annotated[
        Path | None, typer.Option(help="A later file: new or corrected annotations, withdrawals. Taken in once.")
    ] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Read raw annotations, quarantine what is wrong, split the items; take in a batch."""
    extra = {} if batch is None else {"batch": str(batch.expanduser().resolve())}
    print_outcome(*run_flow("ingest", config, overrides, home, data_dir, **extra))


_add_stage("analyze", "Agreement between annotators, stability of each one's way of explaining, how both settle.")
_add_stage("pairs", "Demonstrations and preference pairs for every annotator.")
_add_stage("train", "SFT and CAPO adapters.")
_add_stage("generate", "Let every method answer the held-out items.")
_add_stage("evaluate", "Hold the generations against the people.")
_add_stage("judge", "Ask a language model whom each group of explanations reads like.")
_add_stage("export-validation", "Write the blinded rating set for human raters.")


@command("import-validation")
def import_validation(
    config: ConfigPath,
    ratings: Annotated[
        Path, typer.Argument(help="The raters' answers: one file, or a folder of files, of any format.")
    ],
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Read raters' answers back in and report on them."""
    path = str(ratings.expanduser().resolve())
    print_outcome(*run_flow("import-validation", config, overrides, home, data_dir, ratings=path))


_add_stage("report", "Write the report.")
_add_stage("register", "Put every person's adapter into the model registry.")
_add_stage("retrain", "Train whom new batches changed, evaluate, register.")


@command()
def experiment(
    matrix: Annotated[Path, typer.Argument(help="What is compared, e.g. deployments/experiments/….yaml")],
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Run every corpus, layout, pair strategy and seed of a matrix and put the results into one table."""
    compared, configs = load_matrix(matrix, overrides or ())
    prepare_environment(home, data_dir)
    from deployments.console import print_experiment, print_places
    from flows.experiment import experiment as run_experiment
    from schemas.artifacts import ArtifactRef
    from tasks.experiment import locate_results

    references = run_experiment(compared, configs)
    for key, reference in references.items():
        say(f"{key}: {reference}")
    print_experiment(OUT, ArtifactRef.parse(references["experiment"]))
    for path in locate_results(compared.name):
        say(f"results: {path}")
    print_places(OUT, compared.name)


@command()
def compare(
    run_a: Annotated[str, typer.Argument(help=_RUN_HELP)],
    run_b: Annotated[str, typer.Argument(help=_RUN_HELP)],
    home: Home = None,
) -> None:
    """Put two runs of the same corpus on one page, with paired tests over the items that both answered."""
    prepare_environment(home)
    from flows.compare import compare as compare_runs

    say(f"comparison: {compare_runs(run_a, run_b)}")
