"""The local stack as a user meets it: up, a deployed run, a refused parameter, a killed server, down."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from ports import free_ports
from recorded_steps import keys_with_metrics
from rounds import n_rounds

from capo_core.errors import StackError
from deployments.local_stack.stack import (
    Endpoints,
    find_endpoints,
    read_states,
    start_program,
    start_stack,
    stop_program,
    stop_stack,
)

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = "deployments/configs/example/nli-smollm2-135m.yaml"
OURS = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "CAPO_HOME")


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, who has set none of our variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "a home"


@pytest.fixture(scope="module")
def endpoints(home: Path) -> Iterator[Endpoints]:
    prefect, mlflow = map(str, free_ports(2))
    ports = ["--prefect-port", prefect, "--mlflow-port", mlflow]
    done = _run("deployments.cli", "up", "--home", str(home), *ports)
    try:
        assert done.returncode == 0, done.stderr
        assert "worker: running" in done.stdout or "worker: starting" in done.stdout
        found = find_endpoints(home)
        assert found is not None
        yield found
    finally:
        stop_stack(home)
    assert find_endpoints(home) is None
    assert not [p for p in psutil.process_iter() if _folder_of(p) == str(home / "stack")]
    shutil.rmtree(home)


def _folder_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("CAPO_STACK_FOLDER")
    except psutil.Error:
        return None


def test_a_deployed_flow_runs_and_both_servers_know_it(home: Path, endpoints: Endpoints) -> None:
    parameters = _run("deployments.cli", "params", EXAMPLE, "--set", "splits.seed=7").stdout
    command = ("prefect", "deployment", "run", "ingest/ingest", "--params", parameters, "--watch")
    done = _run(*command, PREFECT_HOME=str(home / "prefect"), **endpoints.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = httpx.post(f"{endpoints.prefect_api_url}/flow_runs/filter", json={}, timeout=30).json()
    assert (run["state_type"], run["parameters"]["config"]["splits"]["seed"]) == ("COMPLETED", 7)
    found = httpx.post(
        f"{endpoints.mlflow_tracking_uri}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["1"]}, timeout=30
    ).json()
    assert {r["info"]["run_name"] for r in found["runs"]} == {
        "ingest",
        "split",
        f"ingest {run['parameters']['config']['name']}",
    }
    experiment = httpx.get(
        f"{endpoints.mlflow_tracking_uri}/api/2.0/mlflow/experiments/get", params={"experiment_id": "1"}, timeout=30
    ).json()["experiment"]
    # Files stay readable by capo's commands when the servers are down.
    assert experiment["artifact_location"].startswith((home / "mlflow" / "artifacts").as_uri())
    # capo's own commands use the same servers, and with them the same cache.
    again = _run("deployments.cli", "ingest", EXAMPLE, "--set", "splits.seed=7", "--home", str(home))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("Cached(type=COMPLETED)") == 2


def test_a_file_dropped_into_an_inbox_is_taken_in_and_leads_to_a_retraining(home: Path, endpoints: Endpoints) -> None:
    made = _run("deployments.cli", "inbox", EXAMPLE, "--set", "corpus.name=dropped", "--home", str(home))
    assert made.returncode == 0, made.stderr
    inbox = home / "inbox" / "dropped"
    header = "item_id,text_a,text_b,annotator_id,label,explanation\n"
    (inbox / "monday.csv").write_text(f"{header}new,It snows.,It is cold.,ada,entailment,Snow is cold.\n")
    (inbox / "broken.csv").write_text("item_id,text_a\n1,x\n")
    _wait_until(lambda: (inbox / "taken" / "monday.csv").exists() and (inbox / "refused" / "broken.csv").exists())
    reason = (inbox / "refused" / "broken.csv.reason.txt").read_text()
    assert "missing column(s) text_b, annotator_id, label, explanation" in reason
    assert (home / "corpora" / "dropped" / "000002.json").exists()

    def retrainings() -> list[dict]:
        runs = httpx.post(f"{endpoints.prefect_api_url}/flow_runs/filter", json={}, timeout=30).json()
        return [run for run in runs if (run["created_by"] or {}).get("type") == "AUTOMATION"]

    _wait_until(lambda: bool(retrainings()))
    (run,) = retrainings()
    assert run["parameters"]["config"]["corpus"]["name"] == "dropped"
    # What it would do is tested in tests/flows/test_batches.py.
    cancelled = {"state": {"type": "CANCELLING"}, "force": True}
    httpx.post(f"{endpoints.prefect_api_url}/flow_runs/{run['id']}/set_state", json=cancelled, timeout=30)


def _wait_until(holds: Callable[[], bool], timeout_seconds: float = 240) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(1)


_HOLDER = """
from time import sleep
from prefect.concurrency._sync import concurrency
with concurrency(["tag:gpu"], occupy=1, lease_duration=60):
    print("held", flush=True)
    sleep(600)
"""


@pytest.mark.slow
def test_the_slot_of_a_killed_process_is_given_back_though_the_server_was_restarted(
    home: Path, endpoints: Endpoints
) -> None:
    def slots_taken() -> int | None:
        try:
            limits = httpx.post(f"{endpoints.prefect_api_url}/v2/concurrency_limits/filter", json={}, timeout=30).json()
        except httpx.ConnectError:
            return None
        return next(limit["active_slots"] for limit in limits if limit["name"] == "tag:gpu")

    _wait_until(lambda: slots_taken() == 0)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], env=os.environ | endpoints.environment, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    stop_program(home, "prefect-server")
    start_program(home, "prefect-server")
    _wait_until(lambda: slots_taken() == 1)
    _wait_until(lambda: slots_taken() == 0)


@pytest.mark.torture
@pytest.mark.parametrize("server", ["prefect-server", "mlflow"])
def test_a_run_outlasts_a_server_that_is_gone_for_a_while(server: str, home: Path, endpoints: Endpoints) -> None:
    for number in range(n_rounds(10)):
        seed = (100 if server == "mlflow" else 200) + number  # nobody else's, so that there is something to compute
        overrides = ["--set", f"name=gone-{server}", "--set", f"splits.seed={seed}"]
        before = set((home / "lineage").glob("*.json"))
        command = [sys.executable, "-m", "deployments.cli", "pairs", EXAMPLE, "--home", str(home), *overrides]
        inherited = {name: value for name, value in os.environ.items() if name not in OURS}
        run = subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # After the first, second, third … step is computed.
        _wait_until(lambda n=number, old=before: len(set((home / "lineage").glob("*.json")) - old) > n % 8)
        stop_program(home, server)
        time.sleep(10)
        start_program(home, server)
        said = run.communicate(timeout=600)[0].decode()
        if run.returncode:  # failed, with a reason; then the next run goes on from there
            assert "give the same command again" in said
            again = _run("deployments.cli", "pairs", EXAMPLE, "--home", str(home), *overrides)
            assert again.returncode == 0, said + again.stderr
        print(f"{server} gone after {1 + number % 8} steps: exit code {run.returncode}")
        keys = {path.stem for path in set((home / "lineage").glob("*.json")) - before}
        assert len(keys) >= 9  # the split and two for each of four people; at first the reading of the file
        assert keys <= keys_with_metrics(endpoints.mlflow_tracking_uri)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("capo.betta", 0.2, "Additional properties are not allowed ('betta' was unexpected)"),
        ("capo.beta", -1, "-1 is less than or equal to the minimum of 0"),
    ],
)
def test_a_bad_parameter_is_refused_at_submission(
    path: str, value: float, says: str, home: Path, endpoints: Endpoints
) -> None:
    parameters = json.loads(_run("deployments.cli", "params", EXAMPLE).stdout)
    section, key = path.split(".")
    parameters["config"][section][key] = value
    command = ("prefect", "deployment", "run", "run/run", "--params", json.dumps(parameters))
    done = _run(*command, PREFECT_HOME=str(home / "prefect"), **endpoints.environment)
    assert done.returncode == 1
    assert says in " ".join((done.stdout + done.stderr).split())


def test_the_doctor_finds_nothing_to_say_of_it(home: Path, endpoints: Endpoints) -> None:
    done = _run("deployments.cli", "doctor", "--home", str(home))
    told = " ".join(done.stdout.replace("│", " ").split())
    assert "answers (200)" in told
    assert "forgets at a restart" not in told


def test_tasks_that_run_a_model_are_limited_and_the_servers_are_on_loopback_alone(
    home: Path, endpoints: Endpoints
) -> None:
    limits = httpx.post(f"{endpoints.prefect_api_url}/concurrency_limits/filter", json={}, timeout=30).json()
    assert [(limit["tag"], limit["concurrency_limit"]) for limit in limits] == [("gpu", 1)]
    # What capo's commands do before they run a flow.
    told = _run("trained_tags", str(home), PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'material'}")
    assert told.stdout == "gpu\n", told.stderr
    ours = [p for p in psutil.process_iter() if _folder_of(p) == str(home / "stack")]
    listening = [c.laddr.ip for p in ours for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 2
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.parametrize(("name", "is_ours"), [("127.0.0.1", True), ("localhost", True), ("rebound.example", False)])
def test_servers_answer_to_the_names_of_this_machine_alone(name: str, is_ours: bool, endpoints: Endpoints) -> None:
    calls = {
        f"{endpoints.prefect_api_url}/flow_runs/filter": {},
        f"{endpoints.mlflow_tracking_uri}/api/2.0/mlflow/experiments/search": {"max_results": 1},
    }
    for url, body in calls.items():
        port = httpx.URL(url).port
        answer = httpx.post(url, json=body, headers={"Host": f"{name}:{port}"}, timeout=30)
        assert answer.is_success == is_ours, (url, answer.text)
        assert is_ours or answer.status_code in (400, 403)
    interface = endpoints.prefect_api_url.removesuffix("/api")
    assert httpx.get(interface, headers={"Host": name}, timeout=30).is_success == is_ours


def test_up_on_a_running_stack_leaves_it_running(home: Path, endpoints: Endpoints) -> None:
    before = read_states(home)
    done = _run("deployments.cli", "up", "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert read_states(home).keys() == before.keys()
    assert find_endpoints(home) == endpoints


def test_a_crashed_worker_comes_back(home: Path, endpoints: Endpoints) -> None:
    (first,) = _workers(home)
    first.kill()
    deadline = time.monotonic() + 60
    while not (found := _workers(home)) or found == [first] or read_states(home)["worker"] != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _workers(home: Path) -> list[psutil.Process]:
    ours = [p for p in psutil.process_iter() if _folder_of(p) == str(home / "stack")]
    return [p for p in ours if p.is_running() and {"worker", "start"} <= set(p.cmdline())]


def test_what_outlives_a_killed_supervisor_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    orphan = subprocess.Popen(["sleep", "600"], env={**os.environ, "CAPO_STACK_FOLDER": str(folder)})
    other = subprocess.Popen(["sleep", "600"])
    try:
        assert stop_stack(tmp_path)
        assert orphan.poll() is not None
        assert other.poll() is None
        assert not stop_stack(tmp_path)
    finally:
        for process in (orphan, other):
            process.kill()


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"MLflow: port {port} of 127\.0\.0\.1 is taken .*--mlflow-port"):
            start_stack(tmp_path, prefect_port=free_ports(1)[0], mlflow_port=port)
    assert not (tmp_path / "stack").exists()


def test_containers_need_an_image_and_no_stack_is_no_state(tmp_path: Path) -> None:
    done = _run("deployments.cli", "deploy", "--pool-type", "docker", "--home", str(tmp_path))
    assert done.returncode == 1
    assert "--image" in done.stderr
    with pytest.raises(StackError, match="capo up"):
        read_states(tmp_path)
