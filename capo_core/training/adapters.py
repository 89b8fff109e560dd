"""LoRA adapters: new, from a folder, and back into a folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capo_core.errors import TrainingError
from capo_core.models import check_adapter, choose_device, load_model
from schemas.artifacts import ModelRef
from schemas.config import AdapterConfig, ModelConfig, OptimisationConfig

if TYPE_CHECKING:
    from peft import PeftModel

_FILES = ("adapter_model.safetensors", "adapter_config.json")


def new_adapter(model: ModelRef, config: ModelConfig, adapter: AdapterConfig, trainer: str) -> PeftModel:
    """Return the base model with a fresh LoRA adapter in float32, drawn from torch's current random state.

    Raises:
        TrainingError: if the model has none of the target modules.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    modules = adapter.target_modules
    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.r,
        lora_alpha=adapter.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=adapter.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )
    base = load_model(model, config.dtype, choose_device(config.device), _attention(config, trainer))
    try:
        trainable: Any = get_peft_model(base, settings)
    except ValueError as error:
        raise TrainingError(f"{model.id}: adapter.target_modules = {modules} does not fit: {error}") from error
    _refuse_adapted_head(trainable)
    return trainable


def open_adapter(
    model: ModelRef, config: ModelConfig, adapter: AdapterConfig, adapter_dir: Path, trainer: str
) -> PeftModel:
    """Return the base model with the adapter of a folder, to be trained further.

    Raises:
        ModelError: if the folder has no adapter of this model.
        TrainingError: if the adapter's rank or scale are not those configured.
    """
    from peft import PeftConfig, PeftModel

    check_adapter(model, adapter_dir)
    settings: Any = PeftConfig.from_pretrained(str(adapter_dir))
    if (settings.r, float(settings.lora_alpha)) != (adapter.r, adapter.alpha):
        raise TrainingError(
            f"{adapter_dir}: the adapter has r = {settings.r}, alpha = {settings.lora_alpha}, "
            f"configured are r = {adapter.r}, alpha = {adapter.alpha}; train the SFT adapter again with these"
        )
    settings.lora_dropout = adapter.dropout
    # Where the files are, so that PEFT never asks a hub for the base model when it saves a checkpoint.
    settings.base_model_name_or_path = model.path
    base = load_model(model, config.dtype, choose_device(config.device), _attention(config, trainer))
    trainable = PeftModel.from_pretrained(base, str(adapter_dir), config=settings, is_trainable=True)
    _refuse_adapted_head(trainable)
    return trainable


def _attention(config: ModelConfig, trainer: str) -> str:
    """Return the attention to train with: our own for groups on CPU, PyTorch's elsewhere."""
    from capo_core.attention import FOLDED

    return FOLDED if trainer == "grouped" and choose_device(config.device) == "cpu" else "sdpa"


def _refuse_adapted_head(model: Any) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_base_model().get_output_embeddings(), BaseTunerLayer):
        raise TrainingError(
            "adapter.target_modules names the vocabulary head, which stays frozen here; use all-linear, or leave "
            "lm_head out"
        )


def save_adapter(model: PeftModel, output_dir: Path, model_id: str, card: str) -> None:
    """Write `adapter_model.safetensors`, `adapter_config.json` and `README.md` into `output_dir`, and nothing else.

    The configuration names the base model by its id, not by where it lies on this machine, and is written with
    sorted keys and lists, so that equal adapters are equal files.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent) as scratch:
        model.save_pretrained(scratch, selected_adapters=["default"], save_embedding_layers=False)
        settings = json.loads((Path(scratch) / _FILES[1]).read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = model_id
        settings["revision"] = None
        if isinstance(settings["target_modules"], list):
            settings["target_modules"].sort()
        (Path(scratch) / _FILES[0]).replace(output_dir / _FILES[0])
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (output_dir / _FILES[1]).write_text(text, encoding="utf-8")
    (output_dir / "README.md").write_text(card, encoding="utf-8")


def describe_adapter(
    method: str, model: ModelRef, adapter: AdapterConfig, config: OptimisationConfig, annotators: list[str], seed: int
) -> str:
    """Return the adapter's card as Markdown: what it is, how it was made, what it is for and what it is not."""
    who = f"annotator {annotators[0]}" if len(annotators) == 1 else f"{len(annotators)} annotators, by a tag each"
    what = {
        "sft": f"Fine-tuned on the label-explanation responses of {who} (supervised).",
        "capo": f"Trained to prefer the responses of {who} over the other annotators' responses to the same items, "
        "starting from a supervised adapter (CAPO, arXiv 2605.28802: DPO with an SFT anchor).",
    }[method]
    settings = {
        "seed": seed,
        "layout": adapter.layout,
        "r": adapter.r,
        "alpha": adapter.alpha,
        "dropout": adapter.dropout,
        "target_modules": adapter.target_modules,
        **config.model_dump(),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    return f"""---
base_model: {json.dumps(model.id)}
library_name: peft
tags: [lora, capo, {method}]
---

# {method.upper()} adapter

{what}

Base model: `{model.id}` (fingerprint `{model.fingerprint[:16]}`). Written by capo.

| setting | value |
|---|---|
{rows}

## Intended use

Research on how individual annotators decide and explain: generating responses to held-out items of the same task and
measuring how far they resemble the person's own.

## Limits

- It imitates a pseudonymised person. It must not be used to speak for, assess or identify that person.
- What it writes is not the person's judgement; agreement with the person is measured, never assumed.
- It knows one task, one language and one prompt form, and inherits the base model's biases.
- If the person withdraws consent, the adapter has to be deleted.
"""
