"""What every step of the line has in common: a cached Prefect task around a function that reads and writes artifacts.

A step is written as a function of a `Step` and its inputs::

    @step("agreement", version=1)
    def analyze_agreement(step: Step, corpus: ArtifactRef, task: TaskSpec) -> ArtifactRef:
        table = agreement_table(step.read(corpus), task.labels.level)
        return step.write("agreement", {"data.parquet": table})

and is called, in flows, without the first argument. Inputs are artifact references, configuration sections and plain
values only: they make the cache key (see `tasks.caching`). Around the body stand the MLflow run, the lineage record
and the progress lines.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
from prefect import Task
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.transactions import IsolationLevel
from pydantic import JsonValue

from capo_core.errors import StackError
from schemas.artifacts import ArtifactKind, ArtifactRef, ModelRef
from tasks import tracking
from tasks.caching import ContentPolicy, FlockLockManager, ReferenceSerializer, compute_cache_key, identify
from tasks.jobs import reports_to, run_as_job, sends_jobs
from tasks.memory import returns_memory
from tasks.progress import StepProgress, format_seconds, run_progress
from tasks.sources import find_model_here
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.leases import hold_turn
from tasks.storage.shared_results import recall, settle

GPU = "gpu"
"""Tag of tasks that run a model; a server's limit on it lets only so many run at once.

Without a server that stays (PREFECT_API_URL) there is no limit and no tag. To be told so by a temporary server takes
some two seconds a step: its SQLite is busy with the step before, and Prefect's client waits that long to ask again.
"""

STEP_VERSIONS: dict[str, int] = {}
"""The declared version of every step of the modules that were imported."""

_LOCKS = FlockLockManager()
_LABEL_FIELDS = ("method", "annotator_id", "target", "seed")


class Step:
    """What a step's body may do: read and write artifacts, log, and say how far it is."""

    def __init__(self, name: str, label: str, key: str, logger: logging.Logger | logging.LoggerAdapter) -> None:
        self.name = name
        self.label = label
        self.key = key
        self.logger = logger
        self.progress = StepProgress(label, logger)
        self.store = ArtifactStore()
        self.written: list[ArtifactRef] = []
        self.run_id: str | None = None

    def read(self, ref: ArtifactRef, table: str | None = None) -> pl.DataFrame:
        """Return a table of an artifact, verified."""
        return self.store.read_table(ref, table)

    def read_all(self, refs: Iterable[ArtifactRef], table: str | None = None) -> pl.DataFrame:
        """Return the tables of several artifacts of one kind, one below the other."""
        return pl.concat([self.read(ref, table) for ref in refs])

    def folder(self, ref: ArtifactRef) -> Path:
        """Return the folder of an artifact after verifying it."""
        self.store.verify(ref)
        return self.store.path(ref)

    def write(
        self,
        kind: ArtifactKind,
        tables: Mapping[str, pl.DataFrame] | None = None,
        *,
        fill: Callable[[Path], None] | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> ArtifactRef:
        """Store an artifact and return its reference."""
        ref = self.store.write(kind, tables, fill=fill, metadata=metadata)
        self.written.append(ref)
        return ref

    @property
    def scratch(self) -> Path:
        """A folder of this computation's own that survives a kill, for checkpoints; removed when the step is done."""
        path = self.store.home / "scratch" / self.key
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Log figures to the step's MLflow run; None is not logged."""
        if self.run_id is not None:
            tracking.log_metrics(self.run_id, {name: value for name, value in metrics.items() if value is not None})

    def log_training(self, log: pl.DataFrame) -> None:
        """Log a TRAINING_LOG frame to the step's MLflow run."""
        if self.run_id is not None:
            tracking.log_training(self.run_id, log)


class StepTask(Task[..., Any]):
    """A Prefect task that other processes take by its module and name: only its inputs travel, and no code does.

    Attributes:
        uses_models: whether it runs a model.
    """

    uses_models: bool = False

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return find_step, (self.fn.__module__, self.fn.__qualname__)


def find_step(module: str, name: str) -> StepTask:
    """Return the step that a module below `tasks` defines under a name.

    Raises:
        ValueError: if there is no such step.
    """
    found = getattr(import_module(module), name, None) if module.startswith("tasks.") else None
    if not isinstance(found, StepTask):
        raise ValueError(f"{module}.{name} is no step of capo")
    return found


def step(name: str, *, version: int, uses_models: bool = False) -> Callable[[Callable[..., Any]], StepTask]:
    """Return a decorator that makes a cached Prefect task of a step's body.

    Args:
        name: the step's name, unique among steps; part of its cache key.
        version: raise it whenever equal inputs would now give another outcome.
        uses_models: whether it runs a model: library versions are then part of the cache key, and where Prefect's
            server stays it is tagged `GPU`.
    """

    STEP_VERSIONS[name] = version

    def decorate(body: Callable[..., Any]) -> StepTask:
        signature = inspect.signature(body)
        own_parameter, *parameters = signature.parameters.values()
        public = signature.replace(parameters=parameters)
        compute = returns_memory(body) if uses_models else body

        @wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            bound = public.bind(*args, **kwargs)
            bound.apply_defaults()
            return _obtain(name, version, uses_models, compute, bound.arguments)

        run.__signature__ = public  # type: ignore[attr-defined]
        run.__annotations__ = {k: v for k, v in body.__annotations__.items() if k != own_parameter.name}
        policy = ContentPolicy(name=name, version=version, uses_models=uses_models)
        task = StepTask(
            run,
            name=name,
            task_run_name=_name_task_run,
            tags=[GPU] if uses_models and PREFECT_API_URL.value() else None,
            cache_policy=policy.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=_LOCKS),
            persist_result=True,
            result_serializer=ReferenceSerializer(),
        )
        task.uses_models = uses_models
        return task

    return decorate


def _obtain(name: str, version: int, uses_models: bool, body: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    """Compute a step, unless another machine that shares the artifacts has, or does while this one waits."""
    key = compute_cache_key(name, version, dict(inputs), uses_models=uses_models)
    current = Step(name, describe_step(name, inputs), key, _logger())
    flow_run_id = _flow_run_id()
    if uses_models and sends_jobs() and flow_run_id is not None:
        return _send(current, find_step(body.__module__, body.__qualname__), inputs, flow_run_id)
    remote = current.store.remote
    if remote is None:
        return _compute(current, version, body, inputs)[0]
    found = recall(current.store, key, current.logger)
    if found is None:
        with hold_turn(remote.objects, key):
            found = recall(current.store, key, current.logger)
            if found is None:
                result, record = _compute(current, version, body, inputs)
                return settle(current.store, remote, key, record, result, current.logger)
    current.logger.info("%s: computed before, found at %s", current.label, remote.url)
    return found


def _send(current: Step, step: StepTask, inputs: Mapping[str, Any], flow_run_id: str) -> Any:
    """Let a job compute a step, unless it was computed before, and return what its lineage record says."""
    found = recall(current.store, current.key, current.logger)
    if found is None:
        progress, started = run_progress(flow_run_id), time.monotonic()
        current.logger.info("%s: %s, sent as a job", progress.describe(current.name), current.label)
        run_as_job(step, inputs, current.label, flow_run_id)
        progress.record(current.name, time.monotonic() - started)
        found = recall(current.store, current.key, current.logger)
    if found is None:
        raise StackError(
            f"{current.label}: computed as a job, and its result is not to be found here; let the jobs have this "
            "run's CAPO_ARTIFACTS, or its CAPO_HOME"
        )
    return found


def _compute(
    current: Step, version: int, body: Callable[..., Any], inputs: Mapping[str, Any]
) -> tuple[Any, dict[str, JsonValue]]:
    """Run a step's body with MLflow run, lineage record and log lines around it; return its result and that record."""
    name, label, key = current.name, current.label, current.key
    reads = list(collect_refs(inputs.values()))
    config = {k: identify(v) for k, v in inputs.items() if not any(True for _ in collect_refs([v]))}
    flow_run_id = _flow_run_id()
    if flow_run_id is not None:
        current.logger.info("%s: %s", run_progress(flow_run_id).describe(name), label)
        current.run_id = tracking.start_step_run(flow_run_id, label, name, version, key, config)
    started = time.monotonic()
    try:
        result = body(current, **{name: _here(value) for name, value in inputs.items()})
    except BaseException:
        if current.run_id is not None:
            tracking.name_artifacts(current.run_id, reads=reads, writes=current.written)
            tracking.finish_run(current.run_id, failed=True)
        raise
    seconds = time.monotonic() - started
    record: dict[str, JsonValue] = {
        "step": name,
        "version": version,
        "key": key,
        "config": config,
        "reads": [str(ref) for ref in reads],
        "writes": [str(ref) for ref in current.written],
        "returns": [str(ref) for ref in collect_refs([result])],
        "seconds": round(seconds, 3),
    }
    current.store.record_lineage(key, record)
    if current.run_id is not None:
        tracking.name_artifacts(current.run_id, reads=reads, writes=current.written)
        current.log_metrics({"seconds": seconds})
        tracking.finish_run(current.run_id)
    if flow_run_id is not None:
        run_progress(flow_run_id).record(name, seconds)
    current.logger.info("%s: done in %s", label, format_seconds(seconds))
    return result, record


def _here(value: Any) -> Any:
    return find_model_here(value) if isinstance(value, ModelRef) else value


def describe_step(name: str, inputs: Mapping[str, Any]) -> str:
    """Return the step's name with those of its inputs that tell its runs apart: `train-capo Ann1 seed 13`."""
    parts = [name]
    for field in _LABEL_FIELDS:
        value = inputs.get(field)
        if value is not None:
            parts.append(f"seed {value}" if field == "seed" else str(value))
    return " ".join(parts)


def collect_refs(values: Iterable[Any]) -> Iterable[ArtifactRef]:
    """Yield every artifact reference among `values`, those inside lists, tuples and mappings included."""
    for value in values:
        if isinstance(value, ArtifactRef):
            yield value
        elif isinstance(value, Mapping):
            yield from collect_refs(value.values())
        elif isinstance(value, list | tuple):
            yield from collect_refs(value)


def _name_task_run() -> str:
    context = TaskRunContext.get()
    if context is None:
        raise RuntimeError("a task run is named inside its own run only")
    return describe_step(context.task.name, context.parameters)


def _flow_run_id() -> str | None:
    if reports_to() is not None:
        return reports_to()
    context = TaskRunContext.get()
    return None if context is None or context.task_run.flow_run_id is None else str(context.task_run.flow_run_id)


def _logger() -> logging.Logger | logging.LoggerAdapter:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("capo")
