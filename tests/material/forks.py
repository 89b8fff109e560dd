"""Processes for tests that kill them, forked from one that has imported everything and done nothing."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

import pytest

# All in one list: a test session has one server of forks, and what it was started with it keeps.
_PRELOADED = ("sharing_machine", "killed_writing", "s3fs")


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Where processes are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server of forks does not get it otherwise
        forkserver.ensure_running()
    return context
