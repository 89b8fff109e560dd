"""A linear layer and its LoRA update as one step: the update is added within its matrix product, not in passes beside.

Notation: N tokens, I inputs, O outputs, r rank, s the adapter's scale.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch.nn.functional import linear


def fuse_lora(model: Any) -> int:
    """Let every plain LoRA layer of a PEFT model compute in one step, in place; return how many there are.

    What is not plain keeps PEFT's own way: dropout, DoRA and other variants, quantised or biased adapters, several
    adapters at once.
    """
    fused = 0
    for module in model.modules():
        if isinstance(module, LoraLinear) and _is_plain(module):
            module.forward = partial(_forward, module, module.forward)
            fused += 1
    return fused


def _is_plain(layer: Any) -> bool:
    names = layer.active_adapters
    return (
        type(layer.base_layer) is torch.nn.Linear
        and len(names) == 1
        and not layer.lora_variant
        and not layer.lora_bias[names[0]]
        and not isinstance(layer.lora_dropout[names[0]], torch.nn.Dropout)
    )


def _forward(layer: Any, plain_forward: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Return PEFT's own result for merged or switched-off adapters, else that of the one adapter, fused."""
    names = layer.active_adapters
    if layer.merged or layer.disable_adapters or kwargs or len(names) != 1:
        return plain_forward(x, *args, **kwargs)
    name = names[0]
    base, scale = layer.base_layer, layer.scaling[name]
    flat: Any = _AdaptedLinear.apply(
        x.reshape(-1, x.shape[-1]), base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, scale
    )
    return flat.view(*x.shape[:-1], flat.shape[-1])


class _AdaptedLinear(torch.autograd.Function):
    """x Wᵀ + b + s (x Aᵀ) Bᵀ with W and b frozen; A and B are cast to x's dtype, their gradients back to their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        a, b = down.to(x.dtype), (up * scale).to(x.dtype)
        inner = x @ a.T  # (N, r)
        output = linear(x, weight, bias).addmm_(inner, b.T)
        ctx.save_for_backward(x, inner, weight, a, b)
        ctx.scale, ctx.dtypes = scale, (down.dtype, up.dtype)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inner, weight, a, b = ctx.saved_tensors
        slope = grad_outputs[0]
        of_inner = slope @ b  # (N, r)
        of_down = (of_inner.T @ x).to(ctx.dtypes[0])
        of_up = (slope.T @ inner).to(ctx.dtypes[1]).mul_(ctx.scale)
        of_x = (slope @ weight).addmm_(of_inner, a) if ctx.needs_input_grad[0] else None
        return of_x, None, None, of_down, of_up, None
