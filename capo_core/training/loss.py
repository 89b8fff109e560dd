"""The losses as pure functions of log-probabilities.

Notation: G groups (a prompt with one chosen and up to k rejected responses), N tokens. r = log π − log ref is a
response's log-ratio, its log-probability summed over its tokens; r_c that of the chosen, r_j of the j-th rejected,
|y| their numbers of tokens, w_j the weight of the pair (c, j). A group's loss is Σ_j w_j · (loss of the pair), so that
an item with many annotators weighs no more than one with few; only `plackett_luce` compares all of a group at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from capo_core.errors import ConfigError
from schemas.section import PreferenceLoss


@dataclass(frozen=True, eq=False)
class ScoredGroups:
    """What a preference loss reads.

    Attributes:
        ratios: (G, 1 + k) r of each response; column 0 the chosen, columns 1…k the rejected, any finite padding.
        weights: (G, k) w, rows summing to 1; 0 where there is no rejected response, or one that does not count.
        lengths: (G, 1 + k) numbers of tokens, ≥ 1.
        beta: β > 0.
        label_smoothing: ε in [0, .5).
    """

    ratios: torch.Tensor
    weights: torch.Tensor
    lengths: torch.Tensor
    beta: float
    label_smoothing: float

    @property
    def rewards(self) -> torch.Tensor:
        """β r (G, 1 + k), DPO's implicit rewards (arXiv 2305.18290, eq. 5 without its prompt's constant)."""
        return self.beta * self.ratios

    @property
    def margins(self) -> torch.Tensor:
        """β (r_c − r_j) (G, k)."""
        return self.beta * (self.ratios[:, :1] - self.ratios[:, 1:])

    @property
    def margins_per_token(self) -> torch.Tensor:
        """r_c / |y_c| − r_j / |y_j| (G, k), without β."""
        means = self.ratios / self.lengths
        return means[:, :1] - means[:, 1:]

    def average(self, pair_losses: torch.Tensor) -> torch.Tensor:
        """Return Σ_j w_j · pair_losses (G, k) as (G,): 0 for a group without rejected responses."""
        return (self.weights * pair_losses).sum(dim=1)


def sigmoid(groups: ScoredGroups) -> torch.Tensor:
    """Return Σ_j w_j · −log σ(β (r_c − r_j)) per group (G,): DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7)."""
    return groups.average(-logsigmoid(groups.margins))


def sigmoid_norm(groups: ScoredGroups) -> torch.Tensor:
    """Return Σ_j w_j · −log σ(β (r_c / |y_c| − r_j / |y_j|)) per group (G,).

    Length-normalised DPO (Lambert et al. 2024, Tülu 3, arXiv 2411.15124). Ratios per token are smaller by the
    responses' length, so that it wants a larger β (5 there).
    """
    return groups.average(-logsigmoid(groups.beta * groups.margins_per_token))


def ipo(groups: ScoredGroups) -> torch.Tensor:
    """Return Σ_j w_j · (r_c / |y_c| − r_j / |y_j| − 1 / (2β))² per group (G,).

    Azar et al. 2023, arXiv 2310.12036, eq. 17, β being their τ. Ratios are means over tokens as in TRL, whose source
    says that the paper's authors confirmed it; the paper itself writes sums.
    """
    return groups.average((groups.margins_per_token - 1 / (2 * groups.beta)) ** 2)


def hinge(groups: ScoredGroups) -> torch.Tensor:
    """Return Σ_j w_j · max(0, 1 − β (r_c − r_j)) per group (G,).

    SLiC's rank calibration (Zhao et al. 2023, arXiv 2305.10425) on likelihood ratios, as in RSO (Liu et al. 2023, arXiv
    2309.06657).
    """
    return groups.average(torch.relu(1 - groups.margins))


def robust(groups: ScoredGroups) -> torch.Tensor:
    """Return Σ_j w_j · (−(1 − ε) log σ(m_j) + ε log σ(−m_j)) / (1 − 2ε), m_j = β (r_c − r_j), per group (G,).

    Chowdhury et al. 2024, arXiv 2403.00409: its mean under pairs that are the wrong way round with probability ε is
    `sigmoid` without such noise. ε is `label_smoothing`; with 0 it is `sigmoid`. It may be negative.
    """
    epsilon, margins = groups.label_smoothing, groups.margins
    noisy = -(1 - epsilon) * logsigmoid(margins) + epsilon * logsigmoid(-margins)
    return groups.average(noisy / (1 - 2 * epsilon))


def apo_zero(groups: ScoredGroups) -> torch.Tensor:
    """Return Σ_j w_j · (1 − σ(β r_c) + σ(β r_j)) per group (G,).

    D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7: raises the chosen and lowers the rejected, each on its own.
    """
    probabilities = torch.sigmoid(groups.rewards)
    # σ(−x) is 1 − σ(x) without the cancellation.
    return groups.average(torch.sigmoid(-groups.rewards[:, :1]) + probabilities[:, 1:])


def plackett_luce(groups: ScoredGroups) -> torch.Tensor:
    """Return −log(exp(β r_c) / (exp(β r_c) + Σ_j n w_j exp(β r_j))) per group (G,), n the rejected with a weight.

    The probability that the chosen is ranked first among all of its group under a Plackett–Luce model of the implicit
    rewards (Rafailov et al. 2023, arXiv 2305.18290, appendix A.3, its first factor; S-DPO, Chen et al. 2024, arXiv
    2406.09215). With equal weights n w_j = 1: the softmax of those papers; with one rejected it is `sigmoid`. Pair
    weights in it are ours: a rejected response stands there n w_j times.
    """
    n_rejected = (groups.weights > 0).sum(dim=1, keepdim=True)
    # Everything over exp(β r_c), which leaves 1 + Σ_j n w_j exp(−m_j); the log of a weight of 0 is −∞, a term of 0.
    terms = (n_rejected * groups.weights).log() - groups.margins
    chosen = torch.zeros_like(groups.ratios[:, :1])
    return torch.cat([chosen, terms], dim=1).logsumexp(dim=1)


LOSSES: dict[PreferenceLoss, Callable[[ScoredGroups], torch.Tensor]] = {
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid_norm,
    "ipo": ipo,
    "hinge": hinge,
    "robust": robust,
    "apo_zero": apo_zero,
    "plackett_luce": plackett_luce,
}
"""Every preference loss by its name; TRL's names and, over pairs of equal weight, TRL's values but for the last."""


def preference_loss(
    name: PreferenceLoss,
    ratios: torch.Tensor,
    weights: torch.Tensor,
    lengths: torch.Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the loss of each group (G,), 0 where there is no rejected response.

    Args:
        name: one of `LOSSES`, whose docstrings have the formulas.
        ratios: (G, 1 + k) log π − log ref per response; column 0 the chosen, columns 1…k the rejected. What stands at
            padding does not matter if it is finite.
        weights: (G, k) of the pairs, ≥ 0, rows summing to 1; 0 at padding, all 0 without rejected responses.
        lengths: (G, 1 + k) numbers of tokens, ≥ 1, padding too.
        beta: strength of the pull towards the reference, > 0.
        label_smoothing: the share of pairs taken to be the wrong way round, in [0, .5); `robust` alone reads it.

    Raises:
        ConfigError: if there is no such loss, or `beta` or `label_smoothing` is out of its range.
        ValueError: if the shapes do not belong together.
    """
    if name not in LOSSES:
        raise ConfigError(f"there is no preference loss {name!r}; choose one of {', '.join(LOSSES)}")
    if beta <= 0:
        raise ConfigError(f"beta is {beta}; it must be above 0")
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below .5")
    if lengths.shape != ratios.shape or weights.shape != ratios[:, 1:].shape:
        shapes = [tuple(tensor.shape) for tensor in (ratios, weights, lengths)]
        raise ValueError(
            f"ratios, weights and lengths of a loss have the shapes {shapes}, not (G, 1+k), (G, k), (G, 1+k)"
        )
    return LOSSES[name](ScoredGroups(ratios, weights, lengths, beta, label_smoothing))


def negative_log_likelihood(token_logps: torch.Tensor, is_chosen: torch.Tensor) -> torch.Tensor:
    """Return −Σ log p over the tokens of chosen responses; divided by their number it is the SFT loss and anchor.

    TRL's `nll` loss of SFTTrainer and `sft` loss of DPOTrainer (the SFT term of MPO, arXiv 2411.10442): the mean over
    tokens, not over responses.

    Args:
        token_logps: (N,).
        is_chosen: (N,) boolean.
    """
    return -token_logps[is_chosen].sum()
