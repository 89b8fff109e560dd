"""Linear layers of one input and their LoRA updates as one step: updates are added within the matrix products.

Notation: N tokens, I inputs, O outputs, r rank, s an adapter's scale; subscript l for a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear


def adapted_linear(
    x: torch.Tensor,
    layers: Sequence[torch.nn.Linear],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
) -> list[torch.Tensor]:
    """Return x Wₗᵀ + bₗ + sₗ (x Aₗᵀ) Bₗᵀ of every layer, each (…, Oₗ).

    Args:
        x: (…, I).
        layers: frozen, W (O, I) and b (O,) or None.
        downs: A (r, I) by layer; they are cast to x's dtype, their gradients back to their own, as those of B.
        ups: B (O, r).
        scales: s.
    """
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    flat = x.reshape(-1, x.shape[-1])
    outputs: Any = _AdaptedLinear.apply(flat, scales, *weights, *biases, *downs, *ups)
    return [output.view(*x.shape[:-1], output.shape[-1]) for output in outputs]


class _AdaptedLinear(torch.autograd.Function):
    """The As stand below one another, so that x is read once for all of them, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scales: Sequence[float], *parameters: Any) -> tuple[torch.Tensor, ...]:
        n = len(scales)
        weights, biases, downs, ups = (parameters[place * n : (place + 1) * n] for place in range(4))
        down = torch.cat(downs).to(x.dtype)  # (Σ r, I)
        scaled = [(up * scale).to(x.dtype) for up, scale in zip(ups, scales, strict=True)]
        inner = x @ down.T  # (N, Σ r)
        inners = inner.split([up.shape[1] for up in scaled], dim=1)
        outputs = tuple(
            linear(x, weight, bias).addmm_(part, up.T)
            for weight, bias, part, up in zip(weights, biases, inners, scaled, strict=True)
        )
        ctx.save_for_backward(x, inner, down, *weights, *scaled)
        ctx.scales, ctx.dtypes = scales, ([part.dtype for part in downs], [up.dtype for up in ups])
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inner, down, *rest = ctx.saved_tensors
        n = len(ctx.scales)
        weights, scaled = rest[:n], rest[n:]
        ranks = [up.shape[1] for up in scaled]
        inners = inner.split(ranks, dim=1)
        of_inner = torch.cat([slope @ up for slope, up in zip(slopes, scaled, strict=True)], dim=1)  # (N, Σ r)
        of_downs = (of_inner.T @ x).split(ranks)
        of_ups = [
            (slope.T @ part).to(dtype).mul_(scale)
            for slope, part, dtype, scale in zip(slopes, inners, ctx.dtypes[1], ctx.scales, strict=True)
        ]
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_inner @ down
            for slope, weight in zip(slopes, weights, strict=True):
                of_x.addmm_(slope, weight)
        nothing = [None] * (1 + 2 * n)
        return of_x, *nothing, *(part.to(d) for part, d in zip(of_downs, ctx.dtypes[0], strict=True)), *of_ups
