"""Merging an adapter into weights of lower precision without losing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from capo_core.errors import ModelError
from capo_core.seeding import derive_seed


def merge_adapter(model: Any, adapter_dir: Path) -> Any:
    """Return the model with the adapter in its weights: what the adapter does beside each matrix is done to it.

    With W (out, in) the matrix, s = alpha / r, and PEFT's own merge:

    - LoRA: W + s B A (arXiv 2106.09685, equation 3).
    - DoRA: m ⊙ (W + s B A) / ‖W + s B A‖, row by row, the norm over a row (arXiv 2402.09353, equation 5).
    - OFT: W Rᵀ, R the block-diagonal rotation of the layer's inputs (arXiv 2306.07280).

    An update is often smaller than half the distance between neighbouring bfloat16 numbers, and made in the usual way
    most of it rounds back to W: SmolLM2 after five steps kept 70 per cent of what training had gained. The merge is
    therefore made in float32 and rounded stochastically, which is exact on average. The random numbers depend on the
    matrix's name alone, so the same adapter always gives the same weights.

    Args:
        model: causal language model, changed in place.
        adapter_dir: folder of a LoRA, DoRA or OFT adapter of this model.

    Raises:
        ModelError: if a merged weight is not finite.
    """
    adapted: Any = PeftModel.from_pretrained(model, str(adapter_dir))
    with torch.no_grad():
        for name, module in adapted.named_modules():
            if isinstance(module, BaseTunerLayer):
                try:
                    _merge_layer(module, torch.Generator().manual_seed(derive_seed(0, name)))
                except ValueError as error:
                    raise ModelError(f"{adapter_dir}: cannot be merged into {name}: {error}") from error
    return adapted.unload()


def _merge_layer(layer: Any, generator: torch.Generator) -> None:
    """Merge one layer in a float32 copy of its matrix and store the result in the matrix's own dtype."""
    weight = layer.get_base_layer().weight
    dtype = weight.dtype
    weight.data = weight.data.float()
    layer.merge(safe_merge=True)
    exact = layer.get_base_layer().weight.data
    weight.data = round_stochastically(exact, generator) if dtype == torch.bfloat16 else exact.to(dtype)


def round_stochastically(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return float32 values as bfloat16, rounded up with a probability equal to how far up they lie.

    bfloat16 is the upper half of float32's bits: a random number below 2^16 is added to them and the lower half is cut
    off, so that the expectation is the value itself.
    """
    noise = torch.randint(0, 2**16, values.shape, dtype=torch.int32, generator=generator).to(values.device)
    return ((values.view(torch.int32) + noise) & ~0xFFFF).view(torch.float32).to(torch.bfloat16)
