"""Which architectures the layout of prefix trees holds for."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_model import tiny_config
from transformers import Gemma2Config, GPT2Config, MambaConfig, MistralConfig, Qwen2Config, Qwen3Config, Qwen3NextConfig

from capo_core.layout.obstacle import layout_obstacle


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MistralConfig(sliding_window=64), "sliding window of 64"),
        (Gemma2Config(), "sliding_attention"),
        (Qwen3NextConfig(), "linear_attention"),
        (MambaConfig(), "state-space"),
        (GPT2Config(), "not rotary"),
    ],
)
def test_models_the_layout_does_not_hold_for_are_named(config: Any, reason: str) -> None:
    assert reason in (layout_obstacle(config) or "")


@pytest.mark.parametrize("config", [tiny_config(), Qwen2Config(), Qwen3Config(), MistralConfig(sliding_window=None)])
def test_models_with_full_rotary_attention_are_accepted(config: Any) -> None:
    assert layout_obstacle(config) is None
