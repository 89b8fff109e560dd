"""Which layers of a model compute fused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear

from capo_core.training.fused.elementwise import gated_silu, rms_norm
from capo_core.training.fused.lora import adapted_linear

_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that read one and the same tensor, by the names of Llama and what descends from it."""
_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
"""Norms of the form w · (x / rms(x)), normalised in float32 and scaled in the input's dtype. Gemma's is another."""


def fuse_layers(model: Any) -> dict[str, int]:
    """Let a PEFT model's layers compute fused, in place, where that is the same; return how many, by kind.

    - `lora`: plain LoRA layers. Not plain, and left to PEFT: dropout, DoRA and other variants, quantised or biased
      adapters, several adapters at once.
    - `gate`: feed-forward layers with SiLU.
    - `norm`: root-mean-square norms whose weight is frozen. On CPU only: elsewhere PyTorch has kernels of its own.
    """
    found = {"lora": 0, "gate": 0, "norm": 0}
    for module in model.modules():
        for siblings in _find_siblings(module):
            reads = _ReadTogether(siblings)
            for place, layer in enumerate(siblings):
                layer.forward = partial(reads.compute, place, layer.forward)
            found["lora"] += len(siblings)
        if _is_gated(module):
            module.forward = partial(_feed_forward, module)
            found["gate"] += 1
        if type(module).__name__ in _NORMS and not module.weight.requires_grad:
            module.forward = partial(_normalise, module, module.forward)
            found["norm"] += 1
    return found


def _find_siblings(module: Any) -> Iterator[list[Any]]:
    """Yield a module's plain LoRA layers: those that read the same tensor together, each of the others alone."""
    layers = {name: layer for name, layer in module.named_children() if _is_plain(layer)}
    for names in _SIBLINGS:
        if all(name in layers for name in names):
            yield [layers.pop(name) for name in names]
    for layer in layers.values():
        yield [layer]


def _is_plain(layer: Any) -> bool:
    if not isinstance(layer, LoraLinear) or len(layer.active_adapters) != 1:
        return False
    name = layer.active_adapters[0]
    return (
        type(layer.base_layer) is torch.nn.Linear
        and not layer.lora_variant
        and not layer.lora_bias[name]
        and not isinstance(layer.lora_dropout[name], torch.nn.Dropout)
    )


def _is_gated(module: Any) -> bool:
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    return all(hasattr(module, name) for name in parts) and type(module.act_fn).__name__ in ("SiLU", "SiLUActivation")


class _ReadTogether:
    """Computes layers of one input together when the first of them is called, and hands the others theirs."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers
        self._x: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def compute(self, place: int, plain_forward: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the output of the layer at `place`; PEFT's own for merged or switched-off adapters."""
        if kwargs or any(layer.merged or layer.disable_adapters for layer in self._layers):
            return plain_forward(x, *args, **kwargs)
        if self._x is not x or place not in self._outputs:
            self._x, self._outputs = x, dict(enumerate(self._compute_all(x)))
        output = self._outputs.pop(place)
        if not self._outputs:
            self._x = None
        return output

    def _compute_all(self, x: torch.Tensor) -> list[torch.Tensor]:
        named = [(layer, layer.active_adapters[0]) for layer in self._layers]
        return adapted_linear(
            x,
            [layer.base_layer for layer, _ in named],
            [layer.lora_A[name].weight for layer, name in named],
            [layer.lora_B[name].weight for layer, name in named],
            [layer.scaling[name] for layer, name in named],
        )


def _feed_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return layer.down_proj(gated_silu(layer.gate_proj(x), layer.up_proj(x)))


def _normalise(layer: Any, plain_forward: Any, x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu":
        return plain_forward(x)
    return rms_norm(x, layer.weight, layer.variance_epsilon)
