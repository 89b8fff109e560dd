"""What stands between a model's matrix products, some rows at a time: what a step leaves, the next finds in the cache.

Notation: N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import silu

_AT_ONCE = 2**17
"""Elements of a step on CPU: 512 KiB in float32, about a core's second cache."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return w · x / √(mean(x²) + eps), normalised in float32 (or wider) and scaled in x's dtype, as Llama's norm.

    Args:
        x: (…, D).
        weight: (D,), frozen.
        eps: added to the mean square.
    """
    normalised: Any = _RMSNorm.apply(x.reshape(-1, x.shape[-1]), weight, eps)
    return normalised.view(x.shape)


def gated_silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) · up, both (…, D); nothing but the two is kept for the backward pass."""
    gated: Any = _GatedSilu.apply(gate.reshape(-1, gate.shape[-1]), up.reshape(-1, up.shape[-1]))
    return gated.view(gate.shape)


def _row_ranges(table: torch.Tensor) -> Iterator[slice]:
    """Yield the rows (N, D) in turn; all at once where there is no cache to stay within."""
    n_rows, width = table.shape
    step = max(1, _AT_ONCE // width) if table.device.type == "cpu" else max(1, n_rows)
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


class _RMSNorm(torch.autograd.Function):
    """With n = x / rms(x) and g the incoming gradient times w: the outgoing one is (g − n · mean(g · n)) / rms(x)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        output = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, weight.dtype), device=x.device)
        inverse = torch.empty(len(x), 1, dtype=wide, device=x.device)
        for rows in _row_ranges(x):
            part = x[rows].to(wide)
            inverse[rows] = part.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
            torch.mul((part * inverse[rows]).to(x.dtype), weight, out=output[rows])
        ctx.save_for_backward(x, weight, inverse)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, inverse = ctx.saved_tensors
        of_x = torch.empty_like(x)
        for rows in _row_ranges(x):
            slope = (grad_outputs[0][rows] * weight).to(inverse.dtype)
            normalised = x[rows] * inverse[rows]  # (n, D) as wide as the latter
            shared = (slope * normalised).mean(-1, keepdim=True)
            of_x[rows] = slope.sub_(normalised.mul_(shared)).mul_(inverse[rows])
        return of_x, None, None


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(up)
        for rows in _row_ranges(up):
            torch.mul(silu(gate[rows]), up[rows], out=output[rows])
        ctx.save_for_backward(gate, up)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        for rows in _row_ranges(up):
            slope = grad_outputs[0][rows]
            torch.mul(slope, silu(gate[rows]), out=of_up[rows])
            of_gate[rows] = torch.ops.aten.silu_backward(slope * up[rows], gate[rows])
        return of_gate, of_up
