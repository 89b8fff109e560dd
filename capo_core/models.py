"""Finding, fetching and loading models. Importing this module loads no torch; loading a model does."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from capo_core.bundled_models import ENCODER_ID, SMOLLM2_ID, convert_smollm2, find_encoder
from capo_core.errors import ConfigError, ModelError
from capo_core.hashing import hash_file
from capo_core.quiet import quiet_libraries
from schemas.artifacts import ModelRef
from schemas.training import ModelConfig

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Device = Literal["cpu", "cuda"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
"""What is read of a model: weights as safetensors, configuration, tokenizer. Never code, never pickles."""


def resolve_model(model_id: str, revision: str | None = None, *, cache_dir: Path) -> ModelRef:
    """Return where a model's files are on this machine, fetched or converted if need be, and their fingerprint.

    Args:
        model_id: `bundled:smollm2-135m-instruct`, `bundled:all-minilm-l6-v2`, a local folder or a Hugging Face id.
        revision: branch, tag or commit of a Hugging Face id.
        cache_dir: where converted models are kept.

    Returns:
        The fingerprint is the commit of a Hugging Face id, a digest of the files otherwise.

    Raises:
        ModelError: if there is no such model, its package is not installed, it cannot be fetched, or it has weights
            in pickles only or code of its own.
    """
    if model_id == SMOLLM2_ID:
        return convert_smollm2(cache_dir)
    if model_id == ENCODER_ID:
        return _describe_folder(model_id, find_encoder())
    if model_id.startswith("bundled:"):
        raise ModelError(f"{model_id}: no such bundled model; there are {SMOLLM2_ID} and {ENCODER_ID}")
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        return _describe_folder(model_id, folder.resolve())
    if model_id.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model_id):
        raise ModelError(f"{model_id}: no such folder, and not a Hugging Face id; correct model.id")
    return _fetch(model_id, revision)


def _fetch(model_id: str, revision: str | None) -> ModelRef:
    """Return a Hugging Face model, from the library's own cache where the hub cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model_id, revision=revision, allow_patterns=list(_MODEL_FILES)))
    except (LocalEntryNotFoundError, OSError, HfHubHTTPError) as error:
        raise ModelError(
            f"{model_id}: cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0][:200]}); connect to "
            f"the network once, check the id and your access, or use a local folder or {SMOLLM2_ID}"
        ) from error
    _refuse_unsafe(path, model_id)
    return ModelRef(id=model_id, path=str(path), fingerprint=path.name)


def _describe_folder(model_id: str, folder: Path) -> ModelRef:
    """Return a local model; its fingerprint covers the names and bytes of every file that is read."""
    _refuse_unsafe(folder, model_id)
    digest = hashlib.sha256()
    files = sorted({p for pattern in _MODEL_FILES for p in folder.rglob(pattern) if p.is_file()})
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return ModelRef(id=model_id, path=str(folder), fingerprint=digest.hexdigest())


def _refuse_unsafe(folder: Path, model_id: str) -> None:
    """Raise ModelError unless the folder has safetensors and asks for no code of its own."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{model_id}: no config.json in the folder; is it a model saved by transformers?")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{model_id}: no *.safetensors in the folder. Weights in pickles (.bin, .pt) are not loaded, because "
            "loading them runs code; save the model again with safe_serialization=True"
        )
    for path in sorted(folder.rglob("*config*.json")):
        name = path.relative_to(folder).as_posix()
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{model_id}: {name} cannot be read as JSON ({error}); fetch the model again") from error
        if isinstance(settings, dict) and "auto_map" in settings:
            raise ModelError(f"{model_id}: {name} asks for code of its own (auto_map), which capo never runs")


def choose_device(requested: Literal["auto", "cpu", "cuda"]) -> Device:
    """Return the device to compute on: `auto` takes CUDA where there is one.

    Raises:
        ModelError: if CUDA is asked for and there is none.
    """
    import torch

    if requested == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but torch sees no CUDA device; use auto or cpu")
    return "cuda" if requested != "cpu" and torch.cuda.is_available() else "cpu"


def load_tokenizer(model: ModelRef) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer: pads on the left, with a padding token that is already in the vocabulary.

    Raises:
        ModelError: if it has no chat template, or no token that could pad.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model.path, local_files_only=True, padding_side="left")
    if tokenizer.chat_template is None:
        raise ModelError(f"{model.id}: has no chat template; use an instruction-tuned model")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"{model.id}: has neither a padding nor an end-of-text token; use another model")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    model: ModelRef, dtype: str, device: Device, attention: str, quantization: Literal["none", "nf4"] = "none"
) -> PreTrainedModel:
    """Return the model in evaluation mode.

    Args:
        model: where it is.
        dtype: float32, bfloat16 or float64; of the computation and of what is not quantised.
        device: cpu or cuda.
        attention: `attention.FOLDED` or an implementation of transformers, e.g. sdpa.
        quantization: nf4 holds the linear layers in 4 bits (QLoRA, arXiv 2305.14314).

    Raises:
        ModelError: if transformers cannot load it.
        ConfigError: if nf4 is asked for without CUDA or without bitsandbytes.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    placement = {} if quantization == "none" else _place_in_four_bits(dtype, device)
    try:
        with quiet_libraries():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model.path,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                local_files_only=True,
                use_safetensors=True,
                **placement,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{model.id}: cannot be loaded: {error}") from error
    return (loaded if placement else loaded.to(device)).eval()


def _place_in_four_bits(dtype: str, device: Device) -> dict[str, Any]:
    """Return what transformers needs to quantise while loading: 4-bit NormalFloat, its constants quantised as well.

    What stays unquantised (embeddings, norms, head) keeps `dtype` and is not widened to float32 as PEFT's
    `prepare_model_for_kbit_training` would do it: the forward pass then is that of the unquantised model.
    """
    if device != "cuda":
        raise ConfigError("model.quantization is nf4, which needs a CUDA device; use none")
    if find_spec("bitsandbytes") is None:
        raise ConfigError("model.quantization is nf4, which needs bitsandbytes: pip install bitsandbytes; or use none")
    import torch
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def load_policy(model: ModelRef, config: ModelConfig, adapter_dir: Path | None) -> PreTrainedModel:
    """Return the model for generation, the adapter merged into its weights.

    An adapter trained beside 4-bit weights is merged into the weights they were made from: merged and quantised
    again, much of it would round away.

    Args:
        model: the base model.
        config: dtype and device; its quantization is for training only.
        adapter_dir: folder with `adapter_model.safetensors`, or None for the base model.

    Raises:
        ModelError: if the adapter is missing, belongs to another base model, or the model cannot be loaded.
    """
    from capo_core.layout.attention import FOLDED

    policy = load_model(model, config.dtype, choose_device(config.device), FOLDED)
    if adapter_dir is None:
        return policy
    from capo_core.merging import merge_adapter

    check_adapter(model, adapter_dir)
    with quiet_libraries():
        return merge_adapter(policy, adapter_dir).eval()


def check_adapter(model: ModelRef, adapter_dir: Path) -> None:
    """Raise ModelError unless the folder holds a safetensors adapter of this base model."""
    base = read_adapter_settings(adapter_dir).get("base_model_name_or_path")
    if base != model.id:
        raise ModelError(
            f"{adapter_dir}: the adapter belongs to {base}, not to {model.id}; configure the model it was trained on"
        )


def read_adapter_settings(adapter_dir: Path) -> dict[str, Any]:
    """Return `adapter_config.json` of a folder with an adapter.

    Raises:
        ModelError: if the folder has no adapter in safetensors.
    """
    settings = adapter_dir / "adapter_config.json"
    if not settings.is_file() or not (adapter_dir / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"{adapter_dir}: no adapter_config.json and adapter_model.safetensors; train the adapter first"
        )
    return json.loads(settings.read_text(encoding="utf-8"))


class Encoder:
    """A sentence-transformers model: called, it embeds texts; `embed_tokens` embeds their tokens."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return n texts as float32 (n, d), each row of length 1."""
        if not texts:
            return np.zeros((0, self._model.get_embedding_dimension() or 0), dtype=np.float32)
        vectors = self._model.encode(
            texts, batch_size=64, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def embed_tokens(self, texts: list[str]) -> list[np.ndarray]:
        """Return the tokens of n texts, each as float32 (t, d): the last layer before pooling, no special tokens."""
        if not texts:
            return []
        tokens: Any = self._model.encode(
            texts, batch_size=64, output_value="token_embeddings", convert_to_numpy=False, show_progress_bar=False
        )
        special: Any = self._model.tokenizer(
            texts, truncation=True, max_length=self._model.max_seq_length, return_special_tokens_mask=True
        )["special_tokens_mask"]
        return [
            np.asarray(one.float().cpu(), dtype=np.float32)[np.asarray(mask) == 0]
            for one, mask in zip(tokens, special, strict=True)
        ]


def load_encoder(model: ModelRef, *, device: Literal["auto", "cpu", "cuda"] = "cpu") -> Encoder:
    """Return a sentence-transformers model as an encoder of texts and of their tokens.

    Args:
        model: a sentence-transformers model.
        device: where it computes.

    Raises:
        ModelError: if sentence-transformers cannot load it.
    """
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_libraries():
            return Encoder(
                SentenceTransformer(
                    model.path, device=choose_device(device), local_files_only=True, trust_remote_code=False
                )
            )
    except (OSError, ValueError) as error:
        raise ModelError(f"{model.id}: cannot be loaded as a sentence encoder: {error}") from error
