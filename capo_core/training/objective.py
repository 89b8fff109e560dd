"""What is minimised and what is logged, as sums over the groups of a part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch

from capo_core.training.batch import Part
from capo_core.training.logps import score_responses
from capo_core.training.loss import negative_log_likelihood, preference_loss
from schemas.section import PreferenceLoss
from schemas.training import CAPOConfig


@dataclass(frozen=True)
class Objective:
    """What is minimised: the mean over groups of a preference loss (None: none) + sft_weight · NLL per chosen token."""

    loss: PreferenceLoss | None
    sft_weight: float
    beta: float = 0.1
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, config: CAPOConfig) -> Self:
        """Return the objective a configuration asks for."""
        return cls(config.loss, config.sft_weight, config.beta, config.label_smoothing)


SUPERVISED = Objective(loss=None, sft_weight=1.0)
"""Supervised fine-tuning: the mean negative log-likelihood per token of the chosen responses."""


@dataclass(frozen=True, eq=False)
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

    @classmethod
    def zero(cls, device: torch.device | str) -> Self:
        """Return the sums over no groups."""
        tensors: dict[str, Any] = {f.name: torch.zeros((), device=device) for f in fields(cls) if f.type != "int"}
        return cls(**tensors, n_groups=0, n_chosen_tokens=0)

    def loss(self, objective: Objective, n_groups: int, n_chosen_tokens: int) -> torch.Tensor:
        """Return these groups' share of the loss of a batch of `n_groups` with `n_chosen_tokens`."""
        loss = objective.sft_weight * self.nll / n_chosen_tokens
        return loss if objective.loss is None else loss + self.preference / n_groups

    def detach(self) -> Sums:
        """Return the sums without their graph."""
        tensors: dict[str, Any] = {n: v.detach() for n, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)

    def __add__(self, other: Sums) -> Sums:
        added: dict[str, Any] = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Sums(**added)

    def means(self, objective: Objective) -> dict[str, float]:
        """Return the logged metrics; those of preferences only where there are any."""
        means = {"loss": float(self.loss(objective, self.n_groups, self.n_chosen_tokens))}
        names = () if objective.loss is None else ("chosen_logps", "rejected_logps", "margin", "accuracy")
        return means | {name: float(getattr(self, name)) / self.n_groups for name in names}


def sum_losses(model: Any, part: Part, objective: Objective) -> Sums:
    """Return the sums of one part: the preference loss by group, NLL of the chosen, and what is logged.

    `margin` and `accuracy` are those of the implicit rewards β (log π − log ref), averaged over the pairs of a group
    by their weights.
    """
    scores = score_responses(model, part.layout)
    logps = scores.responses.detach()[part.place]  # (G, 1 + K)
    ratios = (scores.responses - part.reference_logps)[part.place]
    margins = ratios.detach()[:, :1] - ratios.detach()[:, 1:]
    preference = logps.new_zeros(())
    if objective.loss is not None:
        preference = preference_loss(
            objective.loss,
            ratios,
            part.weights,
            part.layout.n_tokens[part.place],
            beta=objective.beta,
            label_smoothing=objective.label_smoothing,
        ).sum()
    return Sums(
        preference=preference,
        nll=negative_log_likelihood(scores.tokens, part.is_chosen),
        chosen_logps=logps[:, 0].sum(),
        rejected_logps=(part.weights * logps[:, 1:]).sum(),
        margin=(part.weights * objective.beta * margins).sum(),
        accuracy=(part.weights * (margins > 0)).sum(),
        n_groups=len(part.groups),
        n_chosen_tokens=part.n_chosen_tokens,
    )


def measure(model: Any, parts: Iterable[Part], objective: Objective) -> dict[str, float]:
    """Return the metrics of the model over all groups, at least one, without gradients and without dropout."""
    return add_up(model, parts, objective).means(objective)


def add_up(model: Any, parts: Iterable[Part], objective: Objective) -> Sums:
    """Return the sums over all groups, without gradients and without dropout."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = Sums.zero(device)
    with torch.no_grad():
        for part in parts:
            total = total + sum_losses(model, part.to(device), objective)
    model.train(was_training)
    return total
