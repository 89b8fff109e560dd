"""Flows in processes of their own, each with a home that it may share with others, as functions for forks."""

from __future__ import annotations

import json
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, get_current_settings, temporary_settings
from sharing_machine import compute_slowly
from small_line import EXAMPLE

from capo_core.config_file import load_config
from flows import stages
from tasks import tracking
from tasks.caching import FlockLockManager


def server_url() -> str:
    """Return the URL of the session's Prefect server, which processes of their own are to be told."""
    url = get_current_settings().api.url
    assert url is not None
    return url


def run_flow(
    home: Path, api_url: str, name: str, overrides: list[str], outcome: str, barrier: Barrier | None = None
) -> None:
    """Run a flow of the example and leave the references of what came out in a file of the home.

    Args:
        home: capo's; Prefect's results lie in it too.
        api_url: of the Prefect server.
        name: of the flow.
        overrides: of the example's configuration.
        outcome: name of the file.
        barrier: at which to wait for others.
    """
    os.environ["CAPO_HOME"] = str(home)
    torch.set_num_threads(1)
    with temporary_settings({PREFECT_API_URL: api_url, PREFECT_LOCAL_STORAGE_PATH: str(home / "results")}):
        if barrier is not None:
            barrier.wait(120)
        references = getattr(stages, name)(load_config(EXAMPLE, overrides))
    (home / outcome).write_text(json.dumps(references), encoding="utf-8")


def open_mlflow(home: Path, barrier: Barrier) -> None:
    """Open a flow's run in MLflow at the same time as others, all on a home where it never was."""
    os.environ["CAPO_HOME"] = str(home)
    barrier.wait(120)
    tracking.finish_run(tracking.start_flow_run("cold", "cold", f"flow-{os.getpid()}", {"pid": os.getpid()}))


def hold_lock(home: Path, marks: Path) -> None:
    """Compute the slow step under a lock, as Prefect does."""
    os.environ["CAPO_HOME"] = str(home)
    FlockLockManager().acquire_lock("slow", "holder")
    compute_slowly.fn("Ann", 600.0, str(marks))
