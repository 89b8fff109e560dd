"""What a training run hands back: its log as a table, and its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from schemas.frames import TRAINING_LOG, check_columns

if TYPE_CHECKING:
    from capo_core.training.collate import EncodedCorpus

_METRICS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "chosen_logps": "chosen_logps",
    "rejected_logps": "rejected_logps",
    "margin": "margin",
    "accuracy": "accuracy",
    "logps/chosen": "chosen_logps",
    "logps/rejected": "rejected_logps",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}
"""Names of logged metrics, ours and TRL's, and what the table calls them."""


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of one training run, apart from the adapter in its folder.

    Attributes:
        log: TRAINING_LOG frame.
        n_examples: groups (a prompt with its responses) trained on.
        n_validation_examples: groups the validation figures are means over.
        n_pairs: pairs of chosen and rejected among `n_examples`; 0 for supervised fine-tuning.
        n_steps: optimiser steps in all.
        n_truncated_prompts: groups of either split whose item text was cut to fit.
        n_truncated_responses: distinct responses of either split that were cut.
        resumed_from_step: step of the checkpoint that the run was resumed from, 0 if it started afresh.
    """

    log: pl.DataFrame
    n_examples: int
    n_validation_examples: int
    n_pairs: int
    n_steps: int
    n_truncated_prompts: int
    n_truncated_responses: int
    resumed_from_step: int


def summarise(trainer: Any, corpus: EncodedCorpus, resumed_from_step: int) -> TrainingResult:
    """Return the result of a finished trainer (of transformers) over a corpus."""
    return TrainingResult(
        log=training_log(trainer.state.log_history),
        n_examples=len(corpus.train),
        n_validation_examples=len(corpus.validation),
        n_pairs=sum(len(group.rejected) for group in corpus.train),
        n_steps=trainer.state.global_step,
        n_truncated_prompts=corpus.n_truncated_prompts,
        n_truncated_responses=corpus.n_truncated_responses,
        resumed_from_step=resumed_from_step,
    )


def training_log(history: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the Trainer's log history as a TRAINING_LOG frame, in the order logged.

    Validation metrics are those named `eval_…`; what is not in the table's vocabulary (run times, entropies) is left
    out.
    """
    rows = []
    for entry in history:
        # Sorted, because a history read back from a checkpoint is.
        for name, value in sorted(entry.items()):
            split = "validation" if name.startswith("eval_") else "train"
            metric = _METRICS.get(name.removeprefix("eval_"))
            if metric is not None:
                rows.append((entry["step"], float(entry["epoch"]), split, metric, float(value)))
    frame = pl.DataFrame(rows, schema=TRAINING_LOG, orient="row")
    return check_columns(frame, TRAINING_LOG, "training log")
