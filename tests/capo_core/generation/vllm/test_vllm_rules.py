"""Which adapters vLLM takes: capo's own LoRA does, and what vLLM refuses is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_material import adapter_config, trained_adapter, write_adapter
from safetensors.torch import load_file, save_file
from tiny_model import one_thread, tiny

from capo_core.generation.vllm.rules import examine_adapter
from schemas.artifacts import ModelRef

__all__ = ["one_thread", "tiny"]


@pytest.fixture(scope="module")
def lora(tiny: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = adapter_config("lora")
    return write_adapter(trained_adapter(tiny, adapter), adapter, tiny, tmp_path_factory.mktemp("lora") / "adapter")


def changed(
    source: Path, target: Path, settings: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None
) -> Path:
    """Return a copy of an adapter with other settings, and with tensors added."""
    target.mkdir()
    kept = json.loads((source / "adapter_config.json").read_text(encoding="utf-8")) | settings
    (target / "adapter_config.json").write_text(json.dumps(kept), encoding="utf-8")
    save_file(load_file(source / "adapter_model.safetensors") | (tensors or {}), target / "adapter_model.safetensors")
    return target


def test_a_lora_of_all_linear_layers_is_served_with_the_next_rank_allowed(lora: Path) -> None:
    found = examine_adapter(lora)
    assert found.obstacles == ()
    assert found.max_lora_rank == 8  # of 1, 8, 16, … the least that is not below 4


@pytest.mark.parametrize(("rank", "limit"), [(1, 1), (8, 8), (9, 16), (300, 320), (512, 512)])
def test_the_rank_to_start_vllm_with(lora: Path, tmp_path: Path, rank: int, limit: int) -> None:
    assert examine_adapter(changed(lora, tmp_path / "a", {"r": rank})).max_lora_rank == limit


def test_a_layer_with_a_higher_rank_of_its_own_decides(lora: Path, tmp_path: Path) -> None:
    changes = {"r": 4, "rank_pattern": {"q_proj": 9, "o_proj": 2}}
    assert examine_adapter(changed(lora, tmp_path / "a", changes)).max_lora_rank == 16


@pytest.mark.parametrize("kind", ["dora", "oft"])
def test_other_kinds_of_adapter_are_not(tiny: ModelRef, tmp_path: Path, kind: str) -> None:
    adapter = adapter_config(kind)
    found = examine_adapter(write_adapter(trained_adapter(tiny, adapter), adapter, tiny, tmp_path / kind))
    assert found.max_lora_rank is None
    assert found.obstacles == ({"dora": "it is DoRA", "oft": "it is OFT, and vLLM takes LoRA only"}[kind],)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"r": 513}, "its rank is 513, and vLLM takes at most 512"),
        ({"bias": "all"}, "it trains biases"),
        ({"lora_bias": True}, "its updates have a bias"),
        ({"modules_to_save": ["lm_head"]}, "it replaces whole modules"),
        ({"lora_alpha": None}, "its settings lack lora_alpha"),
    ],
)
def test_settings_that_vllm_refuses(lora: Path, tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    found = examine_adapter(changed(lora, tmp_path / "a", settings))
    assert found.obstacles == (says,)
    assert found.max_lora_rank is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("base_model.model.model.layers.0.mlp.up_proj.bias", "is neither lora_A nor lora_B (1 such)"),
        ("base_model.model.lm_head.lora_A.weight", "lm_head has only one of lora_A and lora_B (1 such)"),
    ],
)
def test_tensors_that_vllm_refuses(lora: Path, tmp_path: Path, name: str, says: str) -> None:
    (first, *_) = examine_adapter(changed(lora, tmp_path / "a", {}, {name: torch.zeros(2)})).obstacles
    assert says in first


def test_a_layer_that_vllm_does_not_have_is_named(lora: Path, tmp_path: Path) -> None:
    extra = {f"base_model.model.model.layers.0.router.lora_{part}.weight": torch.zeros(2) for part in "AB"}
    (only,) = examine_adapter(changed(lora, tmp_path / "a", {}, extra)).obstacles
    assert only.startswith("it adapts router, which are not among q_proj, k_proj")
