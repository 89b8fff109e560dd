"""The same adapters behind vLLM, for machines that have it: the command that serves them there.

Flags as in vLLM 0.22's documentation; none of it is run here.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from capo_core.errors import ServeError
from capo_core.models import read_adapter_settings
from capo_core.training.adapters import describe_shape
from deployments.serve.served_models import Served

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be."""

DIFFERENCES = """\
# What differs from capo serve:
# - Requests carry capo's own prompt: as system message the task's instruction, as user message the item (and the
#   annotator, for a shared adapter), as `capo_core.prompts.build_prompt` writes them; nothing is put in between.
#   Models that can think are to be told not to: chat_template_kwargs = {"enable_thinking": false}.
# - Give temperature, top_p and max_tokens with every request; vLLM knows nothing of the evaluated ones.
# - Labels are whatever is generated; there is no constrained decision and no `capo` field.
# - Random numbers are vLLM's: the same seed gives other answers than capo predict."""


def write_vllm_command(served: Served, *, host: str, port: int) -> str:
    """Return the shell command under which vLLM serves the adapters, and how it differs, as comments.

    A shared adapter is one model, whoever is asked: its prompts name the annotator.

    Raises:
        ServeError: if vLLM cannot serve one of the adapters.
    """
    adapters: dict[str, Path] = {}
    for model in served.models.values():
        adapters[model.version.name] = served.adapters[model.adapter]
    rank = max(_check_adapter(name, folder) for name, folder in adapters.items())
    allowed = next((one for one in RANKS if one >= rank), None)
    if allowed is None:
        raise ServeError(f"an adapter has rank {rank}, vLLM serves {RANKS[-1]} at most; use capo serve without vLLM")
    lines = [
        ["vllm", "serve", served.base.path],
        ["--served-model-name", served.base.id],
        ["--dtype", served.recipe.model.dtype],
        # Otherwise temperature, top_p and top_k are those of the base model's generation_config.json.
        ["--generation-config", "vllm"],
        ["--enable-lora"],
        ["--max-lora-rank", str(allowed)],
        ["--max-loras", str(len(adapters))],
        ["--lora-modules", *(_write_module(name, folder) for name, folder in adapters.items())],
        ["--host", host, "--port", str(port)],
    ]
    return " \\\n  ".join(shlex.join(line) for line in lines) + "\n" + DIFFERENCES


def _write_module(name: str, folder: Path) -> str:
    """Return an adapter as vLLM reads it: name=path, or JSON where that would be read wrongly."""
    if any(sign in f"{name}{folder}" for sign in "=,"):
        return json.dumps({"name": name, "path": str(folder)})
    return f"{name}={folder}"


def _check_adapter(name: str, folder: Path) -> int:
    """Return an adapter's rank.

    Raises:
        ServeError: if it is no plain LoRA.
    """
    settings = read_adapter_settings(folder)
    if settings["peft_type"] != "LORA" or settings.get("use_dora"):
        raise ServeError(
            f"{name}: vLLM serves LoRA adapters only, this one has {describe_shape(settings)}; use capo serve"
        )
    return max([settings["r"], *settings.get("rank_pattern", {}).values()])
