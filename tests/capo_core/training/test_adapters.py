"""Adapters of every type: what a new one is, what may be opened again, how it trains beside bfloat16 weights."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_material import KINDS, adapter_config, perturb, trained_adapter, write_adapter
from peft.helpers import disable_input_dtype_casting
from tiny_model import BFLOAT16, FLOAT32, one_thread, tiny

from capo_core.errors import ConfigError, TrainingError
from capo_core.models import load_model
from capo_core.training.adapters import checkpoint_activations, describe_adapter, new_adapter, open_adapter
from schemas.artifacts import ModelRef
from schemas.training import CAPOConfig, ModelConfig, SFTConfig

__all__ = ["one_thread", "tiny"]

IDS = torch.arange(2, 42).reshape(2, 20)


def hidden_states(model: Any) -> torch.Tensor:
    """Return the last hidden states, computed as the trainer does it: bfloat16 weights under autocast."""
    with contextlib.ExitStack() as stack:
        if model.get_base_model().dtype == torch.bfloat16:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            stack.enter_context(disable_input_dtype_casting(model))
        return model.get_base_model().get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state.float()


def gradients(model: Any) -> torch.Tensor:
    """Return the adapter's gradients of some loss, as one vector."""
    model.zero_grad()
    hidden_states(model.train()).sum(dim=-1).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_a_new_adapter_is_float32_alone_trainable_and_changes_nothing(
    tiny: ModelRef, config: ModelConfig, kind: str
) -> None:
    model: Any = new_adapter(tiny, config, adapter_config(kind), "grouped").eval()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    assert all("lora_" in name or "oft_R" in name for name in trainable)
    with torch.no_grad():
        fresh = hidden_states(model)
        with model.disable_adapter():
            plain = hidden_states(model)
    # DoRA multiplies by m / ‖W‖, equal but for rounding, which in bfloat16 is up to 2⁻⁸ for the norm in every layer.
    tolerance = 1e-5 if config is FLOAT32 else 0.15
    assert torch.allclose(fresh, plain, rtol=0, atol=tolerance if kind == "dora" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_beside_bfloat16_weights_are_those_of_float32(tiny: ModelRef, kind: str) -> None:
    half = trained_adapter(tiny, adapter_config(kind), BFLOAT16)
    full = trained_adapter(tiny, adapter_config(kind), FLOAT32)
    full.load_state_dict(half.state_dict())  # the rounded base weights, widened
    expected, found = gradients(full), gradients(half)
    assert {p.grad.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    # bfloat16 keeps 8 bits, 0.4 per cent, per product; two layers have about a dozen in a row
    assert float((found - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_checkpointed_activations_give_the_same_gradients_from_a_second_computation(
    tiny: ModelRef, config: ModelConfig, kind: str
) -> None:
    model = trained_adapter(tiny, adapter_config(kind), config)
    expected = gradients(model)
    computed = []
    model.get_base_model().model.layers[0].input_layernorm.register_forward_hook(lambda *_: computed.append(1))
    gradients(model)
    assert len(computed) == 1
    checkpoint_activations(model)
    assert torch.equal(gradients(model), expected)
    assert len(computed) == 1 + 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_comes_back_from_its_folder_as_it_was_and_trainable(
    tiny: ModelRef, tmp_path: Path, kind: str
) -> None:
    adapter = adapter_config(kind)
    model = trained_adapter(tiny, adapter)
    folder = write_adapter(model, adapter, tiny, tmp_path / "first")
    opened: Any = open_adapter(tiny, FLOAT32, adapter, folder, "grouped")
    saved = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: p for name, p in opened.named_parameters() if p.requires_grad}
    assert set(found) == set(saved)
    assert all(torch.equal(found[name], weight) for name, weight in saved.items())
    again = write_adapter(opened, adapter, tiny, tmp_path / "second")
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("lora", {"type": "dora"}, "has r = 4, alpha = 8, type = lora, configured are r = 4, alpha = 8, type = dora"),
        ("dora", {"type": "lora"}, "has r = 4, alpha = 8, type = dora, configured are r = 4, alpha = 8, type = lora"),
        ("dora", {"alpha": 4.0}, "has r = 4, alpha = 8, type = dora, configured are r = 4, alpha = 4, type = dora"),
        ("lora", {"r": 2}, "has r = 4, alpha = 8, type = lora, configured are r = 2, alpha = 8, type = lora"),
        ("oft", {"r": 8}, "has r = 4, type = oft, configured are r = 8, type = oft; train the SFT adapter again"),
        ("oft", {"type": "lora"}, "has r = 4, type = oft, configured are r = 4, alpha = 8, type = lora"),
    ],
)
def test_an_adapter_of_other_type_rank_or_scale_is_refused(
    tiny: ModelRef, tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    write_adapter(trained_adapter(tiny, adapter_config(kind)), adapter_config(kind), tiny, tmp_path)
    with pytest.raises(TrainingError, match=message):
        open_adapter(tiny, FLOAT32, adapter_config(kind, **changes), tmp_path, "grouped")


def test_dropout_of_an_opened_adapter_is_the_configured_one(tiny: ModelRef, tmp_path: Path) -> None:
    write_adapter(trained_adapter(tiny, adapter_config("dora")), adapter_config("dora"), tiny, tmp_path)
    opened = open_adapter(tiny, FLOAT32, adapter_config("dora", dropout=0.5), tmp_path, "grouped").train()
    with torch.no_grad():
        assert not torch.equal(hidden_states(opened), hidden_states(opened))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # the tiny model's matrices have 32 inputs, the one down from the MLP 48: gcd 16
        ({"r": 5}, r"adapter\.r = 5: .* \(32, 48\); use a divisor of 16"),
        ({"r": 64}, r"adapter\.r = 64: .* use a divisor of 16"),
        ({"r": 1}, r"adapter\.r = 1: .* needs r of 2 or more"),
        ({"dropout": 0.1}, r"adapter\.dropout = 0\.1: PEFT's OFT applies none; set it to 0"),
        ({"target_modules": ("no_such",)}, r"adapter\.target_modules = \('no_such',\) does not fit"),
    ],
)
@pytest.mark.filterwarnings("error:Invalid")
def test_settings_that_oft_cannot_follow_are_refused(tiny: ModelRef, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        new_adapter(tiny, FLOAT32, adapter_config("oft", **changes), "grouped")


def test_peft_still_ignores_the_dropout_of_oft(tiny: ModelRef) -> None:
    # why a dropout is refused; once this fails, it can be passed on as module_dropout
    from peft import OFTConfig, get_peft_model

    settings = OFTConfig(oft_block_size=4, target_modules="all-linear", module_dropout=0.9)
    model: Any = get_peft_model(load_model(tiny, "float32", "cpu", "sdpa"), settings).train()
    perturb(model, 0.1, 1)
    with torch.no_grad():
        assert torch.equal(hidden_states(model), hidden_states(model))


def test_four_bits_are_asked_of_the_base_model(tiny: ModelRef) -> None:
    config = ModelConfig(id="tiny", device="cpu", quantization="nf4")
    with pytest.raises(ConfigError, match=r"model\.quantization is nf4, which needs a CUDA device; use none"):
        new_adapter(tiny, config, adapter_config("lora"), "grouped")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="4-bit weights are for CUDA, and there is no such device")
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_train_beside_four_bit_weights(tiny: ModelRef, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    model: Any = new_adapter(tiny, ModelConfig(id="tiny", quantization="nf4"), adapter_config(kind), "trl").train()
    assert model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.uint8
    with torch.autocast("cuda", torch.bfloat16):
        model(IDS.cuda()).logits.float().square().mean().backward()
    grown = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in grown)


def test_the_card_says_which_kind_and_how_far_rewound(tiny: ModelRef) -> None:
    card = describe_adapter("sft", tiny, adapter_config("lora"), SFTConfig(), ["ann1"], 5)
    assert "tags: [lora, capo, sft]" in card
    assert "LoRA, low-rank adaptation (arXiv 2106.09685). Fine-tuned on the" in card
    assert "| tag |" not in card
    dora = adapter_config("dora", layout="shared", tag="first")
    shared = describe_adapter("capo", tiny, dora, CAPOConfig(loss="ipo", rewind=0.25), ["ann1", "ann2"], 5)
    assert "DoRA, weight-decomposed low-rank adaptation (arXiv 2402.09353)" in shared
    assert "preference loss `ipo` plus an SFT anchor" in shared
    assert "moved back towards the supervised adapter by 0.25 (arXiv 2109.01903)" in shared
    assert "| tag | first |" in shared
    orthogonal = describe_adapter("capo", tiny, adapter_config("oft"), CAPOConfig(), ["ann1"], 5)
    assert "OFT, orthogonal fine-tuning (arXiv 2306.07280)" in orthogonal
    assert "alpha" not in orthogonal
    assert "moved back" not in orthogonal
