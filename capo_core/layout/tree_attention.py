"""Attention over one row of prefix trees, block by block: keys that a block of tokens cannot see are never touched.

Columns stand in depth-first order (`prefix_tree`). What the columns a, …, b - 1 see is among the ancestors of a and
themselves, so any cut of the row into contiguous blocks gives each block its keys. Everything between the attention
layers then runs over the row without padding.

Notation: L columns, H query heads, K key-value heads, F = H / K query heads folded onto each, D head dimension, n
columns of a block, S keys of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

BLOCK_COST = 4096
"""What a block costs beyond its products, in scores (query × key) of equal time: some 60 × 60, measured on CPU."""


@dataclass(frozen=True, eq=False)
class TreeBlock:
    """Contiguous columns and what they may see.

    Attributes:
        start: first column.
        stop: one past the last column.
        keys: (S,) columns of the ancestors of `start`, then the block's own.
        mask: (n, S) additive: 0 where a column sees a key, the dtype's minimum elsewhere.
    """

    start: int
    stop: int
    keys: torch.Tensor
    mask: torch.Tensor


def cut_into_blocks(end: torch.Tensor, dtype: torch.dtype) -> list[TreeBlock]:
    """Return the cut of a row with the least cost Σ n · S + `BLOCK_COST`, among cuts before branches.

    Args:
        end: (L,) one past the last column below each column.
        dtype: of the masks.
    """
    columns = torch.arange(len(end), device=end.device)
    # The column before a branch other than the first of its parent is a leaf.
    is_start = torch.cat([columns.new_ones(1, dtype=torch.bool), end[:-1] == columns[1:]])
    starts = columns[is_start].tolist()
    depths = [int((end[:start] > start).sum()) for start in starts]
    blocks = []
    for start, stop in _cheapest_cut(starts, depths, len(end)):
        ancestors = columns[:start][end[:start] > start]
        keys = torch.cat([ancestors, columns[start:stop]])
        queries = columns[start:stop, None]
        unseen = (keys > queries) | (end[keys] <= queries)
        mask = torch.zeros(unseen.shape, dtype=dtype, device=end.device).masked_fill_(unseen, torch.finfo(dtype).min)
        blocks.append(TreeBlock(start, stop, keys, mask))
    return blocks


def _cheapest_cut(starts: Sequence[int], depths: Sequence[int], n_columns: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each block, by dynamic programming over the last cut."""
    bounds = [*starts, n_columns]
    least = [0.0] + [float("inf")] * len(starts)
    cut = [0] * len(bounds)
    for last in range(1, len(bounds)):
        for first in range(last):
            n = bounds[last] - bounds[first]
            cost = least[first] + n * (depths[first] + n) + BLOCK_COST
            if cost < least[last]:
                least[last], cut[last] = cost, first
    found = []
    place = len(starts)
    while place:
        found.append((bounds[cut[place]], bounds[place]))
        place = cut[place]
    return found[::-1]


def see_by_blocks(blocks: Sequence[TreeBlock]) -> dict[str, Any]:
    """Return the arguments of a model's forward pass under which the blocks alone decide who sees whom."""
    # transformers takes a 4-D mask as it is, so nothing of the row's length squared is built.
    return {"attention_mask": blocks[0].mask.new_zeros(1, 1, 1, 1), "tree_blocks": blocks}


def attend_to_tree(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[TreeBlock]
) -> torch.Tensor:
    """Return softmax(Q Kᵀ + M) V as (1, L, H, D), M hiding all but ancestors.

    Args:
        query: (1, H, L, D), scaled.
        key: (1, K, L, D).
        value: (1, K, L, D).
        blocks: a cut of the row.

    Raises:
        ValueError: if there is more than one row.
    """
    if query.shape[0] != 1:
        raise ValueError(f"a cut is of one row, got {query.shape[0]}")
    attended: Any = _TreeAttention.apply(query[0], key[0], value[0], blocks)
    return attended[None]


class _TreeAttention(torch.autograd.Function):
    """Attention block by block; the backward pass adds up the gradients of keys that several blocks see in place."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[TreeBlock]
    ) -> torch.Tensor:
        n_heads, n_columns, size = query.shape
        n_kv = key.shape[0]
        output = query.new_empty(n_columns, n_heads, size)
        kept = []
        for block in blocks:
            n = block.stop - block.start
            folded = query[:, block.start : block.stop].reshape(n_kv, -1, size)  # (K, F·n, D)
            scores = folded @ key.index_select(1, block.keys).transpose(1, 2)
            scores.view(n_kv, -1, n, len(block.keys)).add_(block.mask)
            # In half precision PyTorch's kernel sums in float32 and rounds once.
            weights = torch.softmax(scores, dim=-1)
            attended = weights @ value.index_select(1, block.keys)
            output[block.start : block.stop] = attended.view(n_heads, n, size).transpose(0, 1)
            kept.append(weights)
        ctx.blocks = blocks
        ctx.save_for_backward(query, key, value, *kept)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, *kept = ctx.saved_tensors
        n_heads, _, size = query.shape
        n_kv = key.shape[0]
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block, weights in zip(ctx.blocks, kept, strict=True):
            n = block.stop - block.start
            folded = query[:, block.start : block.stop].reshape(n_kv, -1, size)
            slope = grad_outputs[0][block.start : block.stop].transpose(0, 1).reshape(n_kv, -1, size)
            of_value.index_add_(1, block.keys, weights.transpose(1, 2) @ slope)
            of_weights = slope @ value.index_select(1, block.keys).transpose(1, 2)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_key.index_add_(1, block.keys, of_scores.transpose(1, 2) @ folded)
            of_folded = of_scores @ key.index_select(1, block.keys)
            of_query[:, block.start : block.stop] = of_folded.view(n_heads, n, size)
        return of_query, of_key, of_value, None
