"""The arguments of `vllm serve` for a model and adapters beside it. Flags as in vLLM 0.32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from capo_core.errors import ModelError
from capo_core.generation.vllm.rules import MODULES, examine_adapter
from capo_core.models import check_adapter
from schemas.artifacts import ModelRef


def describe_command(base: ModelRef, dtype: str, name: str, adapters: Mapping[str, Path]) -> list[list[str]]:
    """Return the arguments after `vllm serve`, those that belong together in one list.

    Args:
        base: the model.
        dtype: float32 or bfloat16.
        name: under which the base model answers.
        adapters: folder of each adapter, by the name under which it answers.

    Raises:
        ModelError: if vLLM does not take one of the adapters, or it belongs to another base model.
    """
    arguments = [
        [base.path],
        ["--served-model-name", name],
        ["--dtype", dtype],
        # Otherwise temperature, top_p and top_k are those of the base model's generation_config.json.
        ["--generation-config", "vllm"],
    ]
    if not adapters:
        return arguments
    ranks = [_check(base, adapter, folder) for adapter, folder in adapters.items()]
    return [
        *arguments,
        ["--enable-lora"],
        ["--max-lora-rank", str(max(ranks))],
        ["--max-loras", str(len(adapters))],
        # Otherwise the head is taken for adapted too, and log-probabilities of prompts fail (on CPU, vLLM 0.32).
        ["--lora-target-modules", *MODULES],
        ["--lora-modules", *(_name_module(adapter, folder) for adapter, folder in adapters.items())],
    ]


def _check(base: ModelRef, name: str, folder: Path) -> int:
    """Return the rank to start vLLM with for one adapter."""
    check_adapter(base, folder)
    found = examine_adapter(folder)
    if found.max_lora_rank is None:
        raise ModelError(
            f"{name}: vLLM does not take this adapter: {'; '.join(found.obstacles)}; use capo's own engine"
        )
    return found.max_lora_rank


def _name_module(name: str, folder: Path) -> str:
    """Return an adapter as vLLM reads it: name=path, or JSON where that would be read wrongly."""
    if any(sign in f"{name}{folder}" for sign in "=,"):
        return json.dumps({"name": name, "path": str(folder)})
    return f"{name}={folder}"
