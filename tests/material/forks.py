"""Processes for tests that kill them, forked from one that has imported everything and done nothing."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tasks import tracking

# All in one list: a test session has one server of forks, and what it was started with it keeps.
_PRELOADED = (
    "sharing_machine", "killed_writing", "killed_training", "killed_flow",
    "s3fs", "peft", "datasets", "transformers.trainer",
)  # fmt: skip


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Where processes are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server of forks does not get it otherwise
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty MLflow database, to be copied: making one takes seconds."""
    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPO_HOME", str(home))
        tracking.tracking_client()
    return home


def run_alone(
    processes: ForkServerContext, target: Callable[..., object], *arguments: object, lives_seconds: float | None = None
) -> int | None:
    """Run a function in a process of its own, killed after so many seconds if that is given; return its exit code."""
    process = processes.Process(target=target, args=arguments)
    process.start()
    if lives_seconds is not None:
        process.join(lives_seconds)
        process.kill()
    process.join()
    return process.exitcode
