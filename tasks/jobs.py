"""Steps that run a model as flow runs of their own: a work pool makes each a process, a container or a Kubernetes job.

The step that a run submits keeps its place in the run, its cache key and its lock; it only waits, while the deployment
`step/step` computes. What travels are the step's name and inputs as JSON; the outcome is read from the lineage record
that the job leaves, so both see the same artifacts: at CAPO_ARTIFACTS, or under the same CAPO_HOME.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, get_type_hints

from prefect import Task
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic import TypeAdapter

from capo_core.errors import StackError
from tasks.fan_out import SETTING, read_fan_out

DEPLOYMENT = "step/step"
GPU_VARIABLE = "gpus"
"""What a pool calls the number of GPUs of a job, where it can be asked for any."""

_POLL_SECONDS = 1.0
_REPORTS_TO: ContextVar[str | None] = ContextVar("reports_to", default=None)


def sends_jobs() -> bool:
    """Return whether CAPO_FANOUT says that steps that run a model are jobs, and this is none itself."""
    return read_fan_out().place == "jobs" and reports_to() is None


def reports_to() -> str | None:
    """Return the id of the flow run for which this process computes a step, None where it is no job."""
    return _REPORTS_TO.get()


@contextmanager
def reporting_to(flow_run_id: str) -> Iterator[None]:
    """Compute what follows for another flow run, here."""
    token = _REPORTS_TO.set(flow_run_id)
    try:
        yield
    finally:
        _REPORTS_TO.reset(token)


def run_as_job(step: Task[..., Any], inputs: Mapping[str, Any], label: str, flow_run_id: str) -> None:
    """Let the deployment `step/step` compute a step and wait until it has.

    Args:
        step: what to compute.
        inputs: its arguments by name.
        label: what the job is called.
        flow_run_id: for which it is computed.

    Raises:
        StackError: if there is no such deployment or the job did not complete; says where its log is.
    """
    parameters = {
        "module": step.fn.__module__,
        "name": step.fn.__name__,
        "label": label,
        "inputs": write_inputs(step, inputs),
        "for_flow_run": flow_run_id,
    }
    try:
        job = run_deployment(
            DEPLOYMENT,
            parameters=parameters,
            flow_run_name=label,
            poll_interval=_POLL_SECONDS,
            job_variables=_ask_for_gpus(count_gpus(inputs)),
        )
    except ObjectNotFound:
        raise StackError(
            f"{SETTING}={os.environ[SETTING]}: this Prefect server has no deployment {DEPLOYMENT}; "
            "run capo up, or capo deploy"
        ) from None
    if job.state is None or not job.state.is_completed():
        state = "no state" if job.state is None else f"{job.state.name}: {job.state.message}"
        raise StackError(f"{label}: its flow run {job.name} ({job.id}) ended as {state}; see its log")


def count_gpus(inputs: Mapping[str, Any]) -> int:
    """Return how many GPUs a step wants: as many as its training is configured to have processes, `auto` being one."""
    asked = [getattr(value, "n_processes", "auto") for value in inputs.values()]
    return max([n for n in asked if isinstance(n, int)], default=1)


def _ask_for_gpus(n: int) -> dict[str, Any]:
    """Return the job variables that give a job its GPUs, none where the pool's jobs take what their worker has."""
    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(client.read_deployment_by_name(DEPLOYMENT).work_pool_name or "")
    known = pool.base_job_template.get("variables", {}).get("properties", {})
    return {GPU_VARIABLE: n} if GPU_VARIABLE in known else {}


def write_inputs(step: Task[..., Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's inputs as JSON values."""
    hints = get_type_hints(step.fn)
    return {name: TypeAdapter(hints[name]).dump_python(value, mode="json") for name, value in inputs.items()}


def read_inputs(step: Task[..., Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that were written as JSON values.

    Raises:
        pydantic.ValidationError: if a value is none that the step takes.
        KeyError: if the step has no input of that name.
    """
    hints = get_type_hints(step.fn)
    return {name: TypeAdapter(hints[name]).validate_python(value) for name, value in inputs.items()}
