"""Keys and values of rows that start and end at different times, in one window that moves on with every token.

    column      0 1 2 3 4 5 6 7 8
    row a       . . p p p t t t      p: read with the prompt, t: drawn since
    row b       p p p p p p p t      . and what lies right of the last token is masked
    row c       . . . . p p p p      (has just joined)

All rows write the same next column, so a step copies nothing and the window is contiguous, which products in half
precision need on CPU: of a slice they make a copy, which took four times as long as the product.

Notation: R rows, K key-value heads, D head dimension, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True, eq=False)
class Joining:
    """Rows to be made of a cache of one row: `columns` (R, n) of each, the last token in the last place.

    Where a row is shorter than n, what stands before its first token is any column.
    """

    cache: Cache
    columns: torch.Tensor


class _Window(DynamicLayer):
    """One layer: keys and values (R, K, C, D), written up to `used`; all columns are handed out."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.used = keys, values, used

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[:, :, self.used] = key_states[:, :, 0]
        self.values[:, :, self.used] = value_states[:, :, 0]
        self.used += 1
        return self.keys, self.values


def rearrange(cache: Cache | None, kept: torch.Tensor, joining: Sequence[Joining], width: int, room: int) -> Cache:
    """Return the cache of the rows kept, in their new order, and after them the rows that join.

    Args:
        cache: of an earlier call, emptied; None if there is none.
        kept: (R,) which of its rows.
        joining: what joins; emptied, each cache in one place only.
        width: columns for the tokens there are, at least as many as any row has.
        room: columns for tokens to come.
    """
    layers: list[Any] = cache.layers if cache is not None else joining[0].cache.layers
    used = layers[0].used if cache is not None else 0
    arranged = []
    for number, layer in enumerate(layers):
        both = []
        for name in ("keys", "values"):
            old = getattr(layer, name)[:, :, max(0, used - width) : used] if len(kept) else None
            new = [_take(getattr(part.cache.layers[number], name)[0], part.columns) for part in joining]
            both.append(_line_up(([old.index_select(0, kept)] if old is not None else []) + new, width, room))
        arranged.append(_Window(both[0], both[1], width))
        emptied: list[Any] = [layer, *(part.cache.layers[number] for part in joining)]
        for source in emptied:
            source.keys = source.values = None  # freed layer by layer: two whole caches need not fit
    return Cache(layers=arranged)


def _take(tensor: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the given columns (R, n) of one row's keys or values (K, C, D) as (R, K, n, D)."""
    taken = tensor.index_select(1, columns.flatten())
    return taken.view(len(tensor), *columns.shape, -1).transpose(0, 1)


def _line_up(parts: Sequence[torch.Tensor], width: int, room: int) -> torch.Tensor:
    """Return the parts (R, K, n, D) below each other, each ending in column `width`, with room after it."""
    first = parts[0]
    n_rows = sum(map(len, parts))
    lined = first.new_zeros(n_rows, first.shape[1], width + room, first.shape[3])
    start = 0
    for part in parts:
        n = part.shape[2]
        lined[start : start + len(part), :, width - n : width] = part
        start += len(part)
    return lined
