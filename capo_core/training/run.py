"""What both trainers share: their settings, resuming, progress and the log."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from capo_core.progress import Progress
from capo_core.seeding import derive_seed
from capo_core.training.checkpoints import SealCheckpoints, checkpoint_step, checkpoint_steps, newest_intact_checkpoint
from capo_core.training.ranks import n_ranks, own_rank, wait_for_all
from schemas.training import OptimisationConfig


class _ReportProgress(TrainerCallback):
    """Reports steps done and steps in all."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)


class _DrawApart(TrainerCallback):
    """Gives every process but the first random numbers of its own, so that dropout differs between them."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if own_rank() > 0:
            torch.manual_seed(derive_seed(args.seed, "rank", own_rank()))


class _SealTogether(SealCheckpoints):
    """Seals a checkpoint once every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait_for_all()
        if own_rank() == 0:
            super().on_save(args, state, control, **kwargs)
        wait_for_all()


def trainer_settings(
    config: OptimisationConfig, *, folder: Path, device: str, seed: int, batch_size: int, save: bool
) -> dict[str, Any]:
    """Return the keyword arguments of transformers' TrainingArguments, which TRL's configurations take as well."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "num_train_epochs": config.n_epochs,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_ratio,  # below 1 it is a share of all steps
        "lr_scheduler_type": "linear",
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "seed": seed % 2**32,
        "data_seed": seed % 2**32,
        "use_cpu": device == "cpu",
        "ddp_backend": "gloo" if device == "cpu" and n_ranks() > 1 else None,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if save else "no",
        "save_steps": 2**31,  # SealCheckpoints says when
        "save_total_limit": 2,  # the newest may turn out damaged
        "save_only_model": False,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }


@contextmanager
def checkpoint_folder(checkpoint_dir: Path | None, config: OptimisationConfig) -> Iterator[tuple[Path, bool]]:
    """Yield the folder the trainer may write to and whether checkpoints are wanted there."""
    if checkpoint_dir is not None and config.n_checkpoints > 0:
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        yield checkpoint_dir, True
        return
    with tempfile.TemporaryDirectory(prefix="capo-training-") as scratch:
        yield Path(scratch), False


def run_trainer(trainer: Any, config: OptimisationConfig, identity: str, *, progress: Progress) -> int:
    """Train to the end, from the newest intact checkpoint of the same run if there is one.

    The trainer comes with its model at the start of training: for CAPO the SFT adapter, which the reference is taken
    from. Only then is a checkpoint's adapter loaded over it.

    Args:
        trainer: a transformers Trainer.
        config: how many epochs and checkpoints.
        identity: what `run_identity` says of the run.
        progress: called after every step.

    Returns:
        The step of the checkpoint resumed from, 0 if none.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_ReportProgress(progress))
    trainer.add_callback(_DrawApart())
    resumed, resumed_from = None, 0
    if trainer.args.save_strategy != "no":
        per_epoch = math.ceil(len(trainer.train_dataset) / trainer.args.train_batch_size)
        steps = checkpoint_steps(config.n_checkpoints, config.n_epochs * per_epoch, per_epoch)
        trainer.add_callback(_SealTogether(identity, steps))
        resumed = newest_intact_checkpoint(Path(trainer.args.output_dir), identity)
        # Asked now, because newer checkpoints may have replaced it at the end.
        resumed_from = 0 if resumed is None else checkpoint_step(resumed) or 0
    trainer.args.eval_on_start = resumed is None and trainer.eval_dataset is not None
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    return resumed_from
