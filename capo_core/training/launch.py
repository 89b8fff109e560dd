"""Training in other processes than the caller's: how many, starting them by torchrun, and how they end.

The caller writes the job into a folder, starts `capo_core.training.worker` once per GPU and waits. Every worker holds
the reading end of one pipe whose writing end is the caller's alone: when the caller is gone, however it went, the pipe
ends and the workers end with it.

Several machines train together where torchrun's own environment variables say so (PET_NNODES, PET_RDZV_BACKEND,
PET_RDZV_ENDPOINT, PET_RDZV_ID) and all see the folders of the job under the same paths. The caller runs on one of
them; on each other one the command that it logs is started by hand.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import torch

import capo_core
from capo_core import errors
from capo_core.errors import CapoError, TrainingError
from capo_core.progress import Progress
from capo_core.training.job import (
    ENDS_WITH_STDIN,
    CAPOJob,
    ProgressFile,
    SFTJob,
    pass_on_warnings,
    read_result,
    write_job,
)
from capo_core.training.log import TrainingResult
from capo_core.training.ranks import in_process_group
from schemas.training import OptimisationConfig

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 15.0
_N_LAST_LINES = 30
_OUTPUT, _ERROR = "output.log", "error.json"
_LOGGER = logging.getLogger(__name__)


def count_gpus(device: str) -> int:
    """Return how many GPUs a training on `device` (cpu, cuda) sees."""
    return torch.cuda.device_count() if device == "cuda" else 0


def count_machines() -> int:
    """Return how many machines torchrun's environment variable says train together, 1 where it is not set."""
    return int(os.environ.get("PET_NNODES", "1").rpartition(":")[2])


def processes_to_start(config: OptimisationConfig, n_gpus: int, n_machines: int = 1) -> int:
    """Return how many processes to start on this machine for a training; 0 where the calling process trains.

    A process that sees several GPUs never trains itself, because transformers' Trainer would then divide its batches
    among them.

    Args:
        config: with `n_processes`.
        n_gpus: that the training sees; 0 on CPU, where any number of processes is allowed.
        n_machines: that train together.

    Raises:
        TrainingError: if more processes are configured than there are GPUs, or TRL is to train on several machines.
    """
    if in_process_group():
        return 0
    automatic = 1 if config.trainer == "trl" else max(1, n_gpus)
    wanted = automatic if config.n_processes == "auto" else config.n_processes
    if 0 < n_gpus < wanted:
        raise TrainingError(
            f"n_processes is {wanted}, but the number of visible GPUs is {n_gpus}; set n_processes: auto, or make more "
            "of them visible (CUDA_VISIBLE_DEVICES)"
        )
    if config.trainer == "trl" and n_machines > 1:
        raise TrainingError("trainer trl trains in one process; set trainer: grouped, or unset PET_NNODES")
    return wanted if max(wanted, n_gpus, n_machines) > 1 else 0


def train_in_processes(
    job: SFTJob | CAPOJob, tables: Mapping[str, pl.DataFrame], n_processes: int, progress: Progress
) -> TrainingResult:
    """Return the result of a job computed by `n_processes` new processes; the adapter is in the job's folder.

    Args:
        job: what to train.
        tables: `data`, and for CAPO `reference` where it is known.
        n_processes: on this machine.
        progress: called in the calling process; if it raises, the processes are ended.

    Raises:
        CapoError: the error a process raised, if it is one of capo's.
        TrainingError: if a process failed otherwise or was killed, with the last lines of the output.
    """
    job.output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="capo-processes-", dir=job.output_dir.parent) as scratch:
        folder = Path(scratch)
        write_job(folder, job, tables)
        reported, shown = ProgressFile(folder), None
        with _started(folder, n_processes) as process:
            running = True
            while running:
                time.sleep(_POLL_SECONDS)
                running = process.poll() is None
                done = reported.read()
                if done is not None and done != shown:
                    shown = done
                    progress(*done)
        pass_on_warnings(folder, _LOGGER)
        if process.returncode != 0:
            raise _explain(folder, n_processes)
        return read_result(folder)


@contextmanager
def _started(folder: Path, n_processes: int) -> Iterator[subprocess.Popen]:
    """Yield the process that holds the workers, or is the only one; at the end of the block none is left."""
    with (folder / _OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *_command(folder, n_processes)],
            env=os.environ | _environment(folder, n_processes),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the keyboard is the caller's
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(folder: Path, n_processes: int) -> list[str]:
    """Return the arguments of Python: torchrun over the workers, or the only worker."""
    worker = ["-m", "capo_core.training.worker", str(folder)]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={n_processes}", "--max-restarts=0"]
    if count_machines() > 1:
        _LOGGER.warning("start on every other machine: python %s", " ".join([*torchrun, *worker]))
        return [*torchrun, f"--log-dir={folder}", *worker]
    if n_processes == 1:
        return worker
    # torchrun takes a free port, so that trainings at the same time do not meet.
    return [*torchrun, "--standalone", "--local-addr=127.0.0.1", f"--log-dir={folder}", *worker]


def _environment(folder: Path, n_processes: int) -> dict[str, str]:
    """Return what is added to the environment of the processes."""
    search = [str(Path(capo_core.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    added = {
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        "TORCHELASTIC_ERROR_FILE": str(folder / _ERROR),
        ENDS_WITH_STDIN: "1",
    }
    if n_processes == 1 and count_machines() == 1:
        added["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if "OMP_NUM_THREADS" not in os.environ:
        added["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // n_processes))
    return added


def _explain(folder: Path, n_processes: int) -> CapoError:
    """Return the error of the process that failed first, as far as it could say."""
    if (folder / _ERROR).is_file():
        content = json.loads((folder / _ERROR).read_text(encoding="utf-8"))
        name, _, text = str(content["message"]["message"]).partition(": ")
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, CapoError):
            return kind(text)
    lines = (folder / _OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    last = "\n".join(line for line in lines if line.strip())[-4000:].splitlines()[-_N_LAST_LINES:]
    return TrainingError(
        f"one of {n_processes} training processes failed or was killed, so all were ended. Started again, the training "
        "goes on from its last checkpoint. The last lines they wrote:\n" + "\n".join(last)
    )
