"""Answers of several people at once: their adapters mixed in one batch, which questions join and leave at any time.

Each prompt is read by itself, after what its adapter always reads before an item. So the label that a constrained
decision takes, its probability, and the first token of any answer are the same bits whoever else is asked. Further
tokens are drawn with those of the others in one pass, in which they differ by rounding alone (`row_decoder`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from capo_core.chat import encode_prompt, encode_response
from capo_core.errors import ModelError
from capo_core.generation.asking import declared_ends
from capo_core.generation.decoding import count_common, read_prefix, read_prompts
from capo_core.generation.mixed_adapters import Route
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import MAX_CACHED_TOKENS, draw_numbers
from capo_core.generation.row_decoder import Continuation, Row, RowDecoder
from capo_core.generation.sampling import Sampling
from capo_core.layout.attention import SharedPrefix
from capo_core.layout.obstacle import layout_obstacle
from capo_core.prompts import (
    AnnotatorTag,
    Message,
    ParsedResponse,
    parse_response,
    response_opening,
    system_text,
    tag_text,
)
from schemas.registry import AnsweringRecipe
from schemas.section import Decision

_PROBES = ("0", "a", "Z")
"""User turns whose prompts have in common what every prompt of a person begins with."""


@dataclass(frozen=True)
class Person:
    """In whose place: the annotator, how the adapter is asked, and the adapter's place in the model's route."""

    annotator_id: str
    recipe: AnsweringRecipe
    adapter: int

    def ask(self, text: str) -> list[Message]:
        """Return the conversation up to the response, as in training; `text` is the item as a user turn."""
        recipe = self.recipe
        turn = tag_text(text, AnnotatorTag(self.annotator_id, recipe.tag)) if recipe.tag else text
        return [{"role": "system", "content": system_text(recipe.task)}, {"role": "user", "content": turn}]


@dataclass(frozen=True)
class Question:
    """One item asked of one person.

    Attributes:
        person: in whose place to answer.
        item_id: names the item among those asked; part of the seed.
        text: the item as a user turn, see `prompts.item_text`.
        decision: how the label is decided, see `responses.generate_responses`.
        temperature: 0 is greedy.
        top_p: share of the probability that tokens are drawn from.
        max_new_tokens: of each answer, the label of a constrained decision not counted.
        seed: of the random numbers.
        n_choices: answers wanted; the first is that of a question that wants one.
        stop: texts before which an answer ends.
    """

    person: Person
    item_id: str
    text: str
    decision: Decision
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    n_choices: int = 1
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncodedQuestion:
    """A question as tokens; `n_cached` are the keys and values that all its answers together may need."""

    question: Question
    tokens: list[int]
    n_cached: int


@dataclass(frozen=True)
class Choice:
    """One answer as text, with its parts; `truncated` if it reached the limit of tokens."""

    text: str
    parsed: ParsedResponse
    n_tokens: int
    truncated: bool


@dataclass(eq=False)
class Answer:
    """What becomes of a question: its continuations, written on step by step.

    Attributes:
        encoded: the question.
        opening: tokens of the constrained label and what follows it, or none.
        label_logprobs: of a constrained decision, by label, normalised; else None.
        continuations: one per choice.
        cut: by choice the text up to a stop, where one was found.
    """

    encoded: EncodedQuestion
    opening: list[int]
    label_logprobs: dict[str, float] | None
    continuations: list[Continuation]
    cut: dict[int, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(continuation.ended for continuation in self.continuations)


class AnswerBatch:
    """Questions being answered. One thread only may use it; `advance` is one token of each answer."""

    def __init__(
        self,
        model: Any,
        route: Route,
        tokenizer: Any,
        people: Sequence[Person],
        *,
        max_rows: int,
        stop: frozenset[int] | None = None,
    ) -> None:
        """Read what the prompts of each person begin with.

        Args:
            model: of `mixed_adapters.load_mixed`.
            route: of the same.
            tokenizer: of `models.load_tokenizer`.
            people: who may be asked.
            max_rows: answers decoded at a time, at most.
            stop: tokens that end an answer, by default those that the model and its tokenizer declare.

        Raises:
            ModelError: if the model's layers do not allow shared openings.
        """
        obstacle = layout_obstacle(model.config)
        if obstacle is not None:
            raise ModelError(f"{model.config.model_type}: generation is not supported, because {obstacle}")
        self._model, self._route, self._tokenizer = model, route, tokenizer
        self._max_rows = max_rows
        self._ends = declared_ends(model.generation_config, tokenizer) if stop is None else stop
        self._openings: dict[str, list[int]] = {}
        self._prefixes: dict[tuple[int, tuple[int, ...]], SharedPrefix | None] = {}
        self._beginnings = {(p.annotator_id, p.adapter): self._read_beginning(p) for p in people}
        self.clear()

    def clear(self) -> None:
        """Forget all questions being answered."""
        self._decoder = RowDecoder(self._model, None, self._route)
        self._open: list[Answer] = []

    @property
    def n_rows(self) -> int:
        """Answers being written."""
        return self._decoder.n_active

    def encode(self, question: Question) -> EncodedQuestion:
        """Return a question as tokens.

        Raises:
            ModelError: if it does not fit the model's context or, with all its choices, the memory set aside.
        """
        labels = question.person.recipe.task.labels.names if question.decision == "constrained" else ()
        n_new = question.max_new_tokens + max((len(self._encode_opening(label)) for label in labels), default=0)
        tokens = encode_prompt(question.person.ask(question.text), self._tokenizer)
        context = self._model.config.max_position_embeddings
        if len(tokens) + n_new > context:
            raise ModelError(
                f"a prompt of {len(tokens)} tokens and an answer of up to {n_new} do not fit the model's {context}; "
                "ask for a shorter answer, or shorten the item"
            )
        n_cached = question.n_choices * (len(tokens) + n_new)
        if question.n_choices > 1 and (n_cached > MAX_CACHED_TOKENS or question.n_choices > self._max_rows):
            raise ModelError(
                f"{question.n_choices} answers of up to {question.max_new_tokens} tokens after {len(tokens)} of the "
                "prompt are too many at once; ask for fewer, or for shorter ones"
            )
        return EncodedQuestion(question, tokens, n_cached)

    def has_room(self, encoded: EncodedQuestion, others: Sequence[EncodedQuestion] = ()) -> bool:
        """Return whether a question can join now, together with others; where nothing is answered, any can."""
        asked = [*(answer.encoded for answer in self._open), *others]
        if not asked:
            return True
        asked.append(encoded)
        n_rows = sum(one.question.n_choices for one in asked)
        # All rows are as wide as the widest.
        width = max(one.n_cached // one.question.n_choices for one in asked)
        return n_rows <= self._max_rows and n_rows * width <= MAX_CACHED_TOKENS

    @torch.inference_mode()
    def join(self, questions: Sequence[EncodedQuestion]) -> list[Answer]:
        """Read questions, decide constrained labels, and let the answers join; return them as they will be."""
        parts, begun = [], []
        for encoded in questions:
            question = encoded.question
            labels = question.person.recipe.task.labels.names if question.decision == "constrained" else ()
            openings = [self._encode_opening(label) for label in labels]
            beginning = self._beginnings[question.person.annotator_id, question.person.adapter]
            prefix = None
            if tuple(encoded.tokens[: len(beginning)]) == beginning:
                prefix = self._prefixes[question.person.adapter, beginning]
            n_shared = len(beginning) if prefix is not None else 0
            self._route.send([question.person.adapter])
            read = read_prompts(self._model, [encoded.tokens[n_shared:]], openings, prefix)
            best, logprobs = None, None
            if labels:
                found = read.opening_logps.double().log_softmax(dim=1)[0].tolist()
                best, logprobs = int(np.argmax(found)), dict(zip(labels, found, strict=True))
            parts.append((read, [self._row(question, best, choice) for choice in range(question.n_choices)]))
            begun.append((encoded, [] if best is None else openings[best], logprobs))
        continuations = self._decoder.join(parts)
        joined = [
            Answer(encoded, opening, logprobs, own)
            for (encoded, opening, logprobs), own in zip(begun, continuations, strict=True)
        ]
        self._open += joined
        for answer in joined:
            self._end_at_stops(answer)
        return joined

    @torch.inference_mode()
    def advance(self) -> list[Answer]:
        """Draw the next token of each answer and return the questions whose answers are complete now."""
        if self._decoder.n_active:
            self._decoder.advance()
        for answer in self._open:
            self._end_at_stops(answer)
        complete = [answer for answer in self._open if answer.is_complete]
        self._open = [answer for answer in self._open if not answer.is_complete]
        return complete

    def drop(self, answer: Answer) -> None:
        """Let a question leave whose answer is no longer wanted."""
        for continuation in answer.continuations:
            continuation.ended = True
        self._open = [other for other in self._open if other is not answer]

    def read_choices(self, answer: Answer) -> list[Choice]:
        """Return the answers of a complete question."""
        found = []
        for place, continuation in enumerate(answer.continuations):
            text = answer.cut[place] if place in answer.cut else self._decode(answer, continuation)
            parsed = parse_response(text, answer.encoded.question.person.recipe.task)
            found.append(Choice(text, parsed, len(continuation.tokens), continuation.truncated))
        return found

    def _read_beginning(self, person: Person) -> tuple[int, ...]:
        """Return the tokens before any item in a person's prompts, their keys and values kept."""
        probes = [encode_prompt(person.ask(text), self._tokenizer) for text in _PROBES]
        beginning = tuple(probes[0][: count_common(probes)])
        key = person.adapter, beginning
        if key not in self._prefixes:
            self._route.send([person.adapter])
            with torch.inference_mode():
                self._prefixes[key] = read_prefix(self._model, beginning)
        return beginning

    def _row(self, question: Question, opening: int | None, choice: int) -> Row:
        seed = (question.seed, question.person.recipe.method)
        asked = GenerationRequest(question.item_id, question.person.annotator_id, ())
        numbers = draw_numbers(asked, question.decision, seed, question.max_new_tokens, choice)
        sampling = Sampling(question.temperature, question.top_p, question.max_new_tokens, self._ends)
        return Row(0, opening, numbers, sampling, question.person.adapter)

    def _encode_opening(self, label: str) -> list[int]:
        if label not in self._openings:
            self._openings[label] = encode_response(response_opening(label), self._tokenizer)
        return self._openings[label]

    def _decode(self, answer: Answer, continuation: Continuation) -> str:
        return self._tokenizer.decode([*answer.opening, *continuation.tokens], skip_special_tokens=True)

    def _end_at_stops(self, answer: Answer) -> None:
        """End the answers in which a stop has come, before it; the constrained label and what follows it stay."""
        stop = answer.encoded.question.stop
        if not stop:
            return
        n_kept = len(self._tokenizer.decode(answer.opening, skip_special_tokens=True))
        for place, continuation in enumerate(answer.continuations):
            if place in answer.cut:
                continue
            text = self._decode(answer, continuation)
            found = [start for start in (text.find(one, n_kept) for one in stop) if start >= 0]
            if found:
                answer.cut[place] = text[: min(found)]
                continuation.ended, continuation.truncated = True, False
