"""Responses of a model to held-out items: sampled, greedy, and with the label decided by comparing all labels."""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from capo_core.chat import encode_prompt, encode_response, end_of_turn_id
from capo_core.errors import ModelError
from capo_core.progress import Progress, silent
from capo_core.prompts import Message, parse_response, response_opening
from capo_core.seeding import derive_seed
from schemas.config import Decision, GenerationConfig, TaskSpec
from schemas.frames import GENERATIONS, check_columns

if TYPE_CHECKING:
    from capo_core.decoding import Continuation, Sampling

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerationRequest:
    """What to ask: an item's prompt, and who is imitated (None: nobody)."""

    item_id: str
    annotator_id: str | None
    prompt: Sequence[Message]


@dataclass(frozen=True)
class _Encoded:
    """A request as tokens, with its place among the requests and the number of turns left out to fit."""

    place: int
    request: GenerationRequest
    tokens: list[int]
    n_dropped_turns: int


def generate_responses(
    model: Any,
    tokenizer: Any,
    requests: Sequence[GenerationRequest],
    task: TaskSpec,
    config: GenerationConfig,
    *,
    seed: int,
    method: str,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Return one response per request and configured decision, in the requests' order.

    Sampled: free generation, parsed. Greedy: likewise, always the most probable token. Constrained: every label of
    the task is scored as the response's opening `Label: X⏎Explanation:`, the log-probabilities of all its tokens
    summed, so that `1` competes fairly with `10`; the best label is taken, earlier ones winning ties, and the
    explanation sampled after it.

    Each response has random numbers of its own, from (seed, method, annotator, item, decision). Which other requests
    are asked changes a response only through rounding. Prompts that do not fit the model's context lose their
    oldest turns; how many is logged as a warning.

    Args:
        model: of `models.load_policy`.
        tokenizer: of `models.load_tokenizer`.
        requests: what to ask; those with a common opening share its computation.
        task: labels and how responses are parsed.
        config: decisions, temperature, limits, batch size (responses decoded at a time).
        seed: of the random numbers.
        method: which method answers; part of the seed and of every row.
        progress: called with requests done and requests in all.

    Returns:
        GENERATIONS frame. `n_tokens` counts generated tokens, without the constrained opening and the end of turn.

    Raises:
        ModelError: if the model's layers do not allow shared openings, or an item alone exceeds the context.
    """
    from capo_core.grouped_layout import layout_obstacle

    obstacle = layout_obstacle(model.config)
    if obstacle is not None:
        raise ModelError(f"{model.config.model_type}: generation is not supported, because {obstacle}")
    openings = [encode_response(response_opening(label), tokenizer) for label in task.labels.names]
    limit = model.config.max_position_embeddings - config.max_new_tokens - max(map(len, openings))
    encoded = [_encode(place, request, tokenizer, limit) for place, request in enumerate(requests)]
    _report_dropped(encoded, method, limit)
    sampling = _sampling(model, tokenizer, config)
    rows: dict[int, list[dict[str, Any]]] = {}
    for batch, found in _answer(model, encoded, openings, sampling, config, (seed, method)):
        for request, answer in zip(batch, found, strict=True):
            rows[request.place] = [
                _to_row(request, decision, continuation, logprobs, tokenizer, task, openings)
                | {"method": method, "seed": seed}
                for decision, continuation, logprobs in answer
            ]
        progress(len(rows), len(requests))
    ordered = [row for place in range(len(requests)) for row in rows[place]]
    return check_columns(pl.DataFrame(ordered, schema=GENERATIONS), GENERATIONS, "generations")


def _encode(place: int, request: GenerationRequest, tokenizer: Any, limit: int) -> _Encoded:
    """Return the request's prompt as at most `limit` tokens, the oldest turns left out as needed."""
    first, *turns = request.prompt
    n_pairs = (len(turns) - 1) // 2

    def without(n_dropped: int) -> list[int]:
        return encode_prompt([first, *turns[2 * n_dropped :]], tokenizer)

    tokens, n_dropped = without(0), 0
    if len(tokens) > limit:
        n_dropped = bisect_left(range(n_pairs), True, key=lambda n: len(without(n)) <= limit)
        tokens = without(n_dropped)
    if len(tokens) > limit:
        raise ModelError(
            f"item {request.item_id}: its prompt alone has {len(tokens)} tokens, the model's context leaves {limit}; "
            "use a model with a longer context or leave the item out"
        )
    return _Encoded(place, request, tokens, 2 * n_dropped)


def _report_dropped(encoded: Sequence[_Encoded], method: str, limit: int) -> None:
    shortened = [request.n_dropped_turns for request in encoded if request.n_dropped_turns]
    if shortened:
        _LOGGER.warning(
            "%s: %d of %d prompts exceeded the %d tokens the model's context leaves; %d of their oldest turns were "
            "left out", method, len(shortened), len(encoded), limit, sum(shortened),
        )  # fmt: skip


def _sampling(model: Any, tokenizer: Any, config: GenerationConfig) -> Sampling:
    from capo_core.decoding import Sampling

    declared = model.generation_config.eos_token_id
    ends = declared if isinstance(declared, list) else [declared]
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
        stop=frozenset({end_of_turn_id(tokenizer), tokenizer.eos_token_id, *ends} - {None}),
    )


_Answer = list[tuple[Decision, "Continuation", list[float] | None]]
"""Per decision the continuation and, for the constrained one, the normalised log-probability of each label."""


def _answer(
    model: Any,
    encoded: Sequence[_Encoded],
    openings: list[list[int]],
    sampling: Sampling,
    config: GenerationConfig,
    seed: tuple[int, str],
) -> Iterator[tuple[list[_Encoded], list[_Answer]]]:
    """Yield batches of requests with their answers."""
    import torch

    from capo_core.decoding import Row, continue_rows, count_common, read_prefix, read_prompts

    per_batch = max(1, config.batch_size // len(config.decisions))
    with torch.inference_mode():
        for family in _families(encoded):
            n_shared = count_common([request.tokens for request in family])
            prefix = read_prefix(model, family[0].tokens[:n_shared])
            for start in range(0, len(family), per_batch):
                batch = family[start : start + per_batch]
                read = read_prompts(model, [request.tokens[n_shared:] for request in batch], openings, prefix)
                logprobs = torch.log_softmax(read.opening_logps.double(), dim=1)
                best = logprobs.argmax(dim=1).tolist()
                asked: list[tuple[int, Decision]] = [
                    (i, decision) for i in range(len(batch)) for decision in config.decisions
                ]
                rows = [
                    Row(
                        i,
                        best[i] if decision == "constrained" else None,
                        _uniforms(batch[i].request, decision, seed, sampling.max_new_tokens),
                    )
                    for i, decision in asked
                ]
                scores = logprobs.tolist()
                answers: list[_Answer] = [[] for _ in batch]
                found = continue_rows(model, read, rows, prefix, sampling)
                for (i, decision), continuation in zip(asked, found, strict=True):
                    answers[i].append((decision, continuation, scores[i] if decision == "constrained" else None))
                yield batch, answers


def _families(encoded: Sequence[_Encoded]) -> list[list[_Encoded]]:
    """Return the requests by what comes before their last turn, each family by length."""
    families: dict[str, list[_Encoded]] = {}
    for request in encoded:
        earlier = list(request.request.prompt[:-1])
        families.setdefault(json.dumps([earlier, request.n_dropped_turns]), []).append(request)
    return [sorted(family, key=lambda r: (len(r.tokens), r.place)) for family in families.values()]


def _uniforms(request: GenerationRequest, decision: Decision, seed: tuple[int, str], n: int) -> np.ndarray | None:
    """Return the random numbers of one response, None where none is drawn."""
    if decision == "greedy":
        return None
    return np.random.default_rng(derive_seed(*seed, request.annotator_id, request.item_id, decision)).random(n)


def _to_row(
    encoded: _Encoded,
    decision: str,
    continuation: Continuation,
    logprobs: list[float] | None,
    tokenizer: Any,
    task: TaskSpec,
    openings: list[list[int]],
) -> dict[str, Any]:
    opening = [] if logprobs is None else openings[int(np.argmax(logprobs))]
    text = tokenizer.decode([*opening, *continuation.tokens], skip_special_tokens=True)
    parsed = parse_response(text, task)
    return {
        "annotator_id": encoded.request.annotator_id,
        "item_id": encoded.request.item_id,
        "decision": decision,
        "text": text,
        "label": parsed.label,
        "explanation": parsed.explanation,
        "parse_status": parsed.status,
        "label_logprobs": logprobs,
        "n_prompt_tokens": len(encoded.tokens),
        "n_tokens": len(continuation.tokens),
        "truncated": continuation.truncated,
    }
