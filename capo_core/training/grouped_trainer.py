"""transformers' Trainer over items: every token is computed once.

Checkpoints, the optimiser, the schedule, callbacks and resuming are the Trainer's own. In several processes each goes
through the same batches and computes its share of every one; what is added up over them is the gradient of the whole
batch, so that a step is the same in one process or in many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from capo_core.errors import TrainingError
from capo_core.layout.prefix_tree import count_columns
from capo_core.training.batch import Family, Part, count_batch, families_per_batch, gather_families, split_into_parts
from capo_core.training.collate import EncodedCorpus
from capo_core.training.logps import hidden_dtype
from capo_core.training.objective import Objective, Sums, add_up, sum_losses
from capo_core.training.ranks import (
    greatest_over_ranks,
    n_ranks,
    own_rank,
    share_families,
    sum_gradients,
    sum_over_ranks,
)
from capo_core.training.sharding import shares_layers
from schemas.training import OptimisationConfig


class GroupedTrainer(Trainer):
    """Trains on families of groups; a batch too long for one pass goes through in parts whose gradients add up."""

    def __init__(self, *, objective: Objective, max_tokens: int, filler: Part | None = None, **kwargs: Any) -> None:
        super().__init__(data_collator=self._collate, **kwargs)
        if n_ranks() > 1:
            # Keeps accelerate from wrapping it in DistributedDataParallel, which wants as many backward passes from
            # every process; our gradients are added up once a step.
            trained: Any = self.model
            trained._is_accelerate_prepared = True
        self._objective = objective
        self._max_tokens = max_tokens
        self._filler = filler
        self._last: dict[str, float] = {}

    def _split(self, families: Sequence[Family]) -> list[Part]:
        """Return this process's share of the families in parts."""
        share = share_families(families, own_rank(), n_ranks())
        return split_into_parts(share, hidden_dtype(self.model), self._max_tokens)

    def _fill_up(self, parts: Sequence[Part]) -> list[Part]:
        """Return parts to go through in vain: as many as the process with most parts has more than this one.

        Processes that share out a model's layers go through them together or wait for each other forever.
        """
        if self._filler is None:
            return []
        return [self._filler] * (greatest_over_ranks(len(parts)) - len(parts))

    def _collate(self, families: Sequence[Family]) -> dict[str, Any]:
        n_groups, n_tokens = count_batch(families)
        return {"parts": self._split(families), "n_groups": n_groups, "n_chosen_tokens": n_tokens}

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the training batches, in every process the same ones in the same order."""
        if n_ranks() == 1:
            return super().get_train_dataloader()
        dataset: Any = self.train_dataset
        loader = DataLoader(
            dataset, batch_size=self._train_batch_size, sampler=self._get_train_sampler(), collate_fn=self._collate
        )
        # One process of one, as far as accelerate is told: `_collate` takes the share.
        return prepare_data_loader(
            loader, num_processes=1, process_index=0, use_seedable_sampler=True, data_seed=self.args.data_seed
        )

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add the batch's gradients and return its loss.

        Raises:
            TrainingError: if the loss is not finite.
        """
        model.train()
        n_groups, n_tokens = inputs["n_groups"], inputs["n_chosen_tokens"]
        total = Sums.zero(self.args.device)
        fillers = self._fill_up(inputs["parts"])
        for part in inputs["parts"]:
            sums = sum_losses(model, part.to(self.args.device), self._objective)
            self.accelerator.backward(sums.loss(self._objective, n_groups, n_tokens))
            total = total + sums.detach()
        for part in fillers:
            idle = sum_losses(model, part.to(self.args.device), self._objective)
            self.accelerator.backward(0.0 * idle.loss(self._objective, n_groups, n_tokens))
        total = sum_over_ranks(total)
        sum_gradients(model.parameters())
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
        parts = self._split(families)
        fillers = self._fill_up(parts)
        total = sum_over_ranks(add_up(self.model, parts, self._objective))
        add_up(self.model, fillers, self._objective)
        metrics = {f"eval_{name}": value for name, value in total.means(self._objective).items()}
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
        config: token budget of a pass, and whether the model's layers are shared out.
        settings: from `run.trainer_settings`; its batch size counts groups, and as many families as hold so many on
            average are taken.
    """
    train: Any = gather_families(corpus.train)
    validation: Any = gather_families(corpus.validation) or None
    n_families = families_per_batch(train, settings["per_device_train_batch_size"])
    settings = {**settings, "per_device_train_batch_size": n_families}
    is_shared = shares_layers(config)
    arguments = TrainingArguments(
        **settings,
        eval_strategy="epoch" if corpus.validation else "no",
        remove_unused_columns=False,
    )
    return GroupedTrainer(
        objective=objective,
        max_tokens=config.max_tokens_per_pass,
        filler=split_into_parts([min(train, key=count_columns)], hidden_dtype(model), 1)[0] if is_shared else None,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
    )
