"""Adapters (LoRA, DoRA, OFT): new, from a folder, and back into a folder."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capo_core.errors import ConfigError, TrainingError
from capo_core.hashing import hash_file
from capo_core.models import check_adapter, choose_device, load_model, read_adapter_settings
from schemas.artifacts import ModelRef
from schemas.training import AdapterConfig, CAPOConfig, ModelConfig, OptimisationConfig

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

_FILES = ("adapter_model.safetensors", "adapter_config.json")
_KINDS = {
    "lora": "LoRA, low-rank adaptation (arXiv 2106.09685)",
    "dora": "DoRA, weight-decomposed low-rank adaptation (arXiv 2402.09353)",
    "oft": "OFT, orthogonal fine-tuning (arXiv 2306.07280)",
}


def new_adapter(
    model: ModelRef, config: ModelConfig, adapter: AdapterConfig, trainer: str, *, fsdp: bool = False
) -> PeftModel:
    """Return the base model with a fresh adapter in float32, drawn from torch's current random state.

    Args:
        model: base model.
        config: dtype, device and quantisation.
        adapter: LoRA, DoRA or OFT settings.
        trainer: grouped or trl.
        fsdp: whether the processes of a group share out the frozen layers.

    Raises:
        TrainingError: if the model has none of the target modules, or they do not fit the adapter's type.
        ConfigError: if 4-bit weights were to be shared out.
    """
    from peft import get_peft_model

    settings = _peft_settings(adapter)
    base = _load_frozen(model, config, trainer, fsdp)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Invalid `oft_block_size`")  # an error below
            trainable: Any = get_peft_model(base, settings)
    except ValueError as error:
        raise TrainingError(
            f"{model.id}: adapter.target_modules = {adapter.target_modules} does not fit: {error}"
        ) from error
    if adapter.type == "oft":
        _refuse_adjusted_blocks(trainable, adapter.r)
    return _prepare(trainable, config, trainer, fsdp)


def open_adapter(
    model: ModelRef,
    config: ModelConfig,
    adapter: AdapterConfig,
    adapter_dir: Path,
    trainer: str,
    *,
    fsdp: bool = False,
) -> PeftModel:
    """Return the base model with the adapter of a folder, to be trained further; arguments as of `new_adapter`.

    Raises:
        ModelError: if the folder has no adapter of this model.
        TrainingError: if the adapter's type, rank or scale are not those configured.
        ConfigError: if 4-bit weights were to be shared out.
    """
    from peft import PeftConfig, PeftModel

    check_adapter(model, adapter_dir)
    expected = _peft_settings(adapter)
    found, wanted = (describe_shape(part) for part in (read_adapter_settings(adapter_dir), expected.to_dict()))
    if found != wanted:
        raise TrainingError(
            f"{adapter_dir}: the adapter has {found}, configured are {wanted}; train the SFT adapter again with these"
        )
    settings: Any = PeftConfig.from_pretrained(str(adapter_dir))
    if adapter.type != "oft":
        settings.lora_dropout = adapter.dropout
    # Where the files are, so that PEFT never asks a hub for the base model when it saves a checkpoint.
    settings.base_model_name_or_path = model.path
    base = _load_frozen(model, config, trainer, fsdp)
    trainable = PeftModel.from_pretrained(base, str(adapter_dir), config=settings, is_trainable=True)
    return _prepare(trainable, config, trainer, fsdp)


def hash_weights(adapter_dir: Path) -> str:
    """Return the sha256 of an adapter's weights: what a training that goes on from them is known by."""
    return hash_file(adapter_dir / "adapter_model.safetensors")


def _peft_settings(adapter: AdapterConfig) -> PeftConfig:
    """Return PEFT's settings for a new adapter.

    OFT's rotations come from the Cayley transform (I + Q)⁻¹ (I − Q) itself, not from its Neumann series, PEFT's
    default: the series is not orthogonal, its products lose precision under autocast, and at block size 16 it saves a
    sixth of the rotation's time.

    Raises:
        TrainingError: if OFT is given a block size of 1 or a dropout.
    """
    from peft import LoraConfig, OFTConfig, TaskType

    modules = adapter.target_modules if isinstance(adapter.target_modules, str) else list(adapter.target_modules)
    if adapter.type != "oft":
        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=adapter.r,
            lora_alpha=adapter.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=adapter.dropout,
            target_modules=modules,
            use_dora=adapter.type == "dora",
        )
    if adapter.r < 2:
        raise TrainingError("adapter.r = 1: a rotation in one dimension has nothing to train; OFT needs r of 2 or more")
    if adapter.dropout > 0:
        # PEFT has a setting for it (module_dropout), and a layer, which its forward pass never calls.
        raise TrainingError(f"adapter.dropout = {adapter.dropout}: PEFT's OFT applies none; set it to 0, or use lora")
    return OFTConfig(
        task_type=TaskType.CAUSAL_LM,
        r=0,  # inferred from the block size
        oft_block_size=adapter.r,
        target_modules=modules,
        use_cayley_neumann=False,
    )


def _load_frozen(model: ModelRef, config: ModelConfig, trainer: str, fsdp: bool) -> PreTrainedModel:
    """Return the model that the adapter is trained beside; one that is shared out stays on CPU until it is."""
    if fsdp and config.quantization != "none":
        raise ConfigError(
            f"model.quantization is {config.quantization}, which cannot be shared out; set it to none, or fsdp: false"
        )
    device = "cpu" if fsdp else choose_device(config.device)
    return load_model(model, config.dtype, device, _attention(config, trainer), config.quantization)


def describe_shape(settings: Mapping[str, Any]) -> str:
    """Return an adapter's type, rank and scale in words, for comparison and messages.

    Args:
        settings: content of `adapter_config.json`.
    """
    if settings["peft_type"] == "OFT":
        return f"r = {settings['oft_block_size']}, type = oft"
    kind = "dora" if settings.get("use_dora") else str.lower(settings["peft_type"])
    return f"r = {settings.get('r')}, alpha = {float(settings.get('lora_alpha', math.nan)):g}, type = {kind}"


def _attention(config: ModelConfig, trainer: str) -> str:
    """Return the attention to train with: for prefix trees our own on CPU and one that skips blocks on CUDA."""
    from capo_core.layout.attention import FOLDED

    if trainer == "trl":
        return "sdpa"
    return FOLDED if choose_device(config.device) == "cpu" else "flex_attention"


def _prepare(trainable: PeftModel, config: ModelConfig, trainer: str, fsdp: bool) -> PeftModel:
    """Return the model with its layers fused, where the trainer is ours, and shared out where asked for."""
    from capo_core.training.fused.layers import fuse_layers
    from capo_core.training.sharding import shard_layers

    _refuse_adapted_head(trainable)
    if trainer == "grouped":
        fuse_layers(trainable)
    return shard_layers(trainable, choose_device(config.device)) if fsdp else trainable


def _refuse_adapted_head(model: Any) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_base_model().get_output_embeddings(), BaseTunerLayer):
        raise TrainingError(
            "adapter.target_modules names the vocabulary head, which stays frozen here; use all-linear, or leave "
            "lm_head out"
        )


def _refuse_adjusted_blocks(model: Any, block_size: int) -> None:
    """Raise TrainingError where PEFT took another block size than configured, for want of divisibility."""
    from peft.tuners.oft import OFTLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, OFTLayer)]
    if any(layer.oft_block_size["default"] != block_size for layer in layers):
        sizes = sorted({layer.in_features for layer in layers})
        raise TrainingError(
            f"adapter.r = {block_size}: with type oft it is a block size and has to divide the inputs of every adapted "
            f"matrix ({', '.join(map(str, sizes))}); use a divisor of {math.gcd(*sizes)}"
        )


def checkpoint_activations(model: PeftModel) -> None:
    """Make every layer of the model compute its activations again in the backward pass (arXiv 1604.06174).

    The checkpoints are not reentrant, so gradients reach the adapter although the embeddings are frozen. They work in
    training mode only, where layers then neither read nor write a key-value cache.

    Raises:
        TrainingError: if the model's layers do not support it.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model()
    try:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise TrainingError(f"{error} Set gradient_checkpointing to false") from error
    if base.dtype.itemsize < 4:
        # The second computation runs after PEFT's disable_input_dtype_casting has been left; with casting on again it
        # would differ from the first (DoRA: float32 norms in place of bfloat16 ones, which torch refuses).
        layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer.cast_input_dtype_enabled = False


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
    who = "one annotator" if len(annotators) == 1 else f"{len(annotators)} annotators, by a tag each"
    what = f"Fine-tuned on the label-explanation responses of {who} (supervised)."
    if isinstance(config, CAPOConfig):
        what = (
            f"Trained to prefer the responses of {who} over the other annotators' responses to the same items, "
            "starting from a supervised adapter (CAPO, arXiv 2605.28802: "
            f"preference loss `{config.loss}` plus an SFT anchor)."
        )
        if config.rewind > 0:
            what += f" Then moved back towards the supervised adapter by {config.rewind:g} (arXiv 2109.01903)."
    own = adapter.model_dump()
    if adapter.layout == "per_annotator":
        del own["tag"]
    if adapter.type == "oft":
        del own["alpha"]
    settings = {"seed": seed, **own, **config.model_dump()}
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    return f"""---
base_model: {json.dumps(model.id)}
library_name: peft
tags: [{adapter.type}, capo, {method}]
---

# {method.upper()} adapter

{_KINDS[adapter.type]}. {what}

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
