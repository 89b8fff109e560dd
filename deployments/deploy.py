"""Put every flow of `prefect.yaml` on a Prefect server, with the work pool and the limits it needs.

Prefect is imported when functions run, so that its settings can be made before.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from capo_core.errors import StackError

PoolType = Literal["process", "docker", "kubernetes"]
LOCAL_POOL = "capo"

_FILE = Path(__file__).parent / "prefect.yaml"


def deploy_flows(
    pool: str = LOCAL_POOL, pool_type: PoolType = "process", *, image: str | None = None, model_tasks_at_once: int = 1
) -> None:
    """Create or update the work pool, the limit on tasks that run a model, every flow's deployment, the automation.

    Args:
        pool: the work pool; one that exists keeps its own settings.
        pool_type: what its workers start a run as.
        image: container image with capo installed, for Docker and Kubernetes.
        model_tasks_at_once: over all runs of the server. By default one, because training takes every visible GPU;
            with `n_processes: 1`, as many as there are GPUs.

    Raises:
        StackError: if the image is missing, the pool is of another type, or Prefect refuses a deployment.
    """
    from prefect.client.orchestration import get_client

    from deployments.automations import automate_retraining
    from tasks.step import GPU

    if pool_type != "process" and not image:
        raise StackError(f"a pool of type {pool_type} runs containers: name one in which capo is installed (--image)")
    with get_client(sync_client=True) as client:
        _create_pool(client, pool, pool_type, image)
        client.create_concurrency_limit(tag=GPU, concurrency_limit=model_tasks_at_once)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(_FILE)]
    done = subprocess.run(
        command,
        cwd=_FILE.parent,
        env=os.environ | {"CAPO_WORK_POOL": pool},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"prefect deploy failed:\n{done.stdout}{done.stderr}")
    with get_client(sync_client=True) as client:
        automate_retraining(client)


def _create_pool(client: Any, name: str, pool_type: PoolType, image: str | None) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        existing = client.read_work_pool(name).type
    except ObjectNotFound:
        template = _find_template(client, pool_type)
        if image:
            template["variables"]["properties"]["image"]["default"] = image
        if pool_type == "kubernetes":
            _let_jobs_have_gpus(template)
        client.create_work_pool(WorkPoolCreate(name=name, type=pool_type, base_job_template=template))
        return
    if existing != pool_type:
        raise StackError(f"work pool {name} is of type {existing}, not {pool_type}; name another with --pool")


def _let_jobs_have_gpus(template: dict[str, Any]) -> None:
    """Add the number of GPUs to what a Kubernetes pool's jobs can be asked for."""
    from tasks.jobs import GPU_VARIABLE

    template["variables"]["properties"][GPU_VARIABLE] = {
        "type": "integer",
        "title": "GPUs",
        "description": "GPUs of the job's container (nvidia.com/gpu).",
        "default": 0,
    }
    (container,) = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
    container["resources"]["limits"]["nvidia.com/gpu"] = f"{{{{ {GPU_VARIABLE} }}}}"


def _find_template(client: Any, pool_type: PoolType) -> dict[str, Any]:
    """Return what Prefect's own pools of a type begin with."""
    for workers in client.read_worker_metadata().values():
        if pool_type in workers:
            return workers[pool_type]["default_base_job_configuration"]
    raise StackError(
        f"this Prefect server knows no pool of type {pool_type}; there are {', '.join(get_args(PoolType))}"
    )
