"""Attention as plain batched matrix products: fast in bfloat16 on CPU, over prefix trees or after a shared prefix.

Registered with transformers under `FOLDED`, like its own implementations.

Notation: B rows, H query heads, K key-value heads, F = H / K query heads folded onto each, Q query tokens, S keys,
P keys of the shared prefix, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from capo_core.layout.tree_attention import TreeBlock, attend_to_tree

FOLDED = "capo_folded"
"""Name of the implementation (`attn_implementation`)."""

SharedPrefix = list[tuple[torch.Tensor, torch.Tensor]]
"""Per layer the keys and values (K, P, D) of a prompt opening that all rows of a batch have in common."""

MAX_SCORES = 2**27
"""Scores held at once without gradients; more query tokens than fit are taken in turn (512 MiB in float32)."""


def folded_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: SharedPrefix | None = None,
    tree_blocks: Sequence[TreeBlock] | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Return softmax(Q Kᵀ · scaling + M) V as (B, Q, H, D).

    The F query heads of a key-value head are rows of one product, so keys and values are never repeated. Keys of
    the shared prefix are visible to every token and exist once: their product runs over the whole batch.

    Args:
        module: the attention layer; its `layer_idx` picks the layer's prefix.
        query: (B, H, Q, D).
        key: (B, K, S, D).
        value: (B, K, S, D).
        attention_mask: additive, (B or 1, 1, Q, ≥ S), 0 or a large negative number; None only if Q is 1.
        scaling: usually D^-1/2.
        dropout: on the attention weights.
        shared_prefix: keys and values by layer, or None.
        tree_blocks: the cut of a single row of prefix trees, which then decides alone who sees whom.
        kwargs: what other implementations take; ignored.

    Raises:
        ValueError: if the mask is missing or boolean, which would be silently wrong, or trees are given and dropout.
    """
    n_queries, scale = query.shape[2], query.shape[-1] ** -0.5 if scaling is None else scaling
    if tree_blocks is not None:
        if dropout:
            raise ValueError(f"attention over prefix trees has no dropout, got {dropout}")
        return attend_to_tree(query, key * scale, value, tree_blocks), None  # there are fewer heads of keys
    query = query * scale
    if attention_mask is None and n_queries > 1:
        raise ValueError("folded attention needs a 4-D mask for more than one query token")
    if attention_mask is not None and not attention_mask.is_floating_point():
        raise ValueError(f"folded attention needs an additive float mask, got {attention_mask.dtype}")
    prefix = shared_prefix[module.layer_idx] if shared_prefix is not None else None  # pyright: ignore[reportArgumentType, reportCallIssue]
    per_query = query.shape[0] * query.shape[1] * (key.shape[2] + (0 if prefix is None else prefix[0].shape[1]))
    step = n_queries if torch.is_grad_enabled() else max(1, MAX_SCORES // per_query)
    parts = []
    for start in range(0, n_queries, step):
        mask = None if attention_mask is None else attention_mask[:, :, start : start + step, : key.shape[2]]
        parts.append(_attend(query[:, :, start : start + step], key, value, mask, prefix, dropout))
    output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return output.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    prefix: tuple[torch.Tensor, torch.Tensor] | None,
    dropout: float,
) -> torch.Tensor:
    """Return the attended values (B, H, Q, D) of scaled queries."""
    n_rows, n_heads, n_queries, size = query.shape
    n_kv, n_keys = key.shape[1], key.shape[2]
    folded = query.reshape(n_rows, n_kv, -1, size)  # (B, K, F·Q, D)
    scores = folded @ key.transpose(2, 3)
    if mask is not None:
        scores = (scores.view(n_rows, n_kv, -1, n_queries, n_keys) + mask[:, :, None]).view(scores.shape)
    if prefix is None:
        weights = _normalise(scores, dropout)
        return (weights @ value).view(query.shape)
    prefix_key, prefix_value = prefix
    across = folded.transpose(0, 1).reshape(n_kv, -1, size)  # (K, B·F·Q, D)
    prefix_scores = (across @ prefix_key.transpose(1, 2)).view(n_kv, n_rows, -1, prefix_key.shape[1]).transpose(0, 1)
    weights = _normalise(torch.cat([prefix_scores, scores], dim=-1), dropout)
    of_prefix, of_own = weights.split([prefix_key.shape[1], n_keys], dim=-1)
    from_prefix = of_prefix.transpose(0, 1).reshape(n_kv, -1, prefix_key.shape[1]) @ prefix_value
    attended = of_own @ value + from_prefix.view(n_kv, n_rows, -1, size).transpose(0, 1)
    return attended.reshape(n_rows, n_heads, n_queries, size)


def _normalise(scores: torch.Tensor, dropout: float) -> torch.Tensor:
    # In half precision PyTorch's kernels sum in float32 and round once; widening the scores first only costs memory.
    weights = torch.softmax(scores, dim=-1).to(scores.dtype)
    return nn.functional.dropout(weights, dropout) if dropout else weights


AttentionInterface.register(FOLDED, folded_attention)
# What a model builds by itself from a 2-D mask (or none): the additive 4-D mask of eager attention.
AttentionMaskInterface.register(FOLDED, eager_mask)
