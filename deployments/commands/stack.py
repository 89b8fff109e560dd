"""Servers, deployments, and what this machine has."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from capo_core.config_file import load_config
from deployments.commands.common import EXIT_FAILED, OUT, ConfigPath, DataDir, Home, Overrides
from deployments.deploy import PoolType
from deployments.environment import prepare_environment

app = typer.Typer()
command = partial(app.command, rich_help_panel="Servers and this machine")


@command()
def up(
    home: Home = None,
    data_dir: DataDir = None,
    prefect_port: Annotated[int, typer.Option(help="Of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of the MLflow server.")] = 5000,
    runs_at_once: Annotated[int, typer.Option(help="Flow runs that the worker runs beside each other.")] = 2,
) -> None:
    """Start Prefect server, MLflow server and a worker on this machine, and deploy every flow."""
    prepare_environment(home, data_dir)
    from deployments.console import print_stack
    from deployments.local_stack.stack import read_states, start_stack
    from tasks.storage.home import capo_home

    endpoints = start_stack(capo_home(), prefect_port=prefect_port, mlflow_port=mlflow_port, runs_at_once=runs_at_once)
    print_stack(OUT, endpoints, read_states(capo_home()))


@command()
def down(home: Home = None) -> None:
    """Stop what `capo up` started. Runs in progress are stopped too; their next run goes on from the cache."""
    prepare_environment(home)
    from deployments.local_stack.stack import stop_stack
    from tasks.storage.home import capo_home

    OUT.print("stopped" if stop_stack(capo_home()) else "nothing was running")


@command()
def deploy(
    pool: Annotated[str, typer.Option(help="Work pool; created if there is none of that name.")] = "capo",
    pool_type: Annotated[PoolType, typer.Option(help="What its workers start runs as.")] = "process",
    image: Annotated[str | None, typer.Option(help="Container image with capo installed.")] = None,
    model_tasks_at_once: Annotated[int, typer.Option(help="Tasks that run a model, over all runs.")] = 1,
    home: Home = None,
) -> None:
    """Deploy every flow to the Prefect server in use (PREFECT_API_URL, or that of `capo up`)."""
    prepare_environment(home)
    from deployments.deploy import deploy_flows

    deploy_flows(pool, pool_type, image=image, model_tasks_at_once=model_tasks_at_once)
    OUT.print(f"deployed to work pool {pool}", highlight=False)


@command()
def params(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print a configuration as the parameters of a deployment: prefect deployment run run/run --params "$(capo …)"."""
    sys.stdout.write(json.dumps({"config": load_config(config, overrides or ()).model_dump(mode="json")}) + "\n")


@command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="Also check what this experiment needs.")] = None,
    overrides: Overrides = None,
    home: Home = None,
    data_dir: DataDir = None,
) -> None:
    """Say what is installed, which devices and servers there are, what is missing and how to get it."""
    experiment = load_config(config, overrides or ()) if config else None
    prepare_environment(home, data_dir)
    from deployments.doctor import examine, print_findings

    findings = examine(experiment)
    print_findings(OUT, findings)
    if any(finding.status == "missing" for finding in findings):
        raise typer.Exit(EXIT_FAILED)
