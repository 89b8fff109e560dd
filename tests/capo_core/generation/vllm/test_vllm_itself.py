"""vLLM itself, where CAPO_VLLM names its command: what the stand-in of the other tests claims, on a real model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adapter_material import adapter_config, trained_adapter, write_adapter
from tiny_model import TASK, smollm2

from capo_core.generation.engines import generate
from capo_core.generation.requests import GenerationRequest
from capo_core.prompts import build_prompt
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig
from schemas.training import ModelConfig

__all__ = ["smollm2"]

pytestmark = pytest.mark.skipif(not os.environ.get("CAPO_VLLM"), reason="CAPO_VLLM names no vLLM")
FLOAT32 = ModelConfig(id="bundled:smollm2-135m-instruct", dtype="float32", device="cpu")
PAIRS = (("A man sleeps.", "He rests."), ("Two dogs run.", "Animals move."), ("It rains.", "The sun shines."))


def test_vllm_says_what_the_own_engine_says(smollm2: ModelRef, tmp_path: Path) -> None:
    settings = adapter_config("lora", r=16, alpha=32.0)
    trained = trained_adapter(smollm2, settings, FLOAT32, scale=0.01)
    folder = write_adapter(trained, settings, smollm2, tmp_path / "adapter")
    requests = [GenerationRequest(f"item{i}", "ann1", build_prompt(TASK, *pair)) for i, pair in enumerate(PAIRS)]
    found = {}
    for engine in ("built_in", "vllm"):
        config = GenerationConfig(max_new_tokens=16, batch_size=8, engine=engine)
        found[engine] = generate(smollm2, FLOAT32, folder, requests, TASK, config, seed=3, method="sft").responses
    own, through = (found[engine] for engine in ("built_in", "vllm"))
    key = ["item_id", "decision", "method", "seed", "n_prompt_tokens"]
    assert through.select(key).equals(own.select(key))
    assert through.filter(decision="greedy")["text"].to_list() == own.filter(decision="greedy")["text"].to_list()
    scores = [one.filter(decision="constrained")["label_logprobs"].to_list() for one in (own, through)]
    for mine, theirs in zip(*scores, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-3)
