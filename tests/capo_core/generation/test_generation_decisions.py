"""Which decisions a method is asked for, and that asking for one leaves the others alone."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest
import torch
from tiny_model import FLOAT32, TASK, one_thread, tiny

from capo_core.chat import encode_prompt
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import generate_responses
from capo_core.models import load_policy, load_tokenizer
from capo_core.prompts import build_prompt
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig
from schemas.section import Decision

__all__ = ["one_thread", "tiny"]

EVERY: tuple[Decision, ...] = ("sampled", "greedy", "constrained")
N_NEW = 24


@pytest.fixture(scope="module")
def policy(tiny: ModelRef) -> Any:
    """The tiny model, declaring as a further end the token that its greedy responses reach at most various steps."""
    model: Any = load_policy(tiny, FLOAT32, None)
    written = [most_probable_tokens(model, ids, {1}) for ids in encoded(tiny)]
    steps = {token: {w.index(token) for w in written if token in w} for token in range(2, 258)}
    model.generation_config.eos_token_id = [1, max(steps, key=lambda token: len(steps[token]))]
    return model


def requests() -> list[GenerationRequest]:
    return [
        GenerationRequest(f"item{i}", "ann1", build_prompt(TASK, "cat" * (1 + i % 3), f"dog {i}")) for i in range(7)
    ]


def encoded(tiny: ModelRef) -> list[list[int]]:
    return [encode_prompt(request.prompt, load_tokenizer(tiny)) for request in requests()]


def most_probable_tokens(model: Any, ids: list[int], stop: set[int]) -> list[int]:
    """Return the argmax of the plain forward pass again and again: no cache, no batch, no generate."""
    found: list[int] = []
    with torch.no_grad():
        while len(found) < N_NEW:
            token = int(model(torch.tensor([ids + found])).logits[0, -1].argmax())
            if token in stop:
                break
            found.append(token)
    return found


def run(policy: Any, tiny: ModelRef, decisions: tuple[Decision, ...], **changes: Any) -> pl.DataFrame:
    settings = {"temperature": 1.0, "seed": 3} | changes
    seed = settings.pop("seed")
    config = GenerationConfig(decisions=decisions, max_new_tokens=N_NEW, batch_size=6, **settings)
    return generate_responses(policy, load_tokenizer(tiny), requests(), TASK, config, seed=seed, method="sft")


@pytest.mark.parametrize("temperature", [0.0, 0.7, 5.0])
def test_greedy_takes_the_most_probable_token_whatever_the_temperature(
    policy: Any, tiny: ModelRef, temperature: float
) -> None:
    tokenizer: Any = load_tokenizer(tiny)
    found = run(policy, tiny, ("sampled", "greedy"), temperature=temperature).filter(decision="greedy")
    stop = set(policy.generation_config.eos_token_id)
    lengths = set()
    for ids, row in zip(encoded(tiny), found.iter_rows(named=True), strict=True):
        expected = most_probable_tokens(policy, ids, stop)
        assert row["text"] == tokenizer.decode(expected, skip_special_tokens=True)
        assert row["n_tokens"] == len(expected)
        assert row["truncated"] == (len(expected) == N_NEW)
        lengths.add(len(expected))
    # Rows that end early are dropped while others go on; only with several lengths is that seen.
    assert len(lengths) > 2


def test_greedy_draws_nothing(policy: Any, tiny: ModelRef) -> None:
    first = run(policy, tiny, ("greedy",))
    assert run(policy, tiny, ("greedy",), seed=99)["text"].to_list() == first["text"].to_list()
    assert run(policy, tiny, ("greedy",), temperature=0.2, top_p=0.3)["text"].to_list() == first["text"].to_list()
    # the same words as a draw at temperature 0, and others than a draw at temperature 1
    assert run(policy, tiny, ("sampled",), temperature=0.0)["text"].to_list() == first["text"].to_list()
    assert run(policy, tiny, ("sampled",))["text"].to_list() != first["text"].to_list()


def test_sampled_and_constrained_do_not_change_when_greedy_is_asked_beside_them(policy: Any, tiny: ModelRef) -> None:
    together = run(policy, tiny, EVERY)
    without = run(policy, tiny, ("sampled", "constrained"))
    columns = ["item_id", "decision", "text", "label", "parse_status", "n_tokens", "truncated"]
    assert together.filter(pl.col("decision") != "greedy").select(columns).equals(without.select(columns))
    for decision in EVERY:
        alone = run(policy, tiny, (decision,))
        assert together.filter(decision=decision).select(columns).equals(alone.select(columns))
    scores = [f.filter(decision="constrained")["label_logprobs"].to_list() for f in (together, without)]
    assert list(itertools.chain(*scores[0])) == pytest.approx(list(itertools.chain(*scores[1])), abs=1e-5)


@pytest.mark.parametrize("decisions", [*itertools.permutations(EVERY, 3), ("constrained",), ("greedy", "sampled")])
def test_decisions_choose_what_is_produced_and_in_which_order(
    policy: Any, tiny: ModelRef, decisions: tuple[Decision, ...]
) -> None:
    found = run(policy, tiny, decisions)
    assert found["decision"].to_list() == [*decisions] * 7
    assert found["item_id"].to_list() == [f"item{i}" for i in range(7) for _ in decisions]
    scored = found["label_logprobs"].is_not_null().to_list()
    assert scored == [decision == "constrained" for decision in found["decision"]]
