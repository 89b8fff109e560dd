"""A training as files, by which a process hands it to others and gets it back: JSON and Parquet, nothing pickled."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import Field, TypeAdapter

from capo_core.training.log import TrainingResult
from schemas.artifacts import ModelRef
from schemas.section import Section
from schemas.training import AdapterConfig, CAPOConfig, ModelConfig, SFTConfig

ENDS_WITH_STDIN = "CAPO_ENDS_WITH_STDIN"
"""Environment variable of a process that has to end when its standard input does."""

_JOB, _RESULT, _LOG, _PROGRESS, _WARNINGS = "job.json", "result.json", "log.parquet", "progress.json", "warnings.log"


class _Job(Section):
    """What both trainings take apart from their tables; the names are those of `train_sft` and `train_capo`."""

    model: ModelRef
    settings: ModelConfig
    adapter: AdapterConfig
    seed: int
    output_dir: Path
    checkpoint_dir: Path | None


class SFTJob(_Job):
    """Supervised fine-tuning."""

    method: Literal["sft"] = "sft"
    config: SFTConfig
    start_dir: Path | None = None


class CAPOJob(_Job):
    """Preference optimisation."""

    method: Literal["capo"] = "capo"
    config: CAPOConfig
    sft_adapter_dir: Path


_JOBS: TypeAdapter[SFTJob | CAPOJob] = TypeAdapter(Annotated[SFTJob | CAPOJob, Field(discriminator="method")])


def write_job(folder: Path, job: SFTJob | CAPOJob, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write a job and its tables, each as `<name>.parquet`."""
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    (folder / _JOB).write_text(job.model_dump_json(indent=2), encoding="utf-8")


def read_job(folder: Path) -> tuple[SFTJob | CAPOJob, dict[str, pl.DataFrame]]:
    """Return the job of a folder and its tables by name."""
    tables = {path.stem: pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    return _JOBS.validate_json((folder / _JOB).read_bytes()), tables


def write_result(folder: Path, result: TrainingResult) -> None:
    """Write what a training hands back."""
    result.log.write_parquet(folder / _LOG)
    counts = {name: value for name, value in asdict(result).items() if name != "log"}
    (folder / _RESULT).write_text(json.dumps(counts), encoding="utf-8")


def read_result(folder: Path) -> TrainingResult:
    """Return what `write_result` wrote."""
    counts = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    return TrainingResult(log=pl.read_parquet(folder / _LOG), **counts)


def keep_warnings(folder: Path, logger: logging.Logger) -> None:
    """Have a logger's warnings and errors written to the folder."""
    handler = logging.FileHandler(folder / _WARNINGS, encoding="utf-8")
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)


def pass_on_warnings(folder: Path, logger: logging.Logger) -> None:
    """Log again what another process logged by `keep_warnings`."""
    if (folder / _WARNINGS).is_file():
        for line in (folder / _WARNINGS).read_text(encoding="utf-8").splitlines():
            logger.warning("%s", line)


class ProgressFile:
    """A `capo_core.progress.Progress` through a file: one process calls it, the other reads it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _PROGRESS

    def __call__(self, n_done: int, n_total: int) -> None:
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps([n_done, n_total]), encoding="utf-8")
        temporary.replace(self._path)

    def read(self) -> tuple[int, int] | None:
        """Return the number of steps done and in all, None before the first."""
        if not self._path.is_file():
            return None
        n_done, n_total = json.loads(self._path.read_text(encoding="utf-8"))
        return n_done, n_total
