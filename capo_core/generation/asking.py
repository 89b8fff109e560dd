"""What every way of generating has in common: prompts as tokens that fit, each response's seed, and its row."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from capo_core.chat import encode_prompt, encode_response, end_of_turn_id
from capo_core.errors import ModelError
from capo_core.generation.requests import GenerationRequest
from capo_core.prompts import parse_response, response_opening
from capo_core.seeding import derive_seed
from schemas.config import TaskSpec
from schemas.section import Decision

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedRequest:
    """A request as tokens, with its place among the requests and the number of turns left out to fit."""

    place: int
    request: GenerationRequest
    tokens: list[int]
    n_dropped_turns: int


@dataclass(frozen=True)
class Asking:
    """One method asked about a task.

    Attributes:
        tokenizer: of the model.
        task: labels and how responses are parsed.
        method: which method answers; part of every response's seed and of every row.
        seed: of the random numbers.
    """

    tokenizer: Any
    task: TaskSpec
    method: str
    seed: int

    @cached_property
    def openings(self) -> list[list[int]]:
        """The tokens of `Label: X⏎Explanation:` for each label."""
        return [encode_response(response_opening(label), self.tokenizer) for label in self.task.labels.names]

    @property
    def seeds(self) -> tuple[int, str]:
        """What `seed_of_response` wants of the run: its seed and its method."""
        return self.seed, self.method

    def encode(self, requests: Sequence[GenerationRequest], context: int, max_new_tokens: int) -> list[EncodedRequest]:
        """Return each prompt as tokens that leave room for a response, the oldest turns left out as needed.

        Args:
            requests: what to ask.
            context: tokens that the model can read.
            max_new_tokens: of a response, a constrained decision's opening not counted.

        Raises:
            ModelError: if an item alone does not fit.
        """
        limit = context - max_new_tokens - max(map(len, self.openings))
        encoded = [self._encode(place, request, limit) for place, request in enumerate(requests)]
        shortened = [request.n_dropped_turns for request in encoded if request.n_dropped_turns]
        if shortened:
            _LOGGER.warning(
                "%s: %d of %d prompts exceeded the %d tokens the model's context leaves; %d of their oldest turns "
                "were left out", self.method, len(shortened), len(encoded), limit, sum(shortened),
            )  # fmt: skip
        return encoded

    def _encode(self, place: int, request: GenerationRequest, limit: int) -> EncodedRequest:
        first, *turns = request.prompt
        n_pairs = (len(turns) - 1) // 2

        def without(n_dropped: int) -> list[int]:
            return encode_prompt([first, *turns[2 * n_dropped :]], self.tokenizer)

        tokens, n_dropped = without(0), 0
        if len(tokens) > limit:
            n_dropped = bisect_left(range(n_pairs), True, key=lambda n: len(without(n)) <= limit)
            tokens = without(n_dropped)
        if len(tokens) > limit:
            raise ModelError(
                f"item {request.item_id}: its prompt alone has {len(tokens)} tokens, the model's context leaves "
                f"{limit}; use a model with a longer context or leave the item out"
            )
        return EncodedRequest(place, request, tokens, 2 * n_dropped)

    def describe(
        self,
        encoded: EncodedRequest,
        decision: Decision,
        tokens: Sequence[int],
        *,
        truncated: bool,
        logps: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Return a response as a row of GENERATIONS.

        Args:
            encoded: what was asked.
            decision: how the label was decided.
            tokens: generated, without the end of the turn; for a constrained decision those after the opening.
            truncated: whether the limit ended the response.
            logps: for a constrained decision each label's log-probability, normalised over labels.
        """
        opening = [] if logps is None else self.openings[int(np.argmax(logps))]
        text = self.tokenizer.decode([*opening, *tokens], skip_special_tokens=True)
        parsed = parse_response(text, self.task)
        return {
            "annotator_id": encoded.request.annotator_id,
            "item_id": encoded.request.item_id,
            "method": self.method,
            "seed": self.seed,
            "decision": decision,
            "text": text,
            "label": parsed.label,
            "explanation": parsed.explanation,
            "parse_status": parsed.status,
            "label_logprobs": None if logps is None else list(logps),
            "n_prompt_tokens": len(encoded.tokens),
            "n_tokens": len(tokens),
            "truncated": truncated,
        }


def declared_ends(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a response: those that the model, its tokenizer and its chat template declare."""
    declared = generation_config.eos_token_id
    ends = declared if isinstance(declared, list) else [declared]
    return frozenset({end_of_turn_id(tokenizer), tokenizer.eos_token_id, *ends} - {None})


def seed_of_response(request: GenerationRequest, decision: Decision, seed: tuple[int, str], choice: int = 0) -> int:
    """Return the seed of one response's random numbers, or of a further choice of the same: in [0, 2^63).

    Args:
        request: whose response.
        decision: how its label is decided.
        seed: of the run, and its method.
        choice: 0, or the number of a further choice.
    """
    further = [choice] if choice else []
    return derive_seed(*seed, request.annotator_id, request.item_id, decision, *further)
