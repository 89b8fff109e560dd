"""What commands share: options, the two consoles, and running the flow of a configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capo_core.config_file import load_config
from deployments.environment import prepare_environment
from schemas.config import ExperimentConfig

EXIT_FAILED, EXIT_USAGE = 1, 2
# Into a file or a pipe, tables keep a width at which they can be read.
OUT = Console(width=None if sys.stdout.isatty() else 140)
ERR = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="Experiment configuration, e.g. deployments/configs/varierr/….yaml")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: dotted.key=value. May be repeated.")
]
Home = Annotated[Path | None, typer.Option("--home", help="capo's folder. Default: $CAPO_HOME or .capo")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where relative corpus paths are looked up. Default: $CAPO_DATA_DIR or ."),
]
NewFolder = Annotated[Path, typer.Option("--out", help="Folder to write; a new or an empty one.")]
Force = Annotated[str | None, typer.Option("--force", help="Reason to export all the same; it goes into the card.")]


def say(text: str) -> None:
    """Print a line as it is, however long."""
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)


def run_flow(
    name: str, config_path: Path, overrides: list[str] | None, home: Path | None, data_dir: Path | None, **extra: str
) -> tuple[ExperimentConfig, dict[str, str]]:
    """Load the configuration, run one flow and return both it and the references of what came out."""
    config = load_config(config_path, overrides or ())
    prepare_environment(home, data_dir)
    from flows import stages

    flow = getattr(stages, name.replace("-", "_"))
    return config, flow(config, **extra)


def print_outcome(config: ExperimentConfig, references: dict[str, str]) -> None:
    """Print what a flow left: references, the tables that belong to them, and where to look further."""
    from deployments.console import print_judges, print_places, print_results, print_stability
    from schemas.artifacts import ArtifactRef

    for key, reference in references.items():
        if "/" not in key:
            say(f"{key}: {reference}")
    if "stability" in references and "evaluation" not in references:
        print_stability(OUT, ArtifactRef.parse(references["stability"]))
    if "evaluation" in references:
        print_results(OUT, ArtifactRef.parse(references["evaluation"]))
    if "verdicts/all" in references:
        print_judges(OUT, ArtifactRef.parse(references["verdicts/all"]))
    print_places(OUT, config.name)
