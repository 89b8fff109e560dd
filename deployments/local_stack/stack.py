"""Start, find and stop the local stack. Imports nothing of Prefect and MLflow: their settings are made here."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from capo_core.errors import StackError
from deployments.deploy import LOCAL_POOL

PROGRAMS = ("prefect-server", "mlflow", "worker", "inbox")
START_TIMEOUT_SECONDS, STOP_TIMEOUT_SECONDS = 240, 120

_CONFIGURATION = Path(__file__).parent / "supervisord.conf"
_LOG_LINES = 15


@dataclass(frozen=True)
class Endpoints:
    """Where the servers of a stack answer."""

    prefect_api_url: str
    mlflow_tracking_uri: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables under which Prefect and MLflow find them."""
        return {"PREFECT_API_URL": self.prefect_api_url, "MLFLOW_TRACKING_URI": self.mlflow_tracking_uri}

    @property
    def health(self) -> dict[str, str]:
        """The address of each server that answers once it is ready."""
        return {
            "prefect-server": f"{self.prefect_api_url}/health",
            "mlflow": f"{self.mlflow_tracking_uri}/health",
        }


def find_endpoints(home: Path) -> Endpoints | None:
    """Return where the stack of capo's folder answers, or None where none is running."""
    try:
        endpoints = Endpoints(**json.loads(_endpoints_file(home).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return endpoints if _is_running(home) else None


def start_stack(home: Path, *, prefect_port: int = 4200, mlflow_port: int = 5000, runs_at_once: int = 2) -> Endpoints:
    """Start the servers, deploy the flows, start the worker, and return where the servers answer.

    A stack that is running is left as it is, its flows deployed anew.

    Args:
        home: capo's folder; logs and process ids go to `stack` in it.
        prefect_port: of the Prefect server, on the loopback interface.
        mlflow_port: of the MLflow server.
        runs_at_once: flow runs that the worker runs beside each other.

    Raises:
        StackError: if a port is taken, a server does not come up (its log is quoted), or the flows cannot be deployed.
    """
    running = find_endpoints(home)
    if running is not None:
        _deploy(home, running)
        return running
    _end_leftovers(home)
    _refuse_taken_ports({"Prefect": prefect_port, "MLflow": mlflow_port})
    endpoints = Endpoints(f"http://127.0.0.1:{prefect_port}/api", f"http://127.0.0.1:{mlflow_port}")
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "CAPO_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "CAPO_WORK_POOL": LOCAL_POOL,
        "CAPO_STACK_FOLDER": str(folder),
        "CAPO_STACK_SOCKET": str(_socket(home)),
        "CAPO_STACK_PYTHON": sys.executable,
        "CAPO_STACK_PREFECT_PORT": str(prefect_port),
        "CAPO_STACK_MLFLOW_PORT": str(mlflow_port),
        "CAPO_STACK_MLFLOW_STORE": f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        "CAPO_STACK_MLFLOW_ARTIFACTS": (home / "mlflow" / "artifacts").as_uri(),
        "CAPO_STACK_RUNS_AT_ONCE": str(runs_at_once),
        **endpoints.environment,
    }
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(_CONFIGURATION)]
    started = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    if started.returncode:
        raise StackError(f"supervisord did not start: {(started.stderr or started.stdout).strip()}")
    try:
        _endpoints_file(home).write_text(json.dumps(asdict(endpoints)), encoding="utf-8")
        for program, url in endpoints.health.items():
            _wait_for(home, program, url)
        _deploy(home, endpoints)
        for program in ("worker", "inbox"):
            start_program(home, program)
    except BaseException:
        stop_stack(home)
        raise
    return endpoints


def stop_stack(home: Path) -> bool:
    """Stop the stack of capo's folder and wait until it is gone; return whether there was one.

    Raises:
        StackError: if it does not stop in time.
    """
    was_running = _is_running(home)
    if was_running:
        _supervisor(home).shutdown()
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while _is_running(home):
            if time.monotonic() > deadline:
                log = _folder(home) / "supervisord.log"
                raise StackError(f"the stack did not stop in {STOP_TIMEOUT_SECONDS} s; see {log}")
            time.sleep(0.2)
    n_left = _end_leftovers(home)
    _endpoints_file(home).unlink(missing_ok=True)
    return was_running or n_left > 0


def stop_program(home: Path, name: str) -> None:
    """Stop one program of a running stack, which stays stopped until `start_program`."""
    _supervisor(home).stopProcess(name)


def start_program(home: Path, name: str) -> None:
    """Start a stopped program of a running stack."""
    _supervisor(home).startProcess(name)


def read_states(home: Path) -> dict[str, str]:
    """Return what supervisord says of every program, such as RUNNING, FATAL or STOPPED.

    Raises:
        StackError: if no stack is running.
    """
    if not _is_running(home):
        raise StackError(f"no stack is running in {home}; start it with: capo up")
    return {process["name"]: process["statename"] for process in _supervisor(home).getAllProcessInfo()}


def _folder(home: Path) -> Path:
    return home / "stack"


def _endpoints_file(home: Path) -> Path:
    return _folder(home) / "endpoints.json"


def _socket(home: Path) -> Path:
    """Return where supervisord is spoken to; not in the home, because the path of a socket may have 107 bytes only."""
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"capo-{os.getuid()}-{digest}.sock"


def _is_running(home: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(_socket(home)))
        except OSError:
            return False
    return True


def _supervisor(home: Path) -> Any:
    from supervisor.xmlrpc import SupervisorTransport

    return ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{_socket(home)}")
    ).supervisor


def _end_leftovers(home: Path) -> int:
    """End what a stack of this folder started and supervisord no longer knows; return how many processes.

    A server's own child outlives a server that was killed, and keeps its port.
    """
    import psutil

    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CAPO_STACK_FOLDER") == str(_folder(home)) and process.pid != os.getpid():
                process.terminate()
                left.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    _, alive = psutil.wait_procs(left, timeout=10)
    for process in alive:
        process.kill()
    return len(left)


def _deploy(home: Path, endpoints: Endpoints) -> None:
    """Deploy the flows from a process of its own, whose Prefect knows this server alone."""
    command = [sys.executable, "-m", "deployments.cli", "deploy", "--home", str(home), "--pool", LOCAL_POOL]
    done = subprocess.run(command, env=os.environ | endpoints.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"the flows cannot be deployed: {(done.stderr or done.stdout).strip()}")


def _refuse_taken_ports(ports: dict[str, int]) -> None:
    for title, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                option = f"--{title.lower()}-port"
                raise StackError(
                    f"{title}: port {port} of 127.0.0.1 is taken ({error.strerror}); stop what uses it, or {option}"
                ) from error


def _wait_for(home: Path, program: str, url: str) -> None:
    """Return once the address answers.

    Raises:
        StackError: if the program ends, or does not answer in time; with the end of its log.
    """
    import httpx

    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            state = _supervisor(home).getProcessInfo(program)["statename"]
        except (Fault, OSError, HTTPException) as error:
            raise StackError(f"supervisord is gone: {error}; see {_folder(home)}/supervisord.log") from error
        if state in ("FATAL", "EXITED"):
            break
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    log = _folder(home) / f"{program}.log"
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    raise StackError("\n".join([f"{program} does not answer at {url}; {log} ends with:", *last]))
