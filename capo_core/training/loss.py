"""The losses as pure functions of log-probabilities.

Notation: G groups (a prompt with its chosen and rejected responses), P pairs (chosen, rejected) in all, k_g pairs in
group g, R distinct responses, N tokens. log π is a response's log-probability summed over its tokens.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def pair_margins(
    policy_logps: torch.Tensor, reference_logps: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor
) -> torch.Tensor:
    """Return (log π_c − log ref_c) − (log π_r − log ref_r) per pair (P,).

    The implicit reward margin of DPO without its β (Rafailov et al. 2023, arXiv 2305.18290, eq. 6-7).

    Args:
        policy_logps: (R,).
        reference_logps: (R,), constant.
        chosen: (P,) index into the R responses.
        rejected: (P,) index into the R responses.
    """
    ratios = policy_logps - reference_logps
    return ratios[chosen] - ratios[rejected]


def sigmoid_loss(margins: torch.Tensor, beta: float, group: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Return Σ_g (1 / k_g) Σ_{pairs of g} −log σ(β · margin), a scalar; divided by G it is the mean over groups.

    DPO's loss (arXiv 2305.18290, eq. 7), averaged over the rejected responses of a group first, so that an item with
    many annotators weighs no more than one with few. With equal k it is TRL's `sigmoid` loss over the pairs.

    Args:
        margins: (P,).
        beta: strength of the pull towards the reference, > 0.
        group: (P,) which of the groups each pair belongs to.
        n_groups: G; a group without pairs adds nothing.
    """
    return (pair_weights(group, n_groups, margins.dtype) * -logsigmoid(beta * margins)).sum()


def pair_weights(group: torch.Tensor, n_groups: int, dtype: torch.dtype) -> torch.Tensor:
    """Return 1 / k_g for each pair (P,)."""
    return (1.0 / torch.bincount(group, minlength=n_groups).to(dtype))[group]


def negative_log_likelihood(token_logps: torch.Tensor, is_chosen: torch.Tensor) -> torch.Tensor:
    """Return −Σ log p over the tokens of chosen responses; divided by their number it is the SFT loss and anchor.

    TRL's `nll` loss of SFTTrainer and `sft` loss of DPOTrainer (the SFT term of MPO, arXiv 2411.10442): the mean over
    tokens, not over responses.

    Args:
        token_logps: (N,).
        is_chosen: (N,) boolean.
    """
    return -token_logps[is_chosen].sum()
