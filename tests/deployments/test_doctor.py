"""What `capo doctor` says of the Prefect server it is pointed to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ports import free_ports

from deployments.environment import LEASES_IN_FILES

ROOT = Path(__file__).parent.parent.parent


def _doctor(home: Path, api_url: str) -> list[str]:
    """Return the row on Prefect: state, subject, what was found, what to do."""
    command = [sys.executable, "-m", "deployments.cli", "doctor", "--home", str(home)]
    environment = os.environ | {"PREFECT_API_URL": api_url}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    row: list[str] = []
    for line in done.stdout.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.split("│")[1:-1]]
            if cells[1] == "Prefect" or (row and not cells[1]):  # its first line, or one that goes on
                row = [f"{a} {b}".strip() for a, b in zip(row or [""] * 4, cells, strict=True)]
            elif row:
                break
    return row


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def forgetful_server(tmp_path: Path) -> Iterator[str]:
    """A Prefect server as it is started without a setting."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}/api"
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(httpx.URL(url).port), "--no-services"]
    (tmp_path / "prefect").mkdir()
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not _answers(url):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def test_a_server_that_keeps_slots_in_memory_is_noted(forgetful_server: str, home: Path) -> None:
    state, _, found, advice = _doctor(home, forgetful_server)
    assert state == "note"
    assert "answers (200); forgets at a restart who holds a slot of a limit" in found
    assert f"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={LEASES_IN_FILES}" in advice.replace(" ", "")


def test_a_server_that_is_not_there_is_missing(home: Path) -> None:
    state, _, found, _ = _doctor(home, "http://127.0.0.1:9/api")
    assert state == "missing"
    assert found == "http://127.0.0.1:9/api/health: ConnectError"
