"""How requests are put together changes no response: people at once, rows that join and leave, passes, windows."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
from tiny_model import FLOAT32, TASK, one_thread, tiny

from capo_core.chat import encode_prompt, encode_response
from capo_core.generation.decoding import count_common, read_prefix, read_prompts
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import generate_responses
from capo_core.models import load_policy, load_tokenizer
from capo_core.prompts import AnnotatorTag, build_prompt, response_opening
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig

__all__ = ["one_thread", "tiny"]

N_NEW = 20
CONFIG = GenerationConfig(temperature=1.0, max_new_tokens=N_NEW, batch_size=64)
PEOPLE = ("ann1", "ann2", "somebody else")


@pytest.fixture(scope="module")
def policy(tiny: ModelRef) -> Any:
    """The tiny model with four tokens that end a response, so that lengths differ."""
    model: Any = load_policy(tiny, FLOAT32, None)
    model.generation_config.eos_token_id = [1, 40, 90, 200]
    return model


def requests(*people: str, n: int = 5) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            f"item{i}", name, build_prompt(TASK, "cat" * (1 + i % 3), f"dog {i}", tag=AnnotatorTag(name, "last"))
        )
        for name in people
        for i in range(n)
    ]


def run(policy: Any, tiny: ModelRef, asked: list[GenerationRequest], **changes: Any) -> pl.DataFrame:
    stop = changes.pop("stop", None)
    config = CONFIG.model_copy(update=changes)
    return generate_responses(policy, load_tokenizer(tiny), asked, TASK, config, seed=3, method="sft", stop=stop)


def test_several_people_at_once_are_answered_as_each_alone(policy: Any, tiny: ModelRef) -> None:
    together = run(policy, tiny, requests(*PEOPLE))
    apart = pl.concat([run(policy, tiny, requests(name)) for name in PEOPLE])
    columns = ["annotator_id", "item_id", "decision", "text", "label", "n_prompt_tokens", "n_tokens", "truncated"]
    assert together.select(columns).equals(apart.select(columns))
    assert together["annotator_id"].to_list() == [name for name in PEOPLE for _ in range(15)]
    assert together["n_tokens"].n_unique() > 5


def test_text_of_an_item_is_read_once_for_all_people(policy: Any, tiny: ModelRef) -> None:
    tokenizer = load_tokenizer(tiny)
    prompts = [encode_prompt(request.prompt, tokenizer) for request in requests(*PEOPLE, n=1)]
    n_shared = count_common(prompts)
    tails = [prompt[n_shared:] for prompt in prompts]
    openings = [encode_response(response_opening(label), tokenizer) for label in TASK.labels.names]
    with torch.inference_mode():
        whole = read_prompts(policy, prompts, openings, None)
        rest = read_prompts(policy, tails, openings, read_prefix(policy, prompts[0][:n_shared]))
        alone = [read_prompts(policy, [prompt], openings, None) for prompt in prompts]
        bare = read_prompts(policy, prompts, [], None)
    assert n_shared > 100
    # "ann1" and "ann2" have "ann" in common, which is three tokens more; the tails part at their very first tokens.
    n_own = sum(map(len, tails)) - 3
    # Per prompt "Label: " once (7), then "yes", "no" and "maybe", each before the same 13 tokens "\nExplanation:".
    n_openings = 7 + (3 + 13) + (2 + 13) + (5 + 13)
    assert len(bare.states) == n_shared + n_own
    assert len(whole.states) == n_shared + n_own + 3 * n_openings
    assert len(rest.states) == n_own + 3 * n_openings
    expected = torch.cat([one.opening_logps for one in alone])
    assert torch.allclose(whole.opening_logps, expected, atol=1e-4)
    assert torch.allclose(rest.opening_logps, expected, atol=1e-4)
    assert bare.opening_logps.shape == (3, 0)
    for i, one in enumerate(alone):
        for opening in (None, 0, 1, 2):
            found = whole.states[whole.before(i, opening)[-1]]
            assert torch.allclose(found, one.states[one.before(0, opening)[-1]], atol=1e-4)
        assert torch.allclose(bare.states[bare.before(i, None)[-1]], one.states[one.before(0, None)[-1]], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("row_decoder._ROOM", 1),  # the window is copied with every token
        ("responses.MAX_CACHED_TOKENS", 200),  # one request at a time
        ("responses.MAX_CACHED_TOKENS", 700),  # a few
        ("responses._TOKENS_PER_PASS", 1),  # each prompt in a pass of its own
        ("row_decoder._MAX_ENDED", 0.01),  # rows that have ended leave at once
        ("row_decoder._MAX_ENDED", 1.0),  # or never
    ],
)
def test_limits_change_no_response(
    policy: Any, tiny: ModelRef, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    expected = run(policy, tiny, requests(*PEOPLE))["text"].to_list()
    monkeypatch.setattr(f"capo_core.generation.{name}", value)
    assert run(policy, tiny, requests(*PEOPLE))["text"].to_list() == expected


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_rows_that_join_later_are_answered_alike(policy: Any, tiny: ModelRef, batch_size: int) -> None:
    expected = run(policy, tiny, requests(*PEOPLE))["text"].to_list()
    assert run(policy, tiny, requests(*PEOPLE), batch_size=batch_size)["text"].to_list() == expected


def test_without_a_token_that_ends_it_every_response_has_full_length(policy: Any, tiny: ModelRef) -> None:
    found = run(policy, tiny, requests("ann1"), stop=frozenset())
    assert found["n_tokens"].to_list() == [N_NEW] * 15
    assert found["truncated"].all()
    # what was drawn before the first such token stays
    ended = run(policy, tiny, requests("ann1"))
    assert min(ended["n_tokens"].to_list()) < N_NEW
    assert all(full.startswith(short) for full, short in zip(found["text"], ended["text"], strict=True))


def test_progress_counts_requests_with_all_their_decisions(policy: Any, tiny: ModelRef) -> None:
    seen: list[tuple[int, int]] = []
    asked = requests(*PEOPLE)
    config = CONFIG.model_copy(update={"batch_size": 9})
    generate_responses(
        policy, load_tokenizer(tiny), asked, TASK, config, seed=3, method="sft",
        progress=lambda n_done, n_total: seen.append((n_done, n_total)),
    )  # fmt: skip
    assert seen[-1] == (15, 15)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 3
