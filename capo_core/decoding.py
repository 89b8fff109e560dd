"""Decoding of many prompts at once: what they have in common is computed once.

A batch goes through three passes: the opening shared by all its prompts (once for many batches), the rest of each
prompt together with every label's opening of a response (the grouped layout), and then token by token.

Notation: P tokens in the shared opening, B prompts, R rows decoded (one or more per prompt), V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from capo_core.attention import SharedPrefix
from capo_core.prefix_tree import TokenGroup, TreeBatch, additive, lay_out
from capo_core.training.logps import head_logps

_PREFIX_STEP = 512
"""Tokens of a shared opening computed at a time, which bounds the memory for attention scores."""


@dataclass(frozen=True)
class Sampling:
    """How a next token is drawn: temperature 0 takes the most probable; `stop` are the tokens that end a response."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: frozenset[int]


@dataclass
class Continuation:
    """One response as decoded: its tokens without the one that ended it; truncated as long as none has."""

    tokens: list[int] = field(default_factory=list)
    truncated: bool = True


@dataclass(frozen=True)
class Row:
    """What to continue: the `prompt`-th prompt of the batch, after the `opening`-th opening or (None) none.

    `uniforms` (max_new_tokens,) in [0, 1) are the row's own random numbers, one per token; None takes the most
    probable token each time, whatever the temperature.
    """

    prompt: int
    opening: int | None
    uniforms: np.ndarray | None


@dataclass(frozen=True, eq=False)
class ReadPrompts:
    """Prompts and their openings as the model has read them.

    Attributes:
        groups: the tokens; what all openings begin with closes the prompt.
        n_common: how many tokens that is.
        paths: per prompt and opening the columns of their tokens.
        opening_logps: (B, openings per prompt) log-probabilities summed over the tokens in which openings differ.
        states: (B, L, D) hidden states.
        cache: keys and values of the same tokens.
    """

    groups: Sequence[TokenGroup]
    n_common: int
    paths: Sequence[list[int]]
    opening_logps: torch.Tensor
    states: torch.Tensor
    cache: DynamicCache

    def slots(self, prompt: int, opening: int | None) -> list[int]:
        """Return which tokens of a prompt's sequence come before its continuation."""
        group = self.groups[prompt]
        if opening is None:
            return list(range(len(group.prompt) - self.n_common))
        return self.paths[prompt * len(group.responses) + opening]


def read_prefix(model: Any, tokens: Sequence[int]) -> SharedPrefix | None:
    """Return the keys and values of an opening shared by several prompts, or None if it is empty.

    Args:
        model: causal language model with folded attention.
        tokens: the opening, from the very first token on.
    """
    prefix: SharedPrefix | None = None
    for start in range(0, len(tokens), _PREFIX_STEP):
        chunk = TokenGroup(tokens[start : start + _PREFIX_STEP], ())
        cache = DynamicCache()
        _forward(model, _lay_out_for(model, [chunk], start), cache, prefix)
        layers: list[Any] = cache.layers
        new = [(layer.keys[0], layer.values[0]) for layer in layers]
        if prefix is not None:
            new = [
                (torch.cat([k, more_k], dim=1), torch.cat([v, more_v], dim=1))
                for (k, v), (more_k, more_v) in zip(prefix, new, strict=True)
            ]
        prefix = new
    return prefix


def read_prompts(
    model: Any, prompts: Sequence[Sequence[int]], openings: Sequence[Sequence[int]], prefix: SharedPrefix | None
) -> ReadPrompts:
    """Return the state of the model after each prompt and each opening, and the openings' log-probabilities.

    Args:
        model: causal language model with folded attention.
        prompts: the tokens after the shared opening, at least one each.
        openings: at least two ways to begin a response, the same for every prompt.
        prefix: of `read_prefix`.
    """
    # What all openings begin with adds the same to each of them and is read once.
    n_common = count_common(openings)
    shared, parted = openings[0][:n_common], [opening[n_common:] for opening in openings]
    groups = [TokenGroup([*prompt, *shared], parted) for prompt in prompts]
    cache = DynamicCache()
    batch = _lay_out_for(model, groups, _length(prefix))
    states = _forward(model, batch, cache, prefix)
    # In bfloat16 a logit of 16 is rounded to the next eighth, and labels would tie.
    predicting = states.flatten(0, 1)[batch.predictor].float()
    tokens = head_logps(predicting, model.get_output_embeddings().weight.float(), batch.target)[batch.scored]
    logps = tokens.new_zeros(len(batch.n_tokens)).index_add(0, batch.response, tokens)
    return ReadPrompts(groups, n_common, batch.paths, logps.view(len(groups), -1), states, cache)


def count_common(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all sequences share; each keeps at least one of its own."""
    # Between the least and the greatest in lexicographic order lie all others.
    low, high = min(map(list, sequences)), max(map(list, sequences))
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(shared, min(map(len, sequences)) - 1)


def continue_rows(
    model: Any, read: ReadPrompts, rows: Sequence[Row], prefix: SharedPrefix | None, sampling: Sampling
) -> list[Continuation]:
    """Return the continuation of each row.

    The draw inverts the distribution function at the row's own uniform number, so a row's tokens depend on its
    logits and numbers alone. Logits of different batches differ by rounding: in float32 that all but never changes a
    token, in bfloat16 now and then.

    Args:
        model: causal language model with folded attention.
        read: of `read_prompts`.
        rows: what to continue, in any order.
        prefix: as given to `read_prompts`.
        sampling: how to draw and when to stop.
    """
    decoder = _Decoder(model, read, rows, prefix, sampling)
    for step in range(sampling.max_new_tokens):
        if not decoder.advance(step):
            break
    return decoder.continuations


class _Decoder:
    """The rows still computed, their keys and values, and the state each will draw its next token from."""

    def __init__(
        self, model: Any, read: ReadPrompts, rows: Sequence[Row], prefix: SharedPrefix | None, sampling: Sampling
    ) -> None:
        self.continuations = [Continuation() for _ in rows]
        self._model, self._prefix, self._sampling = model, prefix, sampling
        device = read.states.device
        kept = [read.slots(row.prompt, row.opening) for row in rows]
        self._n_read = max(len(slots) for slots in kept)
        index = torch.tensor([slots + [0] * (self._n_read - len(slots)) for slots in kept], device=device)
        prompt = torch.tensor([row.prompt for row in rows], device=device)
        lengths = torch.tensor([len(slots) for slots in kept], device=device)
        self._cache = _gather(read.cache, prompt, index, sampling.max_new_tokens)
        self._states = read.states[prompt, index.gather(1, lengths[:, None] - 1)[:, 0]]
        self._positions = _length(prefix) + lengths
        seen = torch.arange(self._n_read + sampling.max_new_tokens, device=device)
        visible = (seen < lengths[:, None]) | (seen >= self._n_read)
        self._mask = additive(visible[:, None], read.states.dtype)
        numbers = [np.zeros(sampling.max_new_tokens) if row.uniforms is None else row.uniforms for row in rows]
        self._uniforms = torch.tensor(np.stack(numbers), device=device)
        self._greedy = torch.tensor([row.uniforms is None for row in rows], device=device)
        self._rows = list(range(len(rows)))

    def advance(self, step: int) -> bool:
        """Draw one token per row and read it; return whether any row goes on."""
        logits = (self._states @ self._model.get_output_embeddings().weight.T).float()
        drawn = draw(logits, self._uniforms[:, step], self._sampling)
        drawn = torch.where(self._greedy, logits.argmax(dim=-1), drawn)
        going_on = []
        for place, (row, token) in enumerate(zip(self._rows, drawn.tolist(), strict=True)):
            continuation = self.continuations[row]
            if not continuation.truncated:
                continue  # has ended, but is still among the rows computed
            if token in self._sampling.stop:
                continuation.truncated = False
            else:
                continuation.tokens.append(token)
                going_on.append(place)
        if not going_on or step + 1 == self._sampling.max_new_tokens:
            return False
        # Dropping rows copies their keys and values: worth it once a quarter has ended.
        if len(going_on) <= 0.75 * len(self._rows):
            drawn = self._drop_to(going_on, drawn)
        self._read(drawn, step)
        return True

    def _drop_to(self, places: list[int], drawn: torch.Tensor) -> torch.Tensor:
        """Keep only the rows at `places`; return what they have drawn."""
        index = torch.tensor(places, device=drawn.device)
        self._rows = [self._rows[place] for place in places]
        self._positions, self._mask, self._uniforms, self._greedy = (
            tensor[index] for tensor in (self._positions, self._mask, self._uniforms, self._greedy)
        )
        self._cache.batch_select_indices(index)
        return drawn[index]

    def _read(self, drawn: torch.Tensor, step: int) -> None:
        """Let the model read the tokens drawn."""
        self._states = self._model.get_decoder()(
            input_ids=drawn[:, None],
            position_ids=(self._positions + step)[:, None],
            attention_mask=self._mask[..., : self._n_read + step + 1],
            past_key_values=self._cache,
            use_cache=True,
            shared_prefix=self._prefix,
        ).last_hidden_state[:, 0]


def draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return a token per row (R,): the smallest v with F(v) > u, F the distribution function over the vocabulary.

    Args:
        logits: (R, V).
        uniforms: (R,) in [0, 1).
        sampling: temperature 0 takes the most probable token; top_p below 1 keeps the fewest most probable tokens
            that together reach it.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, order = weights.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        weights = weights.masked_fill(torch.zeros_like(beyond).scatter_(1, order, beyond), 0)
    function = weights.double().cumsum(dim=-1)
    found = torch.searchsorted(function, uniforms.double()[:, None] * function[:, -1:], right=True)[:, 0]
    # A product that rounds up to F's last value would fall off the end.
    return found.clamp(max=logits.shape[1] - 1)


class _Buffer(DynamicLayer):
    """Keys and values with room for the tokens to come, so that a step writes one token and copies nothing."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._used = keys.shape[2]
        self.keys, self.values = (torch.nn.functional.pad(t, (0, 0, 0, room)) for t in (keys, values))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, self._used = self._used, self._used + key_states.shape[2]
        self.keys[:, :, start : self._used] = key_states
        self.values[:, :, start : self._used] = value_states
        return self.keys[:, :, : self._used], self.values[:, :, : self._used]


def _gather(cache: DynamicCache, prompt: torch.Tensor, index: torch.Tensor, room: int) -> Cache:
    """Return the keys and values at the given slots (R, n) of the given prompts (R,)."""

    def take(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(1, 2)[prompt[:, None], index].transpose(1, 2)

    layers: list[Any] = cache.layers
    return Cache(layers=[_Buffer(take(layer.keys), take(layer.values), room) for layer in layers])


def _length(prefix: SharedPrefix | None) -> int:
    return 0 if prefix is None else prefix[0][0].shape[1]


def _lay_out_for(model: Any, groups: Sequence[TokenGroup], first_position: int) -> TreeBatch:
    return lay_out([[group] for group in groups], first_position=first_position).to(model.device)


def _forward(model: Any, batch: TreeBatch, cache: DynamicCache, prefix: SharedPrefix | None) -> torch.Tensor:
    return model.get_decoder()(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.attention_mask(model.dtype),
        past_key_values=cache,
        use_cache=True,
        shared_prefix=prefix,
    ).last_hidden_state
