"""The fused LoRA layer equals PEFT's own, and stands aside where it would not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_model import one_thread, tiny_config
from transformers import LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from capo_core.training.fused_lora import fuse_lora

__all__ = ["one_thread"]


def make_model(family: str = "llama", **lora: Any) -> Any:
    """Return a tiny model with an adapter whose two factors are both random."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if family == "qwen2":  # its attention has biases
            base: Any = Qwen2ForCausalLM(Qwen2Config(**(tiny_config().to_dict() | {"model_type": "qwen2"})))
        else:
            base = LlamaForCausalLM(tiny_config())
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


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_fused_layers_equal_pefts_in_value_and_gradient(family: str) -> None:
    model = make_model(family)
    logits, expected = run(model)
    assert fuse_lora(model) == 14  # two layers of seven linear maps
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
    fuse_lora(model)
    _, found = run(model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    for name, gradient in full.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 0.1, name


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_keeps_pefts_way(lora: dict[str, Any]) -> None:
    assert fuse_lora(make_model(**lora)) == 0


def test_a_switched_off_or_merged_adapter_is_respected() -> None:
    model = make_model().eval()
    ids = torch.arange(2, 14)[None]
    with torch.no_grad(), model.disable_adapter():
        bare = model(input_ids=ids).logits
    adapted = model(input_ids=ids).logits.detach()
    fuse_lora(model)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, bare)
    assert not torch.allclose(bare, adapted, atol=1e-2)
    model.merge_adapter()
    assert torch.allclose(model(input_ids=ids).logits, adapted, atol=1e-4)
    model.unmerge_adapter()
    assert torch.allclose(model(input_ids=ids).logits, adapted, atol=1e-4)
