"""Fused layers equal those of transformers and PEFT, and stand aside where they would not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_model import one_thread, tiny_config
from torch.nn.functional import silu
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from capo_core.training.fused.elementwise import gated_silu, rms_norm
from capo_core.training.fused.layers import fuse_layers

__all__ = ["one_thread"]

FAMILIES: dict[str, Any] = {
    "llama": lambda shape: LlamaForCausalLM(tiny_config()),
    "qwen2": lambda shape: Qwen2ForCausalLM(Qwen2Config(**shape)),  # its attention has biases
    "qwen3": lambda shape: Qwen3ForCausalLM(Qwen3Config(**shape)),  # and its heads have norms
    "gemma": lambda shape: GemmaForCausalLM(
        GemmaConfig(**shape | {"hidden_act": "gelu_pytorch_tanh"})  # its norms and its gates are others
    ),
}


def make_model(family: str = "llama", **lora: Any) -> Any:
    """Return a tiny model with an adapter whose two factors are both random."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        shape = tiny_config().to_dict() | {"model_type": family, "hidden_act": "silu"}
        base: Any = FAMILIES[family](shape)
        for name, parameter in base.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | lora
        model: Any = get_peft_model(base, LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def run(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return logits and the adapter's gradients of a loss on them."""
    ids = torch.arange(2, 26).view(2, 12)
    logits = model(input_ids=ids).logits
    model.zero_grad()
    (logits.float().log_softmax(-1)[..., 7].sum() / 100).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("family", "n_norms"), [("llama", 5), ("qwen2", 5), ("qwen3", 9), ("gemma", 0)])
def test_fused_layers_equal_pefts_in_value_and_gradient(family: str, n_norms: int) -> None:
    model = make_model(family)
    logits, expected = run(model)
    n_gates = 0 if family == "gemma" else 2
    assert fuse_layers(model) == {"lora": 14, "gate": n_gates, "norm": n_norms}  # two layers of seven linear maps
    fused, found = run(model)
    assert torch.allclose(fused, logits, atol=1e-5)
    assert found.keys() == expected.keys()
    assert len(found) == 28
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-5, name


def test_bfloat16_activations_give_float32_gradients() -> None:
    model = make_model()
    model.get_base_model().to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    _, full = run(make_model())
    fuse_layers(model)
    _, found = run(model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    for name, gradient in full.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 0.1, name


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_keeps_pefts_way(lora: dict[str, Any]) -> None:
    assert fuse_layers(make_model(**lora))["lora"] == 0


def test_a_switched_off_or_merged_adapter_is_respected() -> None:
    model = make_model().eval()
    ids = torch.arange(2, 14)[None]
    with torch.no_grad(), model.disable_adapter():
        bare = model(input_ids=ids).logits
    adapted = model(input_ids=ids).logits.detach()
    fuse_layers(model)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, bare)
    assert not torch.allclose(bare, adapted, atol=1e-2)
    model.merge_adapter()
    assert torch.allclose(model(input_ids=ids).logits, adapted, atol=1e-4)
    model.unmerge_adapter()
    assert torch.allclose(model(input_ids=ids).logits, adapted, atol=1e-4)


def test_layers_adapted_in_part_are_fused_alone() -> None:
    model = make_model(target_modules=["q_proj", "v_proj", "up_proj"])
    logits, expected = run(model)
    assert fuse_layers(model)["lora"] == 6
    fused, found = run(model)
    assert torch.allclose(fused, logits, atol=1e-5)
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-5, name


def test_nothing_is_held_between_passes() -> None:
    """The same tensor, changed in place, is computed anew."""
    model = make_model()
    fuse_layers(model)
    attention = model.get_base_model().model.layers[0].self_attn
    x = torch.randn(1, 3, attention.q_proj.in_features)
    before = [layer(x) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    x.mul_(2)
    after = [layer(x) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    again = attention.q_proj(x)
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(new, 2 * old, atol=1e-5)
    assert torch.allclose(again, after[0])


@pytest.mark.parametrize(
    ("dtype", "of_norm"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_elementwise_steps_equal_pytorchs(dtype: torch.dtype, of_norm: torch.dtype) -> None:
    """Over more rows than one step takes."""
    torch.manual_seed(7)
    shape, tolerance = (1, 700, 576), {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    norm = LlamaRMSNorm(576).to(of_norm)
    torch.nn.init.normal_(norm.weight, mean=1.0, std=0.2)
    norm.requires_grad_(False)
    x, up, slope = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    of_normed = torch.promote_types(dtype, of_norm)
    for fused, plain, inputs, wanted in (
        (lambda: rms_norm(x, norm.weight, norm.variance_epsilon), lambda: norm(x), (x,), of_normed),
        (lambda: gated_silu(x, up), lambda: silu(x) * up, (x, up), dtype),
    ):
        found, expected = fused(), plain()
        assert found.dtype == expected.dtype == wanted
        assert torch.allclose(found, expected, atol=tolerance, rtol=tolerance)
        pairs = zip(*(torch.autograd.grad(y, inputs, slope.to(y.dtype)) for y in (found, expected)), strict=True)
        for of_found, of_expected in pairs:
            assert torch.allclose(of_found, of_expected, atol=tolerance, rtol=tolerance)


def test_the_gradient_beside_a_wider_norm_is_rounded_once() -> None:
    torch.manual_seed(7)
    weight, slope = 1 + 0.2 * torch.randn(576), torch.randn(700, 576)
    x = torch.randn(700, 576, dtype=torch.bfloat16, requires_grad=True)
    (found,) = torch.autograd.grad(rms_norm(x, weight, 1e-5), (x,), slope)
    exact = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(rms_norm(exact, weight.double(), 1e-5), (exact,), slope.double())
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.double(), expected, rtol=1.01 * 2**-8, atol=1e-5)
