"""The window of keys and values, cell by cell."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from capo_core.generation.row_cache import Joining, rearrange


def one_row(*tokens: float) -> DynamicCache:
    """Return a cache of one layer with one head of dimension 1; keys are the tokens, values their negatives."""
    cache = DynamicCache()
    keys = torch.tensor(tokens).view(1, 1, -1, 1)
    cache.update(keys, -keys, 0)
    return cache


def keys_of(cache: Any) -> list[list[float]]:
    layer = cache.layers[0]
    assert torch.equal(layer.values, -layer.keys)
    assert layer.keys.is_contiguous()
    return layer.keys[:, 0, :, 0].tolist()


def write(cache: Any, *tokens: float) -> None:
    keys = torch.tensor(tokens).view(-1, 1, 1, 1)
    cache.update(keys, -keys, 0)


def test_rows_end_in_the_same_column_and_write_the_next() -> None:
    none = torch.tensor([], dtype=torch.long)
    # columns 0, 1, 2 and 0, 3 of a row of four; the second is shorter, what stands before it is any column
    cache = rearrange(None, none, [Joining(one_row(1, 2, 3, 4), torch.tensor([[0, 1, 2], [0, 0, 3]]))], 3, 2)
    assert keys_of(cache) == [[1, 2, 3, 0, 0], [1, 1, 4, 0, 0]]
    write(cache, 5, 6)
    assert keys_of(cache) == [[1, 2, 3, 5, 0], [1, 1, 4, 6, 0]]
    # The first row ends. The second has three tokens (1, 4, 6), two of another prompt join: the window is three wide.
    cache = rearrange(cache, torch.tensor([1]), [Joining(one_row(7, 8), torch.tensor([[0, 1]]))], 3, 2)
    assert keys_of(cache) == [[1, 4, 6, 0, 0], [0, 7, 8, 0, 0]]
    write(cache, 9, 10)
    # A wider row joins: what is there moves to the right.
    cache = rearrange(cache, torch.tensor([1, 0]), [Joining(one_row(*range(20, 25)), torch.arange(5)[None])], 5, 2)
    assert keys_of(cache) == [[0, 0, 7, 8, 10, 0, 0], [0, 1, 4, 6, 9, 0, 0], [20, 21, 22, 23, 24, 0, 0]]
