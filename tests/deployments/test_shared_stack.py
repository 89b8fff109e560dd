"""The shared stack, started without containers: who gets in, and a deployed flow from submission to object store."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from recorded_steps import keys_with_metrics
from rounds import n_rounds
from shared_stack import DOCKER
from stack_processes import POSTGRES, ROOT, SECRETS, Stack, list_missing

EXAMPLE = "deployments/configs/example/nli-smollm2-135m.yaml"
PREFECT_USER = ("capo", SECRETS["PREFECT_PASSWORD"])
MLFLOW_USER = ("capo", SECRETS["MLFLOW_PASSWORD"])
WRONG = ("capo", "guessed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(list_missing()), reason=f"not installed: {', '.join(list_missing())}"),
]


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
        stack.start_postgres(cluster[0] / "first", cluster[1])
        stack.start("object-store")
        # Twice: each start of the stack does it, whether or not there is anything to do.
        for _ in range(2):
            made = stack.run("bucket")
            assert made.returncode == 0, made.stderr
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


def _prefect(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port('prefect-server', 4200)}/api"


def _mlflow(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port('mlflow', 5000)}"


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
    dumped = stack.administer(dump.split())
    assert dumped.returncode == 0, dumped.stderr
    new = Stack(tmp_path)
    try:
        new.start_postgres(cluster[0] / "new", cluster[1])
        restored = new.administer(restore.split(), stdin=dumped.stdout)
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
    assert _read_object(stack, "mlflow", f"1/{whole['info']['run_id']}/artifacts/config.json")["name"] == name
    (written,) = [t["value"] for t in whole["data"]["tags"] if t["key"].startswith("capo.writes.corpus.")]
    sha256 = written.removeprefix("capo:corpus/").partition("?")[0]
    assert _read_object(stack, "capo", f"shared/corpus/{sha256}/manifest.json")["kind"] == "corpus"


def _read_object(stack: Stack, bucket: str, key: str) -> Any:
    import boto3

    environment = stack.environment("mlflow")
    store = boto3.client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    return json.loads(store.get_object(Bucket=bucket, Key=key)["Body"].read())


@pytest.mark.torture
def test_a_run_outlasts_a_database_that_is_gone_for_a_while(stack: Stack) -> None:
    lineage = Path(stack.environment("worker")["CAPO_HOME"]) / "lineage"
    for number in range(n_rounds(10)):
        before = set(lineage.glob("*.json"))
        overrides = ["--set", "name=gone-database", "--set", f"splits.seed={100 + number}"]
        command = [sys.executable, "-m", "deployments.cli", "pairs", str(ROOT / EXAMPLE), *overrides]
        log = stack.folder / f"outlasting-{number}.log"
        with log.open("wb") as output:
            run = subprocess.Popen(
                command, cwd=ROOT, env=stack.environment("worker"), stdout=output, stderr=subprocess.STDOUT
            )
        while len(set(lineage.glob("*.json")) - before) <= number % 8:
            assert run.poll() is None, log.read_text()
            time.sleep(0.1)
        stack.restart("postgres", away_seconds=10)
        run.wait(600)
        if run.returncode:  # failed, with a reason; then the next run goes on from there
            again = stack.run("worker", *command)
            assert again.returncode == 0, log.read_text() + again.stderr
        print(f"PostgreSQL gone after {1 + number % 8} steps: exit code {run.returncode}")
        keys = {path.stem for path in set(lineage.glob("*.json")) - before}
        assert len(keys) >= 9  # the split and two for each of four people; at first the reading of the file
        assert keys <= keys_with_metrics(_mlflow(stack), MLFLOW_USER)


def test_logs_hold_no_secret_and_no_attempt_to_report_to_anybody(stack: Stack) -> None:
    for log in stack.folder.glob("*.log"):
        text = log.read_text(encoding="utf-8", errors="replace")
        assert [name for name, secret in SECRETS.items() if secret in text] == [], log.name
        # Not where it is part of a path: a server that lost its database prints where that was noticed.
        assert not re.search(r"telemetry(?!/)", text, flags=re.IGNORECASE), log.name
