"""Drawing next tokens: each row inverts its distribution function at a random number of its own.

Notation: R rows, V vocabulary size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

_BLOCK = 256
"""Tokens summed in one go: the running sum then goes over V / 256 blocks and 256 tokens instead of over V."""


@dataclass(frozen=True)
class Sampling:
    """How a next token is drawn: temperature 0 takes the most probable; `stop` are the tokens that end a response."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: frozenset[int]


def draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return a token per row (R,): the smallest v with F(v) > u, F the distribution function over the vocabulary.

    Args:
        logits: (R, V).
        uniforms: (R,) in [0, 1).
        sampling: temperature 0 takes the most probable token; top_p below 1 keeps the fewest most probable tokens
            that together reach it.
    """
    if sampling.temperature == 0:
        return logits.float().argmax(dim=-1)
    weights = torch.softmax(logits.to(torch.float32, copy=True).div_(sampling.temperature), dim=-1)
    if sampling.top_p < 1:
        ordered, order = weights.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        weights = weights.masked_fill(torch.zeros_like(beyond).scatter_(1, order, beyond), 0)
    n_spare = -weights.shape[1] % _BLOCK
    blocks = (nn.functional.pad(weights, (0, n_spare)) if n_spare else weights).view(len(weights), -1, _BLOCK)
    sums = blocks.sum(dim=-1).double()
    block, rest = _find(sums, uniforms.double()[:, None] * sums.sum(dim=-1, keepdim=True))
    within, _ = _find(blocks.gather(1, block[..., None].expand(-1, -1, _BLOCK))[:, 0].double(), rest)
    return (block * _BLOCK + within)[:, 0]


def _find(weights: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first place where the running sum of weights (R, n) exceeds the target (R, 1), and what is left of it.

    A target that rounding has put below zero or beyond the sum of all belongs to the first or last weight above zero.
    """
    running = weights.cumsum(dim=-1)
    total = running[:, -1:]
    target = torch.minimum(target.clamp(min=0), total.nextafter(torch.zeros_like(total)))
    found = torch.searchsorted(running, target, right=True)
    return found, target - (running.gather(1, found) - weights.gather(1, found))
