"""What stands between a model's matrix products, some rows at a time: what a step leaves, the next finds in the cache.

Notation: N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

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


def _in_steps(tables: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the rows of the tables in turn, with memory of the first one's width for as many, the same at each step.

    Rows are all taken at once where there is no cache to stay within.

    Args:
        tables: (N, ...) each; (N, D) the first.
        dtypes: of the memory.
    """
    n_rows, width = tables[0].shape
    on_cpu = tables[0].device.type == "cpu"
    step = max(1, min(n_rows, _AT_ONCE // width) if on_cpu else n_rows)
    memory = [torch.empty(step, width, dtype=dtype, device=tables[0].device) for dtype in dtypes]
    for parts in zip(*(table.split(step) for table in tables), strict=True):
        n = len(parts[0])
        yield *parts, *(memory if n == step else [part[:n] for part in memory])


class _RMSNorm(torch.autograd.Function):
    """With n = x / rms(x) and g the incoming gradient times w: the outgoing one is (g − n · mean(g · n)) / rms(x)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        output = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, weight.dtype), device=x.device)
        inverse = torch.empty(len(x), 1, dtype=wide, device=x.device)
        for part, inv, out, narrow, normalised, squares in _in_steps((x, inverse, output), (x.dtype, wide, wide)):
            normalised.copy_(part)
            torch.mean(torch.mul(normalised, normalised, out=squares), -1, keepdim=True, out=inv)
            normalised.mul_(inv.add_(eps).rsqrt_())
            torch.mul(narrow.copy_(normalised), weight, out=out)
        ctx.save_for_backward(x, weight, inverse)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, inverse = ctx.saved_tensors
        of_x = torch.empty_like(x)
        tables, dtypes = (x, inverse, grad_outputs[0], of_x), (grad_outputs[0].dtype, *[inverse.dtype] * 3)
        for part, inv, of_output, out, narrow, slope, normalised, products in _in_steps(tables, dtypes):
            slope.copy_(torch.mul(of_output, weight, out=narrow))
            normalised.copy_(part).mul_(inv)
            shared = torch.mul(slope, normalised, out=products).mean(-1, keepdim=True)
            out.copy_(slope.sub_(normalised.mul_(shared)).mul_(inv))
        return of_x, None, None


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(up)
        for g, u, out, opened in _in_steps((gate, up, output), (gate.dtype,)):
            torch.mul(torch.ops.aten.silu.out(g, out=opened), u, out=out)
        ctx.save_for_backward(gate, up)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        tables = (gate, up, grad_outputs[0], of_gate, of_up)
        for g, u, slope, of_g, of_u, opened in _in_steps(tables, (gate.dtype,)):
            torch.mul(slope, torch.ops.aten.silu.out(g, out=opened), out=of_u)
            torch.ops.aten.silu_backward.grad_input(torch.mul(slope, u, out=opened), g, grad_input=of_g)
        return of_gate, of_up
