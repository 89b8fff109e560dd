"""Adapters of every type with weights as after training, without training them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_model import FLOAT32

from capo_core.training.adapters import describe_adapter, new_adapter, save_adapter
from schemas.artifacts import ModelRef
from schemas.training import AdapterConfig, ModelConfig, SFTConfig

KINDS = ("lora", "dora", "oft")


def adapter_config(kind: str, **changes: Any) -> AdapterConfig:
    """Return the settings of a small adapter: rank, or block size, 4."""
    return AdapterConfig(**({"type": kind, "r": 4, "alpha": 8.0} | changes))


def perturb(model: Any, scale: float, seed: int) -> None:
    """Add normal random numbers to an adapter's weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def trained_adapter(
    tiny: ModelRef, adapter: AdapterConfig, config: ModelConfig = FLOAT32, *, scale: float = 0.05, start: int = 1
) -> Any:
    """Return the tiny model with an adapter none of whose weights is 0; `start` is the seed of its beginning."""
    with torch.random.fork_rng():
        torch.manual_seed(start)
        model: Any = new_adapter(tiny, config, adapter, "grouped")
    perturb(model, scale, start)
    return model


def write_adapter(model: Any, adapter: AdapterConfig, tiny: ModelRef, folder: Path) -> Path:
    """Return the folder into which the adapter was saved."""
    save_adapter(model, folder, tiny.id, describe_adapter("sft", tiny, adapter, SFTConfig(), ["ann1"], 5))
    return folder
