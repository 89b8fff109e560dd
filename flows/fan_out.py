"""Where a run's steps are computed, which the environment variable CAPO_FANOUT says; the outcome is the same anywhere.

    threads[:N]        in the run's own process, N at once (default 1: every training uses all cores, or the GPU)
    processes:N        in N processes of this machine
    ray, ray:N         in processes of a Ray cluster that is started on this machine for the run, with N cores of it
    ray://HOST:PORT    on a running Ray cluster
    jobs:N             each step that runs a model as a flow run of its own, N at once, which the work pool turns into
                       a process, a container or a Kubernetes job (see `flows.jobs`)

Only where steps are submitted differs. Steps on several machines find each other's artifacts at CAPO_ARTIFACTS, or
under one CAPO_HOME that all of them see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from capo_core.errors import ConfigError
from tasks.jobs import count_gpus
from tasks.step import GPU

SETTING = "CAPO_FANOUT"

_FORM = re.compile(r"(?P<place>threads|processes|ray|jobs)(:(?P<n>[1-9]\d*))?")
_CLUSTER = re.compile(r"ray://[\w.\[\]:-]+:\d+")
_MANY = 32
"""Arms of an experiment that are open at once where Ray decides how many steps are."""

_SHARED_SETTINGS = ("CAPO_ARTIFACTS", "CAPO_HOME", "CAPO_DATA_DIR", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")


@dataclass(frozen=True)
class FanOut:
    """Where steps are computed.

    Attributes:
        place: see the module.
        n_at_once: steps at once; for Ray None where the cluster decides.
        address: of a running Ray cluster.
    """

    place: Literal["threads", "processes", "ray", "jobs"]
    n_at_once: int | None
    address: str | None = None

    @property
    def n_lines(self) -> int:
        """Arms of an experiment whose steps are submitted beside each other."""
        return self.n_at_once or _MANY


def read_fan_out() -> FanOut:
    """Return what CAPO_FANOUT says.

    Raises:
        ConfigError: if it has none of the forms.
    """
    text = os.environ.get(SETTING) or "threads"
    if _CLUSTER.fullmatch(text):
        return FanOut("ray", None, text)
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{SETTING}={text}: write threads, threads:N, processes:N, ray, ray:N, ray://HOST:PORT or jobs:N"
        )
    n = None if match["n"] is None else int(match["n"])
    place = match["place"]
    if place in ("processes", "jobs") and n is None:
        raise ConfigError(f"{SETTING}={text}: say how many at once, as in {place}:2")
    return FanOut(place, 1 if place == "threads" and n is None else n)  # type: ignore[arg-type]


def task_runner() -> TaskRunner[Any]:
    """Return the Prefect task runner that submits steps where CAPO_FANOUT says.

    Raises:
        ConfigError: as `read_fan_out`, and if Ray is asked for and not installed.
    """
    found = read_fan_out()
    if found.place == "ray":
        return _ray_runner(found)
    if found.place == "processes":
        return _ProcessPool(max_workers=found.n_at_once)
    return ThreadPoolTaskRunner(max_workers=found.n_at_once or 1)


class _ProcessPool(ProcessPoolTaskRunner):
    """Processes that report to the run's own Prefect server."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        with _told_the_server():
            return super().submit(*args, **kwargs)


def _ray_runner(found: FanOut) -> TaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options
    except ImportError:
        raise ConfigError(f"{SETTING}={os.environ[SETTING]}: Ray is not installed; pip install 'capo[ray]'") from None

    class StepRayTaskRunner(RayTaskRunner):
        """Asks the cluster for as many GPUs as a step's training has processes, where the cluster has any."""

        def submit(self, task: Any, parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            with remote_options(**_resources(task, parameters)), _told_the_server():
                return super().submit(task, parameters, *args, **kwargs)

    if found.address is not None:
        settings = {name: os.environ[name] for name in _SHARED_SETTINGS if name in os.environ}
        return StepRayTaskRunner(address=found.address, init_kwargs={"runtime_env": {"env_vars": settings}})
    init_kwargs: dict[str, Any] = {"include_dashboard": False}
    if found.n_at_once is not None:
        init_kwargs["num_cpus"] = found.n_at_once
    return StepRayTaskRunner(init_kwargs=init_kwargs)


@contextmanager
def _told_the_server() -> Iterator[None]:
    """Let what is submitted report to the server that this process uses, a temporary one of its own included."""
    with get_client(sync_client=True) as client:
        url = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: url}):
        yield


def _resources(task: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what a step asks of a Ray cluster, by Ray's names."""
    import ray

    if GPU not in task.tags or not ray.cluster_resources().get("GPU"):
        return {}
    return {"num_gpus": count_gpus(parameters)}
