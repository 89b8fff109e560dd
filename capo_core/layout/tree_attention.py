"""Attention over one row of prefix trees, block by block: keys that a block of tokens cannot see are never touched.

Columns stand in depth-first order (`prefix_tree`). What the columns a, …, b - 1 see is among the ancestors of a and
themselves, so any cut of the row into contiguous blocks gives each block its keys. Everything between the attention
layers then runs over the row without padding.

Notation: L columns, H query heads, K key-value heads, F = H / K query heads folded onto each, D head dimension, n
columns of a block, S keys of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

BLOCK_COST = 8192
"""What a block costs beyond its products, in scores (query × key) of equal time: some 90 × 90, measured on CPU."""


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
        query: (1, H, L, D).
        key: (1, K, L, D), scaled.
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
    """Attention block by block over rows (K, L · F, D), in which a block is a slice: copies are made once a layer."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[TreeBlock]
    ) -> torch.Tensor:
        n_heads, n_columns, size = query.shape
        n_kv = key.shape[0]
        folds = n_heads // n_kv
        columns = torch.cat([block.keys for block in blocks])
        keys, values = key.index_select(1, columns), value.index_select(1, columns)  # (K, Σ S, D)
        folded = query.view(n_kv, folds, n_columns, size).transpose(1, 2).reshape(n_kv, -1, size)
        attended, kept = [], []
        for block, seen in zip(blocks, _seen(blocks), strict=True):
            scores = torch.bmm(folded[:, block.start * folds : block.stop * folds], keys[:, seen].transpose(1, 2))
            scores.view(n_kv, -1, folds, len(block.keys)).add_(block.mask[:, None])
            # In half precision PyTorch's kernel sums in float32 and rounds once.
            weights = torch.softmax(scores, dim=-1)
            attended.append(torch.bmm(weights, values[:, seen]))
            kept.append(weights)
        ctx.blocks = blocks
        ctx.save_for_backward(folded, key, value, columns, *kept)
        output = torch.cat(attended, dim=1).view(n_kv, n_columns, folds, size)
        return output.transpose(0, 1).reshape(n_columns, n_heads, size)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        folded, key, value, columns, *kept = ctx.saved_tensors
        n_columns, n_heads, size = grad_outputs[0].shape
        n_kv = key.shape[0]
        folds = n_heads // n_kv
        keys, values = key.index_select(1, columns), value.index_select(1, columns)
        slopes = grad_outputs[0].view(n_columns, n_kv, folds, size).transpose(0, 1).reshape(n_kv, -1, size)
        of_queries, of_keys, of_values = [], [], []
        for block, seen, weights in zip(ctx.blocks, _seen(ctx.blocks), kept, strict=True):
            own = slice(block.start * folds, block.stop * folds)
            slope = slopes[:, own]
            of_values.append(torch.bmm(weights.transpose(1, 2), slope))
            of_weights = torch.bmm(slope, values[:, seen].transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_keys.append(torch.bmm(of_scores.transpose(1, 2), folded[:, own]))
            of_queries.append(torch.bmm(of_scores, keys[:, seen]))
        of_query = torch.cat(of_queries, dim=1).view(n_kv, n_columns, folds, size).transpose(1, 2)
        # A key that several blocks see has a gradient from each.
        of_key, of_value = (
            torch.zeros_like(seen).index_add_(1, columns, torch.cat(parts, dim=1))
            for seen, parts in ((key, of_keys), (value, of_values))
        )
        return of_query.reshape(n_heads, n_columns, size), of_key, of_value, None


def _seen(blocks: Sequence[TreeBlock]) -> Iterator[slice]:
    """Yield where each block's keys stand when those of all blocks are one below the other."""
    start = 0
    for block in blocks:
        yield slice(start, start + len(block.keys))
        start += len(block.keys)
