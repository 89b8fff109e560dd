"""Merged weights do what the adapter did beside them, and are the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_material import KINDS, adapter_config, trained_adapter, write_adapter
from safetensors.torch import load_file, save_file
from tiny_model import BFLOAT16, FLOAT32, one_thread, tiny

from capo_core.errors import ModelError
from capo_core.merging import round_stochastically
from capo_core.models import load_model, load_policy
from capo_core.seeding import derive_seed
from schemas.artifacts import ModelRef

__all__ = ["one_thread", "tiny"]

IDS = torch.arange(2, 42).reshape(2, 20)


def written(tiny: ModelRef, kind: str, folder: Path) -> Path:
    return write_adapter(trained_adapter(tiny, adapter_config(kind)), adapter_config(kind), tiny, folder)


def matrices(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if "_proj" in name}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_logits_are_those_of_the_adapter_beside_the_model(tiny: ModelRef, tmp_path: Path, kind: str) -> None:
    beside = trained_adapter(tiny, adapter_config(kind)).eval()
    merged: Any = load_policy(tiny, FLOAT32, write_adapter(beside, adapter_config(kind), tiny, tmp_path))
    with torch.no_grad():
        expected = beside(IDS).logits
        plain = load_model(tiny, "float32", "cpu", "sdpa")(IDS).logits
        assert torch.allclose(merged(IDS).logits, expected, rtol=0, atol=1e-5)
    assert float((expected - plain).abs().max()) > 0.1
    assert set(matrices(merged)) == set(matrices(load_model(tiny, "float32", "cpu", "sdpa")))


def test_merged_lora_is_the_rounded_sum_with_the_product(tiny: ModelRef, tmp_path: Path) -> None:
    merged = matrices(load_policy(tiny, BFLOAT16, written(tiny, "lora", tmp_path)))
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    for name, weight in matrices(load_model(tiny, "bfloat16", "cpu", "sdpa")).items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        # alpha / r = 8 / 4 = 2
        exact = weight.float() + (adapter[f"{module}.lora_B.weight"] @ adapter[f"{module}.lora_A.weight"]) * 2.0
        expected = round_stochastically(exact, torch.Generator().manual_seed(derive_seed(0, module)))
        assert torch.equal(merged[name], expected), name


def test_merged_dora_has_the_trained_row_norms(tiny: ModelRef, tmp_path: Path) -> None:
    merged = matrices(load_policy(tiny, FLOAT32, written(tiny, "dora", tmp_path)))
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    for name, weight in merged.items():
        trained = adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_magnitude_vector"]
        assert torch.allclose(weight.norm(dim=1), trained, rtol=1e-5), name


def test_merged_oft_keeps_lengths_and_angles_of_rows(tiny: ModelRef, tmp_path: Path) -> None:
    # (W Rᵀ)(W Rᵀ)ᵀ = W Rᵀ R Wᵀ = W Wᵀ
    merged = matrices(load_policy(tiny, FLOAT32, written(tiny, "oft", tmp_path)))
    for name, weight in matrices(load_model(tiny, "float32", "cpu", "sdpa")).items():
        assert torch.allclose(merged[name] @ merged[name].T, weight @ weight.T, atol=1e-5), name
        assert not torch.allclose(merged[name], weight, atol=1e-2), name


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_merges_are_the_same_every_time_and_a_step_from_the_exact(
    tiny: ModelRef, tmp_path: Path, kind: str
) -> None:
    from capo_core.merging import merge_adapter

    folder = written(tiny, kind, tmp_path)
    first, second = (matrices(load_policy(tiny, BFLOAT16, folder)) for _ in range(2))
    widened = load_model(tiny, "bfloat16", "cpu", "sdpa").float()
    exact = matrices(merge_adapter(widened, folder))
    for name, weight in first.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, second[name]), name
        # neighbouring bfloat16 numbers are at most 2⁻⁷ of a number apart
        assert torch.allclose(weight.float(), exact[name], rtol=2**-7, atol=0), name


def test_an_adapter_with_weights_that_are_not_finite_is_refused(tiny: ModelRef, tmp_path: Path) -> None:
    weights = load_file(written(tiny, "lora", tmp_path) / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"cannot be merged into .*layers\.0\..*NaNs detected"):
        load_policy(tiny, FLOAT32, tmp_path)
