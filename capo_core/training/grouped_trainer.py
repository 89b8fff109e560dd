"""transformers' Trainer over groups: every token of a group is computed once.

Checkpoints, the optimiser, the schedule, callbacks and resuming are the Trainer's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from transformers import Trainer

from capo_core.errors import TrainingError
from capo_core.grouped_layout import TokenGroup, lay_out, layout_obstacle
from capo_core.training.collate import Part, PreferenceGroup, split_into_parts
from capo_core.training.logps import score_responses
from capo_core.training.loss import negative_log_likelihood, pair_margins, pair_weights, sigmoid_loss

_START_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}
_LAYOUT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Greatest mean difference per token between the grouped layout and the model's own forward pass."""


@dataclass(frozen=True)
class Objective:
    """What is minimised: preference_weight · mean over groups of the pair loss + sft_weight · NLL per chosen token."""

    preference_weight: float
    sft_weight: float
    beta: float = 0.1


@dataclass
class Sums:
    """Sums over groups (n_groups) or tokens (n_chosen_tokens), from which every logged mean is made."""

    preference: torch.Tensor
    nll: torch.Tensor
    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor
    margin: torch.Tensor
    accuracy: torch.Tensor
    n_groups: int
    n_chosen_tokens: int

    def loss(self, objective: Objective, n_groups: int, n_chosen_tokens: int) -> torch.Tensor:
        """Return these groups' share of the loss of a batch of `n_groups` with `n_chosen_tokens`."""
        loss = objective.sft_weight * self.nll / n_chosen_tokens
        if objective.preference_weight:
            loss = loss + objective.preference_weight * self.preference / n_groups
        return loss

    def detach(self) -> Sums:
        """Return the sums without their graph."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Sums(**{name: v.detach() if isinstance(v, torch.Tensor) else v for name, v in values.items()})

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def means(self, objective: Objective) -> dict[str, float]:
        """Return the logged metrics; those of preferences only where there are any."""
        means = {"loss": float(self.loss(objective, self.n_groups, self.n_chosen_tokens))}
        names = ("chosen_logps", "rejected_logps", "margin", "accuracy") if objective.preference_weight else ()
        return means | {name: float(getattr(self, name)) / self.n_groups for name in names}


def sum_losses(model: Any, part: Part, beta: float) -> Sums:
    """Return the sums of one part: −log σ(β · margin) by group, NLL of the chosen, and what is logged.

    `margin` and `accuracy` are those of the implicit rewards β (log π − log ref), averaged over the pairs of a group.
    """
    scores = score_responses(model, part.layout)
    margins = pair_margins(scores.responses, part.reference_logps, part.chosen, part.rejected)
    weights = pair_weights(part.group, part.n_groups, margins.dtype)
    logps = scores.responses.detach()
    return Sums(
        preference=sigmoid_loss(margins, beta, part.group, part.n_groups),
        nll=negative_log_likelihood(scores.tokens, part.is_chosen),
        chosen_logps=logps[part.first].sum(),
        rejected_logps=(weights * logps[part.rejected]).sum(),
        margin=(weights * beta * margins.detach()).sum(),
        accuracy=(weights * (margins.detach() > 0)).sum(),
        n_groups=part.n_groups,
        n_chosen_tokens=part.n_chosen_tokens,
    )


class GroupedTrainer(Trainer):
    """Trains on groups; a batch too long for one pass goes through in parts whose gradients add up."""

    def __init__(self, *, objective: Objective, **kwargs: Any) -> None:
        super().__init__(data_collator=self._collate, **kwargs)
        self._objective = objective
        self._last: dict[str, float] = {}

    def _collate(self, groups: Sequence[PreferenceGroup]) -> dict[str, list[Part]]:
        return {"parts": split_into_parts(groups, mask_dtype(self.model))}

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add the batch's gradients and return its loss.

        Raises:
            TrainingError: if the loss is not finite.
        """
        model.train()
        parts: list[Part] = inputs["parts"]
        n_groups, n_tokens = sum(p.n_groups for p in parts), sum(p.n_chosen_tokens for p in parts)
        total: Sums | None = None
        for part in parts:
            sums = sum_losses(model, part.to(self.args.device), self._objective.beta)
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
        total = measure(self.model, self.eval_dataset, self._objective, self.args.eval_batch_size)  # pyright: ignore[reportArgumentType]
        metrics = {f"eval_{name}": value for name, value in total.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, adding the step's preference metrics to its loss."""
        super().log(logs | self._last if "loss" in logs else logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the Trainer's estimate is for its own kind of batch."""
        return 0


def mask_dtype(model: Any) -> torch.dtype:
    """Return the dtype of the model's hidden states."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).dtype


def measure(
    model: Any, groups: Sequence[PreferenceGroup], objective: Objective, batch_size: int = 8
) -> dict[str, float]:
    """Return the metrics of the model over all groups, without gradients and without dropout."""
    was_training = model.training
    model.eval()
    device, dtype = next(model.parameters()).device, mask_dtype(model)
    total: Sums | None = None
    with torch.no_grad():
        for part in split_into_parts(groups, dtype):
            sums = sum_losses(model, part.to(device), objective.beta)
            total = sums if total is None else total + sums
    model.train(was_training)
    assert total is not None
    return total.means(objective)


def add_reference_logps(model: Any, groups: Sequence[PreferenceGroup]) -> list[PreferenceGroup]:
    """Return the groups with each response's log-probability under `model`, computed once, in layout and dtype of training."""
    model.eval()
    device, dtype = next(model.parameters()).device, mask_dtype(model)
    known: dict[int, PreferenceGroup] = {}
    # Similar lengths together; the order given is kept in the result.
    order = sorted(range(len(groups)), key=lambda i: groups[i].n_tokens)
    with torch.no_grad():
        for start in range(0, len(order), 8):
            chunk = order[start : start + 8]
            layout = lay_out([groups[i] for i in chunk], dtype).to(device)
            logps = iter(score_responses(model, layout).responses.tolist())
            for i in chunk:
                values = tuple(next(logps) for _ in groups[i].responses)
                known[i] = replace(groups[i], reference_logps=values)
    return [known[i] for i in range(len(groups))]


def check_start(model: Any, groups: Sequence[PreferenceGroup], beta: float) -> None:
    """Raise TrainingError unless policy and reference agree before the first step: every pair's loss is then log 2."""
    loss = measure(model, groups, Objective(preference_weight=1.0, sft_weight=0.0, beta=beta))["loss"]
    tolerance = _START_TOLERANCE[mask_dtype(model)]
    if not abs(loss - math.log(2)) <= tolerance:
        raise TrainingError(
            f"policy and reference differ before the first step: loss {loss:.5f} instead of log 2 = 0.69315 "
            f"(tolerance {tolerance:g}); the reference was not computed from the adapter that training starts from"
        )


def check_layout(model: Any, group: TokenGroup) -> None:
    """Raise TrainingError unless this model gives responses beside one another the log-probabilities of each alone.

    Its configuration is looked at first; then one group is scored both ways, the second time by the model's own
    forward pass.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    obstacle = layout_obstacle(causal.config)
    advice = "set trainer: trl for this model"
    if obstacle is not None:
        raise TrainingError(
            f"{causal.config.model_type}: the grouped layout does not hold, because {obstacle}; {advice}"
        )
    head = causal.get_output_embeddings()
    if getattr(head, "bias", None) is not None or not isinstance(head, torch.nn.Linear):
        raise TrainingError(f"{causal.config.model_type}: its vocabulary head is not a plain frozen matrix; {advice}")
    model.eval()
    device, dtype = next(model.parameters()).device, mask_dtype(model)
    with torch.no_grad():
        grouped = score_responses(model, lay_out([group], dtype).to(device)).responses
        alone = torch.stack([_score_alone(model, group.prompt, response, device) for response in group.responses])
    n_tokens = sum(len(response) for response in group.responses)
    difference = float((grouped - alone).abs().sum()) / n_tokens
    if not difference <= _LAYOUT_TOLERANCE[dtype]:
        raise TrainingError(
            f"{causal.config.model_type}: the grouped layout changes log-probabilities by {difference:.3g} per token; {advice}"
        )


def _score_alone(model: Any, prompt: Sequence[int], response: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the response's log-probability by the model's own forward pass."""
    ids = torch.tensor([[*prompt, *response]], device=device)
    with torch.autocast(device.type, mask_dtype(model), enabled=mask_dtype(model) in (torch.bfloat16, torch.float16)):
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logps = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    return logps.gather(1, ids[0, len(prompt) :, None]).sum()
