"""Folded attention: what it computes, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from capo_core.layout.attention import folded_attention
from capo_core.layout.prefix_tree import visibility


def test_folded_attention_refuses_masks_that_would_be_silently_wrong() -> None:
    module = torch.nn.Module()
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    with pytest.raises(ValueError, match="additive float mask"):
        folded_attention(module, query, key, key, visibility(torch.tensor([[3, 3, 3]]))[:, None])
    with pytest.raises(ValueError, match="4-D mask"):
        folded_attention(module, query, key, key, None)


def test_folded_attention_takes_query_tokens_in_turn_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    mask = torch.zeros(2, 1, 7, 7).masked_fill(torch.ones(7, 7).triu(1).bool(), torch.finfo(torch.float32).min)
    whole = folded_attention(torch.nn.Module(), query, key, value, mask)[0]
    monkeypatch.setattr("capo_core.layout.attention.MAX_SCORES", 2 * 4 * 7 * 2)  # two query tokens at a time
    with torch.no_grad():
        in_turn = folded_attention(torch.nn.Module(), query, key, value, mask)[0]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=mask
    ).transpose(1, 2)
    assert torch.allclose(whole, expected, atol=1e-6)
    assert torch.allclose(in_turn, expected, atol=1e-6)
