"""Every test session has a capo home and a Prefect home of its own; both must be set before Prefect is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SESSION = Path(tempfile.mkdtemp(prefix="capo-tests-"))
atexit.register(shutil.rmtree, _SESSION, ignore_errors=True)
os.environ["CAPO_HOME"] = str(_SESSION / "home")
os.environ["PREFECT_HOME"] = str(_SESSION / "prefect")
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CAPO_ARTIFACTS"):
    os.environ.pop(name, None)
(_SESSION / "prefect").mkdir(parents=True)

from deployments.environment import prepare_environment  # noqa: E402

prepare_environment()

import pytest  # noqa: E402


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A capo home of this test's own."""
    path = tmp_path / "home"
    monkeypatch.setenv("CAPO_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server for the tests that run flows, started once."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
