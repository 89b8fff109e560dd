"""What an adapter leaves of the base model: figures against plain forward passes and worked arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from evaluation_material import corpus_frame, corpus_row
from tiny_model import BFLOAT16, FLOAT32, SCORES, TASK, one_thread, tiny

from capo_core.chat import encode_prompt, encode_response
from capo_core.errors import CorpusError, ModelError
from capo_core.evaluation.retention import (
    ModelProbe,
    neutral_nll,
    probe_model,
    read_neutral_texts,
    retention_table,
    zero_shot_decisions,
    zero_shot_requests,
)
from capo_core.generation.requests import build_requests
from capo_core.generation.responses import generate_responses
from capo_core.models import load_policy, load_tokenizer
from capo_core.prompts import build_prompt, response_opening
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig, TaskSpec
from schemas.frames import RETENTION

__all__ = ["one_thread", "tiny"]

TEXTS = ["A kettle sings.", "Bees dance, and others follow.", "Salt."]


@pytest.fixture(scope="module")
def policy(tiny: ModelRef) -> Any:
    return load_policy(tiny, FLOAT32, None)


def corpus(task: TaskSpec = TASK) -> pl.DataFrame:
    """Return five test items (and one training item) that three people annotated."""
    rows = []
    for n in range(6):
        for shift, who in enumerate(("ada", "ben", "chi")):
            label = task.labels.names[(n * (1 + shift)) % len(task.labels.names)]
            rows.append(corpus_row(f"i{n}", who, label, "because", "train" if n == 0 else "test", text_a="cat" * n))
    return corpus_frame(rows)


def probe(nll: list[float], n_tokens: list[int], **decisions: str) -> ModelProbe:
    return ModelProbe(tuple(nll), tuple(n_tokens), decisions)


def compare(base: ModelProbe, tuned: ModelProbe, frame: pl.DataFrame, **changes: Any) -> dict[str, dict[str, Any]]:
    settings: dict[str, Any] = {"method": "capo", "target": "ada", "seed": 5, "n_bootstrap": 200} | changes
    table = retention_table(base, tuned, frame, **settings)
    assert dict(table.schema) == RETENTION
    return {row["metric"]: row for row in table.iter_rows(named=True)}


def decide(policy: Any, tokenizer: Any, frame: pl.DataFrame, task: TaskSpec = TASK, **more: Any) -> dict[str, str]:
    """Return the decisions on the test items."""
    asked = zero_shot_requests(frame, "test", task)
    return zero_shot_decisions(policy, tokenizer, asked, task.labels.names, **more)


def test_the_neutral_set_is_sixty_short_distinct_english_passages() -> None:
    texts = read_neutral_texts()
    assert len(texts) == 60
    assert len(set(texts)) == 60
    assert all(30 <= len(text.split()) <= 70 for text in texts)
    assert not any("\n" in text or text.startswith("#") for text in texts)


def test_nll_equals_a_plain_forward_pass_text_by_text(policy: Any, tiny: ModelRef) -> None:
    tokenizer: Any = load_tokenizer(tiny)
    nll, n_tokens = neutral_nll(policy, tokenizer, TEXTS, batch_size=2)
    for text, found, n in zip(TEXTS, nll, n_tokens, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            # transformers' own causal loss: the mean over all tokens but the first
            mean = float(policy(ids, labels=ids).loss)
        assert n == ids.shape[1] - 1 == len(text.encode()) - 1
        assert found == pytest.approx(mean * n, rel=1e-5)


def test_nll_does_not_depend_on_what_a_text_is_batched_with(policy: Any, tiny: ModelRef) -> None:
    tokenizer = load_tokenizer(tiny)
    together = neutral_nll(policy, tokenizer, TEXTS, batch_size=3)[0]
    assert neutral_nll(policy, tokenizer, TEXTS[::-1], batch_size=1)[0][::-1] == pytest.approx(together, rel=1e-5)


def test_bfloat16_is_close_to_float32(policy: Any, tiny: ModelRef) -> None:
    tokenizer = load_tokenizer(tiny)
    exact = neutral_nll(policy, tokenizer, TEXTS)[0]
    # a bfloat16 step is 2⁻⁸ of a number
    assert neutral_nll(load_policy(tiny, BFLOAT16, None), tokenizer, TEXTS)[0] == pytest.approx(exact, rel=2**-6)


def test_a_text_without_a_predicted_token_is_an_error(policy: Any, tiny: ModelRef) -> None:
    with pytest.raises(CorpusError, match="the neutral text 'x' has 1 tokens"):
        neutral_nll(policy, load_tokenizer(tiny), ["ab", "x"])


@pytest.mark.parametrize("task", [TASK, SCORES])
def test_zero_shot_decisions_equal_brute_force_over_all_labels(policy: Any, tiny: ModelRef, task: TaskSpec) -> None:
    tokenizer: Any = load_tokenizer(tiny)
    found = decide(policy, tokenizer, corpus(task), task, batch_size=2)
    assert list(found) == ["i1", "i2", "i3", "i4", "i5"]
    for item, decided in found.items():
        prompt = encode_prompt(build_prompt(task, "cat" * int(item[1]), "second text"), tokenizer)
        scores = {}
        for label in task.labels.names:
            opening = encode_response(response_opening(label), tokenizer)
            with torch.no_grad():
                logits = policy(torch.tensor([prompt + opening])).logits[0, len(prompt) - 1 : -1].double()
            scores[label] = float(torch.log_softmax(logits, -1).gather(1, torch.tensor(opening)[:, None]).sum())
        assert decided == max(scores, key=lambda label: scores[label])


def test_zero_shot_decisions_are_those_of_the_zero_shot_method(policy: Any, tiny: ModelRef) -> None:
    tokenizer = load_tokenizer(tiny)
    config = GenerationConfig(decisions=("constrained",), max_new_tokens=8)
    asked = build_requests(corpus(), "zero_shot", [None], TASK, config, tag=None, seed=1)
    generated = generate_responses(policy, tokenizer, asked, TASK, config, seed=1, method="zero_shot")
    chosen = [TASK.labels.names[int(np.argmax(row))] for row in generated["label_logprobs"].to_list()]
    decided = decide(policy, tokenizer, corpus())
    assert decided == dict(zip(generated["item_id"], chosen, strict=True))


def test_an_item_longer_than_the_context_is_an_error(policy: Any, tiny: ModelRef) -> None:
    long = corpus_frame([corpus_row("i9", "ada", "yes", "because", "test", text_a="x" * 1100)])
    with pytest.raises(ModelError, match="item i9: its prompt has 1"):
        decide(policy, load_tokenizer(tiny), long)


def test_a_probe_survives_json_and_counts_every_text_and_item(policy: Any, tiny: ModelRef) -> None:
    seen: list[tuple[int, int]] = []
    found = probe_model(
        policy, load_tokenizer(tiny), corpus(), "test", TASK, batch_size=4, progress=lambda *n: seen.append(n)
    )
    assert ModelProbe.from_json(found.to_json()) == found
    assert len(found.nll) == len(found.n_tokens) == 60
    assert set(found.decisions) == {"i1", "i2", "i3", "i4", "i5"}
    assert seen == [(60, 65), (64, 65), (65, 65)]
    # a random model over 258 tokens is about as good as guessing among them: ln 258 = 5.55 nats a token
    assert sum(found.nll) / sum(found.n_tokens) == pytest.approx(math.log(258), abs=1.0)


def test_layers_that_the_layout_would_get_wrong_are_refused(tiny: ModelRef) -> None:
    model: Any = load_policy(tiny, FLOAT32, None)
    model.config.sliding_window = 8
    with pytest.raises(ModelError, match="retention is not measured, because its attention has a sliding window"):
        probe_model(model, load_tokenizer(tiny), corpus(), "test", TASK)


def test_an_unchanged_model_keeps_everything(policy: Any, tiny: ModelRef) -> None:
    same = probe_model(policy, load_tokenizer(tiny), corpus(), "test", TASK)
    found = compare(same, same, corpus())
    perplexity = found["neutral_perplexity"]
    assert (perplexity["change"], perplexity["ci_low"], perplexity["ci_high"]) == (1.0, 1.0, 1.0)
    for metric in ("zero_shot_label_agreement", "zero_shot_decision_kept"):
        assert (found[metric]["change"], found[metric]["ci_low"], found[metric]["ci_high"]) == (0.0, 0.0, 0.0)
    assert found["zero_shot_decision_kept"]["tuned"] == 1.0


def test_perplexity_weighs_texts_by_their_tokens() -> None:
    people = corpus_frame([corpus_row("a", "ada", "yes", "because", "test")])
    base = probe([2.0, 9.0], [2, 6], a="yes")
    tuned = probe([2.0, 15.0], [2, 6], a="yes")
    row = compare(base, tuned, people)["neutral_perplexity"]
    # 11 nats over 8 tokens before, 17 over 8 after; their ratio is e^(6/8)
    assert row["base"] == pytest.approx(math.exp(11 / 8))
    assert row["tuned"] == pytest.approx(math.exp(17 / 8))
    assert row["change"] == pytest.approx(math.exp(6 / 8))
    # of two texts a resample has both, twice the first (ratio e^0) or twice the second (e^(6/6))
    assert row["ci_low"] == pytest.approx(1.0)
    assert row["ci_high"] == pytest.approx(math.e)
    assert row["n"] == 2
    assert (row["method"], row["target"], row["seed"]) == ("capo", "ada", 5)


def test_agreement_is_the_share_of_the_items_annotators_who_gave_the_label() -> None:
    people = corpus_frame(
        [
            # three of four say yes; ben gave two labels, and agrees with either
            corpus_row("a", "ada", "yes", "because", "test"),
            corpus_row("a", "ben", "yes", "because", "test"),
            corpus_row("a", "ben", "no", "because", "test"),
            corpus_row("a", "chi", "yes", "because", "test"),
            corpus_row("a", "dee", "maybe", "because", "test"),
            # one annotator only
            corpus_row("b", "ada", "no", "because", "test"),
        ]
    )
    base = probe([1.0], [1], a="yes", b="yes")
    tuned = probe([1.0], [1], b="no", a="no")
    found = compare(base, tuned, people)
    agreement = found["zero_shot_label_agreement"]
    # before: 3/4 and 0; after: 1/4 (ben) and 1
    assert agreement["base"] == pytest.approx(0.375)
    assert agreement["tuned"] == pytest.approx(0.625)
    assert agreement["change"] == pytest.approx(0.25)
    # differences −.5 and +1: resamples of two items have the mean −.5, .25 or 1
    assert agreement["ci_low"] == pytest.approx(-0.5)
    assert agreement["ci_high"] == pytest.approx(1.0)
    assert agreement["n"] == 2
    kept = found["zero_shot_decision_kept"]
    assert (kept["base"], kept["tuned"], kept["change"]) == (1.0, 0.0, -1.0)


def test_kept_decisions_are_counted_item_by_item() -> None:
    people = corpus_frame([corpus_row(item, "ada", "yes", "because", "test") for item in "abcd"])
    base = probe([1.0], [1], a="yes", b="no", c="maybe", d="yes")
    tuned = probe([1.0], [1], a="yes", b="yes", c="maybe", d="yes")
    kept = compare(base, tuned, people)["zero_shot_decision_kept"]
    assert (kept["base"], kept["tuned"], kept["change"], kept["n"]) == (1.0, 0.75, -0.25, 4)
    # all shares have been the same before; a swap of two decisions would leave shares and lose both items
    swapped = probe([1.0], [1], a="no", b="yes", c="maybe", d="yes")
    assert compare(base, swapped, people)["zero_shot_decision_kept"]["tuned"] == 0.5


def test_the_interval_follows_seed_and_confidence() -> None:
    people = corpus_frame([corpus_row(f"i{n:02d}", "ada", "yes", "because", "test") for n in range(30)])
    rng = np.random.default_rng(0)
    base = ModelProbe(tuple(rng.random(30) + 2), (2,) * 30, {f"i{n:02d}": "yes" for n in range(30)})
    tuned = ModelProbe(
        tuple(rng.random(30) + 2.2), (2,) * 30, {f"i{n:02d}": "yes" if n % 3 else "no" for n in range(30)}
    )
    wide, narrow = (compare(base, tuned, people, confidence=c) for c in (0.95, 0.5))
    for metric, row in wide.items():
        assert row["ci_low"] < narrow[metric]["ci_low"] < row["change"] < narrow[metric]["ci_high"] < row["ci_high"]
    assert compare(base, tuned, people) == wide
    assert compare(base, tuned, people, seed=6) != wide
    assert compare(base, tuned, people.reverse()) == wide


@pytest.mark.parametrize(
    ("base", "tuned", "message"),
    [
        (probe([1.0], [1], a="yes"), probe([1.0], [2], a="yes"), "different neutral texts"),
        (probe([], [], a="yes"), probe([], [], a="yes"), "neutral texts, or none"),
        (probe([1.0], [1], a="yes"), probe([1.0], [1], b="yes"), "different items"),
        (probe([1.0], [1]), probe([1.0], [1]), "different items, or none"),
        (probe([1.0], [1], z="yes"), probe([1.0], [1], z="yes"), "1 decided items are not in the corpus, e.g. 'z'"),
    ],
)
def test_probes_of_different_material_are_not_compared(base: ModelProbe, tuned: ModelProbe, message: str) -> None:
    people = corpus_frame([corpus_row(item, "ada", "yes", "because", "test") for item in "ab"])
    with pytest.raises(CorpusError, match=message):
        compare(base, tuned, people)
