"""transformers' Trainer over items: every token is computed once.

Checkpoints, the optimiser, the schedule, callbacks and resuming are the Trainer's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from capo_core.errors import TrainingError
from capo_core.training.batch import Family, Part, families_per_batch, gather_families, split_into_parts
from capo_core.training.collate import EncodedCorpus
from capo_core.training.logps import hidden_dtype
from capo_core.training.objective import Objective, Sums, measure, sum_losses
from schemas.training import OptimisationConfig


class GroupedTrainer(Trainer):
    """Trains on families of groups; a batch too long for one pass goes through in parts whose gradients add up."""

    def __init__(self, *, objective: Objective, max_tokens: int, **kwargs: Any) -> None:
        super().__init__(data_collator=self._collate, **kwargs)
        self._objective = objective
        self._max_tokens = max_tokens
        self._last: dict[str, float] = {}

    def _collate(self, families: Sequence[Family]) -> dict[str, list[Part]]:
        return {"parts": split_into_parts(families, hidden_dtype(self.model), self._max_tokens)}

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add the batch's gradients and return its loss.

        Raises:
            TrainingError: if the loss is not finite.
        """
        model.train()
        parts: list[Part] = inputs["parts"]
        n_groups, n_tokens = sum(len(p.groups) for p in parts), sum(p.n_chosen_tokens for p in parts)
        total: Sums | None = None
        for part in parts:
            sums = sum_losses(model, part.to(self.args.device), self._objective)
            self.accelerator.backward(sums.loss(self._objective, n_groups, n_tokens))
            total = sums.detach() if total is None else total + sums.detach()
        assert total is not None
        self._last = total.means(self._objective)
        if not math.isfinite(self._last["loss"]):
            raise TrainingError(
                f"the loss is {self._last['loss']} at step {self.state.global_step + 1}; lower learning_rate, "
                "or use dtype float32"
            )
        return total.loss(self._objective, n_groups, n_tokens)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return and log the validation metrics, each a mean over all groups (or chosen tokens) of the split."""
        families: Any = self.eval_dataset
        parts = split_into_parts(families, hidden_dtype(self.model), self._max_tokens)
        metrics = {f"eval_{name}": value for name, value in measure(self.model, parts, self._objective).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, adding the step's preference metrics to its loss."""
        super().log(logs | self._last if "loss" in logs else logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the Trainer's estimate is for its own kind of batch."""
        return 0


def grouped_trainer(
    model: Any, corpus: EncodedCorpus, objective: Objective, config: OptimisationConfig, settings: dict[str, Any]
) -> GroupedTrainer:
    """Return the trainer of a corpus of groups.

    Args:
        model: PEFT model at the start of training.
        corpus: groups, with reference log-probabilities if the objective has preferences.
        objective: what to minimise.
        config: token budget of a pass.
        settings: from `run.trainer_settings`; its batch size counts groups, and as many families as hold so many on
            average are taken.
    """
    train: Any = gather_families(corpus.train)
    validation: Any = gather_families(corpus.validation) or None
    n_families = families_per_batch(train, settings["per_device_train_batch_size"])
    settings = {**settings, "per_device_train_batch_size": n_families}
    arguments = TrainingArguments(
        **settings,
        eval_strategy="epoch" if corpus.validation else "no",
        remove_unused_columns=False,
    )
    return GroupedTrainer(
        objective=objective,
        max_tokens=config.max_tokens_per_pass,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
    )
