"""Whether vLLM serves an adapter beside its base model, by the rules of vLLM 0.33.

An adapter is taken (`vllm.lora.peft_helper.PEFTHelper`, `vllm.lora.lora_model.LoRAModel`, `vllm.config.lora`) if
- `adapter_config.json` has `r`, `lora_alpha` and `target_modules`, and neither `use_dora` nor a bias nor
  `modules_to_save` nor any other variant of LoRA that changes what is computed;
- every tensor is called `base_model.model.<module>.lora_A.weight` or `….lora_B.weight`, where the last part of the
  module is that of a linear layer of the served model: vLLM's own layers for q, k, v, o, gate, up and down;
- its rank is at most `--max-lora-rank`, which takes some values only.
Nothing of vLLM is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from capo_core.models import read_adapter_settings

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that `--max-lora-rank` takes."""

_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")
_REQUIRED = ("r", "lora_alpha", "target_modules")
_UNSUPPORTED = {
    "use_dora": "it is DoRA",
    "lora_bias": "its updates have a bias",
    "modules_to_save": "it replaces whole modules",
    "layer_replication": "it repeats layers",
    "use_qalora": "it is QALoRA",
    "use_bdlora": "it is block-diagonal",
    "alora_invocation_tokens": "it is an activated LoRA",
}


@dataclass(frozen=True)
class Servability:
    """Whether vLLM takes an adapter.

    Attributes:
        obstacles: why it does not, a clause each; none where it does.
        max_lora_rank: what to start vLLM with; None where it does not take the adapter.
    """

    obstacles: tuple[str, ...]
    max_lora_rank: int | None


def examine_adapter(folder: Path) -> Servability:
    """Return whether vLLM takes the adapter in a folder.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`; of the latter only the header is read.

    Raises:
        ModelError: if the folder has no adapter in safetensors.
    """
    settings = read_adapter_settings(folder)
    with safe_open(str(folder / "adapter_model.safetensors"), framework="numpy") as file:
        names = list(file.keys())
    # Another kind of adapter has other tensors; to list them besides says nothing more.
    obstacles = tuple(_examine_settings(settings) or _examine_names(names))
    # Some layers may have a rank of their own.
    rank = max([settings.get("r") or 0, *(settings.get("rank_pattern") or {}).values()])
    fitting = [] if obstacles else [limit for limit in MAX_RANKS if limit >= rank]
    if not obstacles and not fitting:
        obstacles = (f"its rank is {rank}, and vLLM takes at most {MAX_RANKS[-1]}",)
    return Servability(obstacles, fitting[0] if fitting else None)


def _examine_settings(settings: Mapping[str, Any]) -> list[str]:
    """Return what of the settings vLLM refuses."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        return [f"it is {kind}, and vLLM takes LoRA only"]
    found = [meaning for key, meaning in _UNSUPPORTED.items() if settings.get(key)]
    if settings.get("bias", "none") != "none":
        found.append("it trains biases")
    absent = [key for key in _REQUIRED if not settings.get(key)]
    return [*found, *([f"its settings lack {', '.join(absent)}"] if absent else [])]


def _examine_names(names: list[str]) -> list[str]:
    """Return what of the tensors' names vLLM refuses."""
    matches = {name: _TENSOR.fullmatch(name) for name in names}
    strange = sorted(name for name, match in matches.items() if match is None)
    parts: dict[str, set[str]] = {}
    for match in filter(None, matches.values()):
        parts.setdefault(match["module"], set()).add(match["part"])
    found = []
    if strange:
        found.append(f"its tensor {strange[0]} is neither lora_A nor lora_B ({len(strange)} such)")
    single = sorted(module for module, have in parts.items() if have != {"A", "B"})
    if single:
        found.append(f"{single[0]} has only one of lora_A and lora_B ({len(single)} such)")
    others = sorted({module.rpartition(".")[2] for module in parts} - set(MODULES))
    if others:
        found.append(f"it adapts {', '.join(others)}, which are not among {', '.join(MODULES)}")
    return found
