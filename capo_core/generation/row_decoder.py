"""Decoding token by token: rows that have ended make room for others.

Notation: P tokens in the opening shared by all rows, R rows computed at a time, C columns of their cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Cache

from capo_core.generation.decoding import ReadPrompts
from capo_core.generation.row_cache import Joining, rearrange
from capo_core.generation.sampling import Sampling, draw
from capo_core.layout.attention import SharedPrefix
from capo_core.layout.prefix_tree import additive

if TYPE_CHECKING:
    from capo_core.generation.mixed_adapters import Route

_ROOM = 32
"""Columns for tokens to come: more of them are computed in vain, fewer have the window copied more often."""

_MAX_ENDED = 0.25
"""Share of rows that have ended at which the others are copied together: any later and they cost more than the copy."""


@dataclass
class Continuation:
    """One response as decoded: its tokens without the one that ended it; truncated as long as none has."""

    tokens: list[int] = field(default_factory=list)
    truncated: bool = True
    ended: bool = False

    def take(self, token: int, sampling: Sampling) -> None:
        """Add a token drawn, or end."""
        if token in sampling.stop:
            self.truncated, self.ended = False, True
        else:
            self.tokens.append(token)
            self.ended = len(self.tokens) == sampling.max_new_tokens


@dataclass(frozen=True)
class Row:
    """What to continue: the `prompt`-th of some prompts, after the `opening`-th opening or (None) none.

    `uniforms` (max_new_tokens,) in [0, 1) are the row's own random numbers, one per token; None takes the most
    probable token each time, whatever the temperature. `sampling` says how to draw and when to stop, `adapter` through
    which adapter of a model that has several the row goes.
    """

    prompt: int
    opening: int | None
    uniforms: np.ndarray | None
    sampling: Sampling
    adapter: int = 0


@dataclass(eq=False)
class _Computed:
    """A row in the cache, with how many tokens of its own it has there and the token to be read next."""

    continuation: Continuation
    asked: Row
    n_read: int
    token: int = 0

    def take(self, token: int) -> None:
        self.token = token
        self.continuation.take(token, self.asked.sampling)


class RowDecoder:
    """Rows after one shared opening or none, each continued until it ends; others may join at any time.

    The draw inverts the distribution function at the row's own uniform number, so a row's tokens depend on its
    logits and numbers alone. Logits among different rows differ by rounding: in float32 that all but never changes a
    token, in bfloat16 now and then.
    """

    def __init__(self, model: Any, prefix: SharedPrefix | None, route: Route | None = None) -> None:
        """Prepare to decode.

        Args:
            model: causal language model with folded attention.
            prefix: as given to `read_prompts`; or None, and rows take in what their own prompts were read after.
            route: of a model with several adapters, told which row goes through which.
        """
        self._model, self._prefix, self._route = model, prefix, route
        self._n_prefix = 0 if prefix is None else prefix[0][0].shape[1]
        self._rows: list[_Computed] = []
        self._cache: Cache | None = None
        self._mask = torch.empty(0)
        self._n_columns = 0

    @property
    def n_active(self) -> int:
        """How many rows go on."""
        return sum(not row.continuation.ended for row in self._rows)

    def join(self, parts: Sequence[tuple[ReadPrompts, Sequence[Row]]]) -> list[list[Continuation]]:
        """Let rows join and draw the first token of each; return their continuations, which later steps write on.

        Args:
            parts: prompts, whose keys and values are used up, and what to continue of them.
        """
        joining, entering, states = [], [], []
        for read, rows in parts:
            before = [read.before(row.prompt, row.opening) for row in rows]
            # The cache begins with what the prompts were read after; what of that all rows share stays out of them.
            lead = list(range(self._n_prefix, read.n_prefix))
            width = len(lead) + max(map(len, before))
            columns = [
                [0] * (width - len(lead) - len(own)) + lead + [read.n_prefix + column for column in own]
                for own in before
            ]
            joining.append(Joining(read.cache, torch.tensor(columns, device=read.states.device)))
            states.append(read.states[[own[-1] for own in before]])
            entering += [
                _Computed(Continuation(), row, len(lead) + len(own)) for row, own in zip(rows, before, strict=True)
            ]
        self._draw(entering, torch.cat(states))
        self._arrange(joining, entering)
        found = iter(entering)
        return [[next(found).continuation for _ in rows] for _, rows in parts]

    def advance(self) -> None:
        """Let the model read the token drawn last in each row, and draw the next; at least one row must go on."""
        if self.n_active <= (1 - _MAX_ENDED) * len(self._rows) or self._n_columns == self._mask.shape[-1]:
            self._arrange([], [])
        self._mask[..., self._n_columns] = 0
        self._n_columns += 1
        device = self._mask.device
        if self._route is not None:
            self._route.send([row.asked.adapter for row in self._rows])
        states = self._model.get_decoder()(
            input_ids=torch.tensor([[row.token] for row in self._rows], device=device),
            position_ids=torch.tensor([[self._n_prefix + row.n_read] for row in self._rows], device=device),
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            shared_prefix=self._prefix,
        ).last_hidden_state[:, 0]
        for row in self._rows:
            row.n_read += 1
        going_on = [place for place, row in enumerate(self._rows) if not row.continuation.ended]
        self._draw([self._rows[place] for place in going_on], states[going_on])

    def _draw(self, rows: Sequence[_Computed], states: torch.Tensor) -> None:
        """Draw the next token of each row from its state."""
        logits = states @ self._model.get_output_embeddings().weight.T
        drawn = torch.empty(len(rows), dtype=torch.long, device=logits.device)
        ways: dict[tuple[float, float] | None, list[int]] = {}
        for place, row in enumerate(rows):
            sampling = row.asked.sampling
            way = None if row.asked.uniforms is None else (sampling.temperature, sampling.top_p)
            ways.setdefault(way, []).append(place)
        for way, places in ways.items():
            part = logits if len(places) == len(rows) else logits[places]
            if way is None:
                drawn[places] = part.float().argmax(dim=-1)
            else:
                numbers = [_next_number(rows[place]) for place in places]
                uniforms = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
                drawn[places] = draw(part, uniforms, rows[places[0]].asked.sampling)
        for row, token in zip(rows, drawn.tolist(), strict=True):
            row.take(token)

    def _arrange(self, joining: Sequence[Joining], entering: Sequence[_Computed]) -> None:
        """Keep only the rows that go on, let others join, and make room for the tokens to come."""
        kept = [place for place, row in enumerate(self._rows) if not row.continuation.ended]
        self._rows = [*(self._rows[place] for place in kept), *entering]
        self._n_columns = max(row.n_read for row in self._rows)
        device = self._model.device
        self._cache = rearrange(
            self._cache, torch.tensor(kept, dtype=torch.long, device=device), joining, self._n_columns, _ROOM
        )
        first = self._n_columns - torch.tensor([row.n_read for row in self._rows], device=device)
        column = torch.arange(self._n_columns + _ROOM, device=device)
        visible = (column >= first[:, None]) & (column < self._n_columns)
        self._mask = additive(visible[:, None], self._model.dtype)


def _next_number(row: _Computed) -> float:
    assert row.asked.uniforms is not None  # else its way is the most probable token's
    return row.asked.uniforms[len(row.continuation.tokens)]
