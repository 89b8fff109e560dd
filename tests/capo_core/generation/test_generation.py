"""Generation against transformers' own generate and against brute force over the labels."""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tiny_model import (
    ADAPTER,
    BFLOAT16,
    FLOAT32,
    SCORES,
    TASK,
    demonstrations,
    one_thread,
    save_tiny_model,
    smollm2,
    tiny,
)

from capo_core.chat import encode_prompt, encode_response
from capo_core.errors import ModelError
from capo_core.generation.decoding import count_common, read_prefix, read_prompts
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import generate_responses
from capo_core.generation.sampling import Sampling, draw
from capo_core.merging import round_stochastically
from capo_core.models import load_model, load_policy, load_tokenizer
from capo_core.prompts import Example, build_prompt, response_opening
from capo_core.training.sft import train_sft
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig, TaskSpec
from schemas.frames import GENERATIONS
from schemas.training import ModelConfig, SFTConfig

__all__ = ["one_thread", "smollm2", "tiny"]

GREEDY = GenerationConfig(decisions=("sampled", "constrained"), temperature=0.0, max_new_tokens=24, batch_size=4)
SAMPLED = GREEDY.model_copy(update={"temperature": 1.0})


@pytest.fixture(scope="module")
def policy(tiny: ModelRef) -> Any:
    """The tiny model, declaring as a further end the token that its greedy responses reach at most various steps."""
    model: Any = load_policy(tiny, FLOAT32, None)
    tokenizer = load_tokenizer(tiny)
    written = [generate_alone(model, encode_prompt(request.prompt, tokenizer), GREEDY, {1}) for request in requests()]
    steps = {token: {w.index(token) for w in written if token in w} for token in range(2, 258)}
    model.generation_config.eos_token_id = [1, max(steps, key=lambda token: len(steps[token]))]
    return model


def requests(n: int = 7, task: TaskSpec = TASK, history: tuple[Example, ...] = ()) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"item{i}", "ann1", build_prompt(task, "cat" * (1 + i % 3), f"dog {i}", history=history))
        for i in range(n)
    ]


def run(
    policy: Any, tiny: ModelRef, asked: list[GenerationRequest], config: GenerationConfig, **changes: Any
) -> pl.DataFrame:
    settings: dict[str, Any] = {"task": TASK, "seed": 3, "method": "sft"} | changes
    task = settings.pop("task")
    return generate_responses(policy, load_tokenizer(tiny), asked, task, config, **settings)


def generate_alone(model: Any, ids: list[int], config: GenerationConfig, stop: set[int]) -> list[int]:
    """Return transformers' greedy continuation of one prompt, up to the first token of `stop`."""
    out = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
        max_new_tokens=config.max_new_tokens, eos_token_id=sorted(stop), pad_token_id=1,
    )[0, len(ids) :].tolist()  # fmt: skip
    return list(itertools.takewhile(lambda token: token not in stop, out))


def test_greedy_responses_equal_transformers_generate(policy: Any, tiny: ModelRef) -> None:
    tokenizer: Any = load_tokenizer(tiny)
    asked = requests()
    found = run(policy, tiny, asked, GREEDY)
    lengths, stop = set(), set(policy.generation_config.eos_token_id)
    for request, (sampled, constrained) in zip(
        asked, zip(*[iter(found.iter_rows(named=True))] * 2, strict=True), strict=True
    ):
        prompt = encode_prompt(request.prompt, tokenizer)
        expected = generate_alone(policy, prompt, GREEDY, stop)
        assert sampled["text"] == tokenizer.decode(expected, skip_special_tokens=True)
        assert sampled["n_tokens"] == len(expected)
        assert sampled["truncated"] == (len(expected) == GREEDY.max_new_tokens)
        assert sampled["n_prompt_tokens"] == len(prompt)
        opening = encode_response(response_opening(constrained["label"]), tokenizer)
        after = generate_alone(policy, prompt + opening, GREEDY, stop)
        assert constrained["text"] == tokenizer.decode(opening + after, skip_special_tokens=True)
        assert constrained["n_tokens"] == len(after)
        lengths |= {len(expected), len(after)}
    # The comparison means something only if some responses ended by themselves, at different lengths.
    assert len(lengths) > 2
    assert min(lengths) < GREEDY.max_new_tokens


@pytest.mark.parametrize("task", [TASK, SCORES])
def test_label_scores_equal_brute_force_over_all_labels(policy: Any, tiny: ModelRef, task: TaskSpec) -> None:
    tokenizer: Any = load_tokenizer(tiny)
    asked = requests(3, task)
    found = run(policy, tiny, asked, GREEDY, task=task).filter(decision="constrained")
    for request, row in zip(asked, found.iter_rows(named=True), strict=True):
        prompt = encode_prompt(request.prompt, tokenizer)
        scores = []
        for label in task.labels.names:
            # All tokens of "Label: 10⏎Explanation:" count, so "1" and "10" are scored to the same point.
            opening = tokenizer(f"Label: {label}\nExplanation:")["input_ids"]
            with torch.no_grad():
                logits = policy(torch.tensor([prompt + opening])).logits[0, len(prompt) - 1 : -1].double()
            scores.append(float(torch.log_softmax(logits, -1).gather(1, torch.tensor(opening)[:, None]).sum()))
        expected = torch.log_softmax(torch.tensor(scores), dim=0).tolist()
        assert row["label_logprobs"] == pytest.approx(expected, abs=1e-4)
        assert sum(map(math.exp, row["label_logprobs"])) == pytest.approx(1.0)
        assert row["label"] == task.labels.names[expected.index(max(expected))]


def test_frame_has_two_rows_per_request_in_their_order(policy: Any, tiny: ModelRef) -> None:
    asked = requests(5)[::-1]
    seen: list[tuple[int, int]] = []
    found = run(policy, tiny, asked, SAMPLED, progress=lambda done, total: seen.append((done, total)))
    assert dict(found.schema) == GENERATIONS
    assert found["item_id"].to_list() == [r.item_id for r in asked for _ in range(2)]
    assert found["decision"].to_list() == ["sampled", "constrained"] * 5
    assert found.filter(decision="sampled")["label_logprobs"].null_count() == 5
    assert set(found["method"]) == {"sft"}
    assert set(found["seed"]) == {3}
    assert seen[-1] == (5, 5)


def test_responses_do_not_depend_on_what_else_is_asked(policy: Any, tiny: ModelRef) -> None:
    asked = requests()
    together = run(policy, tiny, asked, SAMPLED)
    turned = run(policy, tiny, asked[::-1], GenerationConfig(**(SAMPLED.model_dump() | {"batch_size": 14})))
    assert (
        turned.sort("item_id", "decision")["text"].to_list() == together.sort("item_id", "decision")["text"].to_list()
    )
    alone = pl.concat([run(policy, tiny, [request], SAMPLED) for request in asked])
    assert alone["text"].to_list() == together["text"].to_list()
    assert together["text"].n_unique() == 14


def test_seed_method_and_person_decide_the_draw(policy: Any, tiny: ModelRef) -> None:
    asked = requests(3)
    first = run(policy, tiny, asked, SAMPLED)["text"].to_list()
    assert run(policy, tiny, asked, SAMPLED)["text"].to_list() == first
    assert run(policy, tiny, asked, SAMPLED, seed=4)["text"].to_list() != first
    assert run(policy, tiny, asked, SAMPLED, method="capo")["text"].to_list() != first
    others = [GenerationRequest(r.item_id, "ann2", r.prompt) for r in asked]
    assert run(policy, tiny, others, SAMPLED)["text"].to_list() != first


def test_draw_inverts_the_distribution_function() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(6, 3)
    uniforms = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 0.9999999])
    every = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1, stop=frozenset())
    assert draw(logits, uniforms, every).tolist() == [0, 0, 1, 1, 2, 2]
    # top_p 0.7: 0.5 does not reach it, 0.5 + 0.3 does; of 0.8 in all, token 0 has 0.625
    nucleus = Sampling(temperature=1.0, top_p=0.7, max_new_tokens=1, stop=frozenset())
    assert draw(logits, torch.tensor([0.0, 0.62, 0.63, 0.79, 0.81, 0.99]), nucleus).tolist() == [0, 0, 1, 1, 1, 1]
    # temperature 0.5 squares the weights: 0.25, 0.09, 0.04 of 0.38; token 0 has 0.658, with token 1 0.895
    sharp = Sampling(temperature=0.5, top_p=1.0, max_new_tokens=1, stop=frozenset())
    assert draw(logits, torch.tensor([0.0, 0.65, 0.66, 0.89, 0.90, 0.99]), sharp).tolist() == [0, 0, 1, 1, 2, 2]
    greedy = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=1, stop=frozenset())
    assert draw(logits, uniforms, greedy).tolist() == [0] * 6


def test_draws_follow_the_models_distribution() -> None:
    # 20,000 draws of p = 0.5, 0.3, 0.2: standard errors below 0.0036, so 0.015 is more than four of them
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(20_000, 3)
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    drawn = draw(logits, uniforms, Sampling(1.0, 1.0, 1, frozenset()))
    shares = (torch.bincount(drawn, minlength=3) / 20_000).tolist()
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_a_shared_opening_changes_nothing(policy: Any, tiny: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(tiny)
    tokens = [encode_prompt(request.prompt, tokenizer) for request in requests(3)]
    openings = [encode_response(response_opening(label), tokenizer) for label in TASK.labels.names]
    n_shared = count_common(tokens)
    assert n_shared > 50
    monkeypatch.setattr("capo_core.generation.decoding._PREFIX_STEP", 16)  # in four steps or more
    with torch.inference_mode():
        prefix = read_prefix(policy, tokens[0][:n_shared])
        shared = read_prompts(policy, [t[n_shared:] for t in tokens], openings, prefix)
        whole = read_prompts(policy, tokens, openings, None)
    assert torch.allclose(shared.opening_logps, whole.opening_logps, atol=1e-4)


def test_count_common_leaves_each_sequence_a_token() -> None:
    assert count_common([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == 2
    assert count_common([[1, 2], [1, 2, 3]]) == 1
    assert count_common([[1, 2, 3]]) == 2


def test_history_that_does_not_fit_loses_its_oldest_turns(
    policy: Any, tiny: ModelRef, caplog: pytest.LogCaptureFixture
) -> None:
    history = tuple(Example(f"a{i}", "b", "yes", "w" * 40) for i in range(12))
    asked = requests(2, history=history)
    tokenizer = load_tokenizer(tiny)
    limit = 1024 - GREEDY.max_new_tokens - len(encode_response(response_opening("maybe"), tokenizer))
    assert len(encode_prompt(asked[0].prompt, tokenizer)) > limit
    with caplog.at_level(logging.WARNING, logger="capo_core"):
        found = run(policy, tiny, asked, GREEDY, method="history")
    n_tokens = found["n_prompt_tokens"].to_list()
    # an example takes 95 tokens, the whole prompt some 1,340: four examples (eight turns) have to go
    kept = [GenerationRequest(r.item_id, r.annotator_id, [r.prompt[0], *r.prompt[9:]]) for r in asked]
    assert n_tokens == [len(encode_prompt(r.prompt, tokenizer)) for r in kept for _ in range(2)]
    assert all(limit - 120 < n <= limit for n in n_tokens)
    assert "history: 2 of 2 prompts exceeded" in caplog.text
    assert "16 of their oldest turns were left out" in caplog.text
    # what is left is exactly the shorter history
    assert run(policy, tiny, kept, GREEDY, method="history")["text"].to_list() == found["text"].to_list()


def test_an_item_longer_than_the_context_is_an_error(policy: Any, tiny: ModelRef) -> None:
    long = GenerationRequest("item9", None, build_prompt(TASK, "x" * 1100, "b"))
    with pytest.raises(ModelError, match="item item9: its prompt alone has 1"):
        run(policy, tiny, [long], GREEDY)


def test_no_requests_give_an_empty_frame(policy: Any, tiny: ModelRef) -> None:
    assert run(policy, tiny, [], GREEDY).height == 0


def test_unsupported_layers_are_refused(tiny: ModelRef, tmp_path: Path) -> None:
    model: Any = load_policy(save_tiny_model(tmp_path), FLOAT32, None)
    model.config.sliding_window = 8
    with pytest.raises(ModelError, match="generation is not supported, because its attention has a sliding window"):
        run(model, tiny, requests(1), GREEDY)


def test_merged_policy_equals_the_adapter_beside_the_model(tiny: ModelRef, tmp_path: Path) -> None:
    from peft import PeftModel

    config = SFTConfig(n_epochs=2, batch_size=2, learning_rate=1e-2)
    train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=tmp_path)
    merged: Any = load_policy(tiny, FLOAT32, tmp_path)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    base = load_model(tiny, "float32", "cpu", "sdpa")
    ids = torch.tensor([encode_prompt(requests(1)[0].prompt, load_tokenizer(tiny))])
    with torch.no_grad():
        plain = base(ids).logits
        beside = PeftModel.from_pretrained(base, str(tmp_path)).eval()(ids).logits
        assert torch.allclose(merged(ids).logits, beside, atol=1e-4)
        assert not torch.allclose(beside, plain, atol=1e-2)


def test_stochastic_rounding_keeps_on_average_what_rounding_to_nearest_loses() -> None:
    # bfloat16 has steps of 2⁻⁷ above 1; 1 + 0.1 · 2⁻⁷ rounds to 1, so an update of that size would vanish.
    exact = torch.full((200_000,), 1 + 0.1 * 2**-7)
    assert set(exact.bfloat16().tolist()) == {1.0}
    rounded = round_stochastically(exact, torch.Generator().manual_seed(0))
    assert rounded.dtype == torch.bfloat16
    assert set(rounded.tolist()) == {1.0, 1 + 2**-7}
    # one in ten goes up; the standard error of the share is √(0.09 / 200,000) = 0.0007
    assert float((rounded > 1).float().mean()) == pytest.approx(0.1, abs=0.003)
    negative = round_stochastically(-exact, torch.Generator().manual_seed(0))
    assert torch.equal(negative, -rounded)
    representable = torch.tensor([0.0, -1.5, 3.0, 2.0**-100])
    assert torch.equal(round_stochastically(representable, torch.Generator()).float(), representable)


def test_bfloat16_policy_is_the_same_every_time_and_close_to_float32(tiny: ModelRef, tmp_path: Path) -> None:
    config = SFTConfig(n_epochs=2, batch_size=2, learning_rate=1e-2)
    train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=tmp_path)
    first, second, exact = (load_policy(tiny, c, tmp_path) for c in (BFLOAT16, BFLOAT16, FLOAT32))
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), exact.parameters(), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b), name
        # a step of bfloat16 is at most 2⁻⁷ of a number; base and sum are each rounded
        assert torch.allclose(a.float(), c, rtol=2**-6, atol=1e-3), name


@pytest.mark.slow
def test_bundled_model_answers_in_form_when_shown_examples(smollm2: ModelRef) -> None:
    policy = load_policy(smollm2, ModelConfig(id=smollm2.id, dtype="bfloat16", device="cpu"), None)
    tokenizer = load_tokenizer(smollm2)
    history = tuple(
        Example(
            f"The {a} sleeps.",
            f"The {a} is {b}.",
            label,
            f"Sleeping means it is {b if label == 'yes' else 'not ' + b}.",
        )
        for a, b, label in [("cat", "awake", "no"), ("dog", "asleep", "yes"), ("owl", "resting", "yes")]
    )
    asked = [GenerationRequest("i1", None, build_prompt(TASK, "The man sleeps.", "The man is awake.", history=history))]
    config = GenerationConfig(decisions=("sampled", "constrained"), temperature=0.0, max_new_tokens=32)
    found = generate_responses(policy, tokenizer, asked, TASK, config, seed=1, method="history")
    assert found["parse_status"].to_list() == ["ok", "ok"]
    assert not found["truncated"].any()
    scores = found["label_logprobs"][1].to_list()
    # nobody was shown "maybe"
    assert scores[2] < min(scores[:2])
