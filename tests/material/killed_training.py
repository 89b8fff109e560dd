"""A process that trains in two processes, to be killed: `python killed_training.py FOLDER`.

FOLDER holds the tiny model in `tiny` and its SFT adapter in `sft`, and gets the checkpoints in `checkpoints`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_model import ADAPTER, FLOAT32, preferences

from capo_core.progress import Progress, silent
from capo_core.training.capo import train_capo
from capo_core.training.log import TrainingResult
from schemas.artifacts import ModelRef
from schemas.training import CAPOConfig

# 7 items in threes, so that the last batch of an epoch has one item and the second of two processes nothing of it.
# 24 steps; the checkpoints after 8 and 16 end no epoch of 3.
CONFIG = CAPOConfig(n_epochs=8, batch_size=3, learning_rate=1e-3)


def train(
    folder: Path, n_processes: int, output: str, checkpoints: str | None, progress: Progress = silent
) -> TrainingResult:
    """Return the result of a CAPO training in a number of processes; the adapter is in `<folder>/<output>`."""
    tiny = ModelRef(id="tiny", path=str(folder / "tiny"), fingerprint="tiny-fingerprint")
    return train_capo(
        preferences(7, 1), tiny, FLOAT32, ADAPTER, CONFIG.model_copy(update={"n_processes": n_processes}),
        sft_adapter_dir=folder / "sft", seed=5, output_dir=folder / output,
        checkpoint_dir=folder / checkpoints if checkpoints else None, progress=progress,
    )  # fmt: skip


if __name__ == "__main__":
    train(Path(sys.argv[1]), 2, "two", "checkpoints")
