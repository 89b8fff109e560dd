"""Responses of a model to held-out items: sampled, greedy, and with the label decided by comparing all labels."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from capo_core.errors import ModelError
from capo_core.generation.asking import Asking, EncodedRequest, declared_ends, seed_of_response
from capo_core.generation.requests import GenerationRequest
from capo_core.progress import Progress, silent
from schemas.config import GenerationConfig, TaskSpec
from schemas.frames import GENERATIONS, check_columns
from schemas.section import Decision

if TYPE_CHECKING:
    from capo_core.generation.row_decoder import Continuation, RowDecoder
    from capo_core.generation.sampling import Sampling
    from capo_core.layout.attention import SharedPrefix

MAX_CACHED_TOKENS = 2**14
"""Tokens of rows whose keys and values are held at once, shared openings not counted: some 380 MiB for SmolLM2-135M."""

_TOKENS_PER_PASS = 2048
"""Tokens of prompts after which a pass of reading them is full."""


def generate_responses(
    model: Any,
    tokenizer: Any,
    requests: Sequence[GenerationRequest],
    task: TaskSpec,
    config: GenerationConfig,
    *,
    seed: int,
    method: str,
    stop: frozenset[int] | None = None,
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
        requests: what to ask, of one person or several; prompts with a common opening share its computation, and so
            do those of one item.
        task: labels and how responses are parsed.
        config: decisions, temperature, limits, batch size (responses decoded at a time, at most; fewer where keys and
            values would exceed `MAX_CACHED_TOKENS`).
        seed: of the random numbers.
        method: which method answers; part of the seed and of every row.
        stop: tokens that end a response, by default those that the model and its tokenizer declare.
        progress: called with requests done and requests in all.

    Returns:
        GENERATIONS frame. `n_tokens` counts generated tokens, without the constrained opening and the end of turn.

    Raises:
        ModelError: if the model's layers do not allow shared openings, or an item alone exceeds the context.
    """
    import torch

    from capo_core.generation.sampling import Sampling
    from capo_core.layout.obstacle import layout_obstacle

    obstacle = layout_obstacle(model.config)
    if obstacle is not None:
        raise ModelError(f"{model.config.model_type}: generation is not supported, because {obstacle}")
    asking = Asking(tokenizer, task, method, seed)
    encoded = asking.encode(requests, model.config.max_position_embeddings, config.max_new_tokens)
    ends = declared_ends(model.generation_config, tokenizer) if stop is None else stop
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens, ends)
    asked = _Asked(model, asking, sampling, config)
    rows: dict[int, list[dict[str, Any]]] = {}
    with torch.inference_mode():
        for answered in itertools.chain.from_iterable(_answer(asked, family) for family in _families(encoded)):
            for request, answer in answered:
                rows[request.place] = [
                    asking.describe(
                        request, decision, continuation.tokens, truncated=continuation.truncated, logps=logps
                    )
                    for decision, continuation, logps in answer
                ]
            progress(len(rows), len(requests))
    ordered = [row for place in range(len(requests)) for row in rows[place]]
    return check_columns(pl.DataFrame(ordered, schema=GENERATIONS), GENERATIONS, "generations")


_Answer = list[tuple[Decision, "Continuation", list[float] | None]]
"""Per decision the continuation and, for the constrained one, the normalised log-probability of each label."""


@dataclass(frozen=True)
class _Asked:
    """What all requests of a run have in common."""

    model: Any
    asking: Asking
    sampling: Sampling
    config: GenerationConfig


def _answer(asked: _Asked, family: list[EncodedRequest]) -> Iterator[list[tuple[EncodedRequest, _Answer]]]:
    """Yield requests with a common opening as their answers are complete."""
    from capo_core.generation.decoding import count_common, read_prefix
    from capo_core.generation.row_decoder import RowDecoder

    # Each prompt keeps two tokens of its own, which reading without openings needs.
    tokens = [request.tokens for request in family]
    n_shared = max(0, min(count_common(tokens), min(map(len, tokens)) - 2))
    prefix = read_prefix(asked.model, tokens[0][:n_shared])
    decoder = RowDecoder(asked.model, prefix)
    n_each = len(asked.config.decisions)
    longest = max(map(len, tokens)) - n_shared + asked.sampling.max_new_tokens
    n_rows = max(n_each, min(asked.config.batch_size, MAX_CACHED_TOKENS // longest))
    waiting, open_answers = deque(family), []
    while waiting or open_answers:
        n_free = (n_rows - decoder.n_active) // n_each
        # Rows that join have all others copied, so a few do not.
        if waiting and (n_free >= max(1, n_rows // n_each // 4)):
            batch = [waiting.popleft() for _ in range(min(n_free, len(waiting)))]
            open_answers += _begin(asked, decoder, batch, n_shared, prefix)
        if decoder.n_active:
            decoder.advance()
        done = [(request, answer) for request, answer in open_answers if _is_complete(answer)]
        if done:
            open_answers = [(request, answer) for request, answer in open_answers if not _is_complete(answer)]
            yield done


def _is_complete(answer: _Answer) -> bool:
    return all(continuation.ended for _, continuation, _ in answer)


def _begin(
    asked: _Asked, decoder: RowDecoder, batch: list[EncodedRequest], n_shared: int, prefix: SharedPrefix | None
) -> list[tuple[EncodedRequest, _Answer]]:
    """Read some requests, let their rows join the decoder, and return their answers as they will be."""
    from capo_core.generation.decoding import read_prompts
    from capo_core.generation.row_decoder import Row

    decisions = asked.config.decisions
    openings = asked.asking.openings if "constrained" in decisions else []
    parts, scores = [], []
    for chunk in _in_passes(batch, n_shared):
        read = read_prompts(asked.model, [request.tokens[n_shared:] for request in chunk], openings, prefix)
        logps = read.opening_logps.double().log_softmax(dim=1).tolist()
        rows = [
            Row(
                i,
                int(np.argmax(logps[i])) if decision == "constrained" else None,
                draw_numbers(request.request, decision, asked.asking.seeds, asked.sampling.max_new_tokens),
                asked.sampling,
            )
            for i, request in enumerate(chunk)
            for decision in decisions
        ]
        parts.append((read, rows))
        scores += logps
    continuations = itertools.chain.from_iterable(decoder.join(parts))
    return [
        (
            request,
            [(decision, next(continuations), found if decision == "constrained" else None) for decision in decisions],
        )
        for request, found in zip(batch, scores, strict=True)
    ]


def _in_passes(batch: list[EncodedRequest], n_shared: int) -> Iterator[list[EncodedRequest]]:
    """Yield the requests in parts of about `_TOKENS_PER_PASS` own tokens."""
    part: list[EncodedRequest] = []
    n_tokens = 0
    for request in batch:
        part.append(request)
        n_tokens += len(request.tokens) - n_shared
        if n_tokens >= _TOKENS_PER_PASS:
            yield part
            part, n_tokens = [], 0
    if part:
        yield part


def _families(encoded: Sequence[EncodedRequest]) -> list[list[EncodedRequest]]:
    """Return the requests by what comes before their last turn, each family by length, items side by side."""
    families: dict[str, list[EncodedRequest]] = {}
    for request in encoded:
        earlier = list(request.request.prompt[:-1])
        families.setdefault(json.dumps([earlier, request.n_dropped_turns]), []).append(request)
    longest: dict[str, int] = {}
    for request in encoded:
        item = request.request.item_id
        longest[item] = max(longest.get(item, 0), len(request.tokens))
    return [
        sorted(family, key=lambda r: (longest[r.request.item_id], r.request.item_id, r.place))
        for family in families.values()
    ]


def draw_numbers(
    request: GenerationRequest, decision: Decision, seed: tuple[int, str], n: int, choice: int = 0
) -> np.ndarray | None:
    """Return the random numbers of one response, or of a further choice of the same; None where none is drawn."""
    if decision == "greedy":
        return None
    return np.random.default_rng(seed_of_response(request, decision, seed, choice)).random(n)
