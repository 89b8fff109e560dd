"""Trainings to be killed, as functions for processes of their own, and in two processes as a program:
`python killed_training.py FOLDER`.

FOLDER holds the tiny model in `tiny` and its SFT adapter in `sft`, and gets the checkpoints in `checkpoints`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_model import ADAPTER, FLOAT32, demonstrations, preferences

from capo_core.progress import Progress, silent
from capo_core.training.capo import train_capo
from capo_core.training.log import TrainingResult
from capo_core.training.sft import train_sft
from schemas.artifacts import ModelRef
from schemas.training import CAPOConfig, SFTConfig

# 7 items in threes, so that the last batch of an epoch has one item and the second of two processes nothing of it.
# 24 steps; the checkpoints after 8 and 16 end no epoch of 3.
CONFIG = CAPOConfig(n_epochs=8, batch_size=3, learning_rate=1e-3)
SFT_CONFIG = SFTConfig(n_epochs=8, batch_size=3, learning_rate=1e-2)


def train(
    folder: Path, n_processes: int, output: str, checkpoints: str | None, progress: Progress = silent
) -> TrainingResult:
    """Return the result of a CAPO training in a number of processes; the adapter is in `<folder>/<output>`."""
    return train_capo(
        preferences(7, 1), _tiny(folder), FLOAT32, ADAPTER, CONFIG.model_copy(update={"n_processes": n_processes}),
        sft_adapter_dir=folder / "sft", seed=5, output_dir=folder / output,
        checkpoint_dir=folder / checkpoints if checkpoints else None, progress=progress,
    )  # fmt: skip


def train_alone(folder: Path, method: str, output: str, checkpoints: str, progress: Progress = silent) -> None:
    """Train by a method in this process; the log is left beside the adapter, in `<folder>/<output>`."""
    torch.set_num_threads(1)
    if method == "capo":
        result = train(folder, 1, output, checkpoints, progress)
    else:
        result = train_sft(
            demonstrations(7, 1), _tiny(folder), FLOAT32, ADAPTER, SFT_CONFIG, seed=5, output_dir=folder / output,
            checkpoint_dir=folder / checkpoints, progress=progress,
        )  # fmt: skip
    result.log.write_parquet(folder / output / "log.parquet")
    (folder / output / "resumed_from").write_text(str(result.resumed_from_step))


def train_and_be_killed(folder: Path, method: str, output: str, checkpoints: str, n_writes: int) -> None:
    """Train in a process that is killed while it writes this one of its checkpoints' files, or makes their folder."""
    n_begun, save = 0, torch.save

    def die_if_due() -> None:
        nonlocal n_begun
        n_begun += 1
        if n_begun > n_writes:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.mkdir", "os.rename") and f"/{checkpoints}/" in str(arguments[0]):
            is_read = event == "open" and isinstance(arguments[1], str) and "w" not in arguments[1]
            if not is_read:
                die_if_due()

    def save_half(content: Any, path: Any, **options: Any) -> None:
        save(content, path, **options)
        size = os.path.getsize(path)
        os.truncate(path, size // 2)
        die_if_due()
        os.truncate(path, 0)
        save(content, path, **options)

    sys.addaudithook(watch)
    torch.save = save_half
    train_alone(folder, method, output, checkpoints)


def _tiny(folder: Path) -> ModelRef:
    return ModelRef(id="tiny", path=str(folder / "tiny"), fingerprint="tiny-fingerprint")


if __name__ == "__main__":
    train(Path(sys.argv[1]), 2, "two", "checkpoints")
