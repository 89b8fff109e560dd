"""Attention block by block equals attention under the whole mask, forwards and backwards, however the row is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capo_core.layout import tree_attention
from capo_core.layout.attention import folded_attention
from capo_core.layout.prefix_tree import TokenGroup, lay_out, visibility
from capo_core.layout.tree_attention import attend_to_tree, cut_into_blocks


def make_row(n_items: int = 3, n_tags: int = 2, n_responses: int = 3) -> torch.Tensor:
    """Return `end` of a row: an instruction, items below it, tags below each, responses below each."""
    groups = [
        TokenGroup([1] * 9 + [item, 5, 5, 5] + [tag], [[10 + r] * (2 + r) for r in range(n_responses)])
        for item in range(2, 2 + n_items)
        for tag in range(20, 20 + n_tags)
    ]
    return lay_out([groups]).end[0]


def whole(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the attention PyTorch computes under the mask of the whole row, (1, L, H, D)."""
    folds = query.shape[1] // key.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(folds, 1), value.repeat_interleave(folds, 1),
        attn_mask=visibility(end[None])[:, None], scale=1.0,
    ).transpose(1, 2)  # fmt: skip


@pytest.mark.parametrize("block_cost", [0, 100, 10**9])
def test_blocks_equal_the_whole_mask_in_value_and_gradient(block_cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_attention, "BLOCK_COST", block_cost)
    end = make_row()
    torch.manual_seed(0)
    size = (1, 4, len(end), 8)
    query = torch.randn(size, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(1, 2, len(end), 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    blocks = cut_into_blocks(end, torch.float64)
    assert (len(blocks) == 1) == (block_cost == 10**9)
    ours, theirs = attend_to_tree(query, key, value, blocks), whole(query, key, value, end)
    assert torch.allclose(ours, theirs, atol=1e-12)
    slope = torch.randn(ours.shape, dtype=torch.float64)
    for found, expected in zip(
        torch.autograd.grad(ours, (query, key, value), slope),
        torch.autograd.grad(theirs, (query, key, value), slope),
        strict=True,
    ):
        assert torch.allclose(found, expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 2), min_size=1, max_size=5),
            st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=4), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 60),
)
def test_every_column_is_in_one_block_with_all_it_may_see(groups: list, block_cost: int) -> None:
    end = lay_out([[TokenGroup(prompt, responses) for prompt, responses in groups]]).end[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "BLOCK_COST", block_cost)
        blocks = cut_into_blocks(end, torch.float32)
    assert [c for block in blocks for c in range(block.start, block.stop)] == list(range(len(end)))
    seen = torch.zeros(len(end), len(end), dtype=torch.bool)
    for block in blocks:
        rows = torch.arange(block.start, block.stop)
        seen[rows[:, None], block.keys[None, :]] = block.mask == 0
    assert torch.equal(seen, visibility(end[None])[0])


def test_the_cut_is_the_cheapest() -> None:
    # Two roots of 3 and 5 columns. In two blocks 3 · 3 + 5 · 5 = 34 scores and two blocks, in one 8 · 8 = 64 and one:
    # one block is cheaper from a cost of 30 on.
    end = torch.tensor([3, 3, 3, 8, 8, 8, 8, 8])
    with pytest.MonkeyPatch.context() as patch:
        for cost, expected in ((29, [(0, 3), (3, 8)]), (31, [(0, 8)])):
            patch.setattr(tree_attention, "BLOCK_COST", cost)
            assert [(b.start, b.stop) for b in cut_into_blocks(end, torch.float32)] == expected


def test_what_would_be_wrong_is_refused() -> None:
    end = make_row()
    blocks = cut_into_blocks(end, torch.float32)
    rows = torch.randn(2, 4, len(end), 8)
    with pytest.raises(ValueError, match="one row, got 2"):
        attend_to_tree(rows, rows, rows, blocks)
    with pytest.raises(ValueError, match="no dropout"):
        folded_attention(torch.nn.Module(), rows[:1], rows[:1], rows[:1], None, dropout=0.1, tree_blocks=blocks)
