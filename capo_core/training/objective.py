"""What is minimised and what is logged, as sums over the groups of a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from capo_core.training.collate import Part, PreferenceGroup, split_into_parts
from capo_core.training.logps import can_share_prefix, hidden_dtype, score_responses
from capo_core.training.loss import negative_log_likelihood, pair_margins, pair_weights, sigmoid_loss


@dataclass(frozen=True)
class Objective:
    """What is minimised: preference_weight · mean over groups of the pair loss + sft_weight · NLL per chosen token."""

    preference_weight: float
    sft_weight: float
    beta: float = 0.1


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

    def loss(self, objective: Objective, n_groups: int, n_chosen_tokens: int) -> torch.Tensor:
        """Return these groups' share of the loss of a batch of `n_groups` with `n_chosen_tokens`."""
        loss = objective.sft_weight * self.nll / n_chosen_tokens
        if objective.preference_weight:
            loss = loss + objective.preference_weight * self.preference / n_groups
        return loss

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
        names = ("chosen_logps", "rejected_logps", "margin", "accuracy") if objective.preference_weight else ()
        return means | {name: float(getattr(self, name)) / self.n_groups for name in names}


def sum_losses(model: Any, part: Part, beta: float) -> Sums:
    """Return the sums of one part: −log σ(β · margin) by group, NLL of the chosen, and what is logged.

    `margin` and `accuracy` are those of the implicit rewards β (log π − log ref), averaged over the pairs of a group.
    """
    scores = score_responses(model, part.layout, part.prefix)
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


def measure(model: Any, groups: Sequence[PreferenceGroup], objective: Objective) -> dict[str, float]:
    """Return the metrics of the model over all groups, without gradients and without dropout."""
    was_training = model.training
    model.eval()
    device, dtype = next(model.parameters()).device, hidden_dtype(model)
    total: Sums | None = None
    with torch.no_grad():
        for part in split_into_parts(groups, dtype, share_prefix=can_share_prefix(model)):
            sums = sum_losses(model, part.to(device), objective.beta)
            total = sums if total is None else total + sums
    model.train(was_training)
    assert total is not None
    return total.means(objective)
