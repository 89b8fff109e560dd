"""Which engine generates: capo's own on a model in this process, or vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import generate_responses
from capo_core.generation.vllm.responses import generate_with_vllm
from capo_core.generation.vllm.server import serve_vllm
from capo_core.models import load_policy, load_tokenizer
from capo_core.progress import Progress, silent
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig, TaskSpec
from schemas.training import ModelConfig


@dataclass(frozen=True)
class Generated:
    """Responses and what generated them.

    Attributes:
        responses: GENERATIONS frame.
        engine: built_in, or vllm and its version.
    """

    responses: pl.DataFrame
    engine: str


def generate(
    base: ModelRef,
    model: ModelConfig,
    adapter_dir: Path | None,
    requests: Sequence[GenerationRequest],
    task: TaskSpec,
    config: GenerationConfig,
    *,
    seed: int,
    method: str,
    progress: Progress = silent,
) -> Generated:
    """Return one response per request and configured decision, in the requests' order, by the configured engine.

    Args:
        base: the model.
        model: its dtype and device; vLLM computes on whatever it was built for.
        adapter_dir: folder of the adapter that answers, or None for the base model.
        requests: what to ask, of one person or several.
        task: labels and how responses are parsed.
        config: engine, decisions, temperature, limits.
        seed: of the random numbers.
        method: which method answers.
        progress: called with requests done and requests in all.

    Raises:
        ModelError: if the model or its adapter cannot be loaded, or the engine cannot use it; see
            `responses.generate_responses` and `vllm.responses.generate_with_vllm`.
    """
    tokenizer = load_tokenizer(base)
    if config.engine == "vllm":
        with serve_vllm(base, model.dtype, adapter_dir, n_at_once=config.batch_size) as server:
            responses = generate_with_vllm(
                server, base, tokenizer, requests, task, config, seed=seed, method=method, progress=progress
            )
            return Generated(responses, f"vllm {server.version}")
    policy = load_policy(base, model, adapter_dir)
    responses = generate_responses(
        policy, tokenizer, requests, task, config, seed=seed, method=method, progress=progress
    )
    return Generated(responses, "built_in")
