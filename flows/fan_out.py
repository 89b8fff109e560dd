"""The Prefect task runner for each of the places that CAPO_FANOUT may name; see `tasks.fan_out`."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from capo_core.errors import ConfigError
from tasks.fan_out import SETTING, FanOut, read_fan_out
from tasks.jobs import count_gpus
from tasks.step import StepTask

_SHARED_SETTINGS = ("CAPO_ARTIFACTS", "CAPO_HOME", "CAPO_DATA_DIR", "MLFLOW_TRACKING_URI", "PREFECT_API_URL")


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


class _TellsTheServer:
    """A task runner whose steps report to the server that this process uses, a temporary one of its own included."""

    @cached_property
    def _server(self) -> str:
        with get_client(sync_client=True) as client:
            return str(client.api_url)

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        with temporary_settings({PREFECT_API_URL: self._server}):
            return super().submit(*args, **kwargs)  # type: ignore[misc]


class _ProcessPool(_TellsTheServer, ProcessPoolTaskRunner):
    """Processes of this machine."""


def _ray_runner(found: FanOut) -> TaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options
    except ImportError:
        raise ConfigError(f"{SETTING}={os.environ[SETTING]}: Ray is not installed; pip install 'capo[ray]'") from None

    class StepRayTaskRunner(_TellsTheServer, RayTaskRunner):
        """Asks the cluster for as many GPUs as a step's training has processes, where the cluster has any."""

        def submit(self, task: Any, parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            with remote_options(**_resources(task, parameters)):
                return super().submit(task, parameters, *args, **kwargs)

    if found.address is not None:
        settings = {name: os.environ[name] for name in _SHARED_SETTINGS if name in os.environ}
        return StepRayTaskRunner(address=found.address, init_kwargs={"runtime_env": {"env_vars": settings}})
    init_kwargs: dict[str, Any] = {"include_dashboard": False}
    if found.n_at_once is not None:
        init_kwargs["num_cpus"] = found.n_at_once
    return StepRayTaskRunner(init_kwargs=init_kwargs)


def _resources(task: StepTask, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what a step asks of a Ray cluster, by Ray's names."""
    import ray

    if not task.uses_models or not ray.cluster_resources().get("GPU"):
        return {}
    return {"num_gpus": count_gpus(parameters)}
