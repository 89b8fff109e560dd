"""The flow that computes one step of another flow's run; see `tasks.jobs`."""

from __future__ import annotations

from typing import Any

from prefect import flow

from tasks.jobs import read_inputs, reporting_to
from tasks.step import find_step


@flow(name="step", flow_run_name="{label}", persist_result=False)
def compute_step(module: str, name: str, label: str, inputs: dict[str, Any], for_flow_run: str) -> None:
    """Compute one step of another flow run, where its artifacts are kept.

    Args:
        module: where the step is defined, below `tasks`.
        name: of its function.
        label: what the flow run is called.
        inputs: the step's arguments as JSON values.
        for_flow_run: id of the flow run that waits for it.
    """
    step = find_step(module, name)
    with reporting_to(for_flow_run):
        step.fn(**read_inputs(step, inputs))
