"""Sequences to trees of tokens: checked by hand on short sequences, and against sequences laid out one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capo_core.layout.prefix_tree import TokenGroup, additive, count_columns, lay_out, visibility


def test_layout_of_two_groups_by_hand() -> None:
    batch = lay_out([[TokenGroup([5, 6], [[9], [7, 8]])], [TokenGroup([4], [[3]])]])
    # depth first, branches in lexicographic order: 7 8 before 9
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [4, 3, 0, 0, 0]]
    # positions restart after the prompt: both responses of the first row begin at 2
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    # the prompt reaches to the end of the row, 7 and 8 to column 4; padding reaches no further than itself
    assert batch.end.tolist() == [[5, 5, 4, 4, 5], [2, 2, 3, 4, 5]]
    # in the order of the responses: 9 follows 6 (index 1); 7 follows 6, 8 follows 7 (index 2); 3 follows 4 (index 5)
    assert batch.predictor.tolist() == [1, 1, 2, 5]
    assert batch.target.tolist() == [9, 7, 8, 3]
    assert batch.scored.tolist() == [0, 1, 2, 3]
    assert batch.response.tolist() == [0, 1, 1, 2]
    assert batch.n_tokens.tolist() == [1, 2, 1]
    assert batch.paths == ([0, 1, 4], [0, 1, 2, 3], [0, 1])


def test_responses_that_begin_alike_share_columns_and_scores() -> None:
    batch = lay_out([[TokenGroup([5], [[7, 8, 1], [7, 9, 1], [7, 8, 1]])]])
    assert batch.input_ids.tolist() == [[5, 7, 8, 1, 9, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2, 3]]
    # scored columns: 7, 8, 1 of the first response, then 9, 1 of the second; the third adds none
    assert batch.target.tolist() == [7, 8, 1, 9, 1]
    assert batch.predictor.tolist() == [0, 1, 2, 1, 4]
    assert batch.scored.tolist() == [0, 1, 2, 0, 3, 4, 0, 1, 2]
    assert batch.n_tokens.tolist() == [3, 3, 3]


def test_an_item_comes_once_for_all_annotators() -> None:
    # the item 5 6, tags 10 and 11, the same responses under both
    groups = [TokenGroup([5, 6, 10], [[7], [8]]), TokenGroup([5, 6, 11], [[8], [7]])]
    batch = lay_out([groups])
    assert batch.input_ids.tolist() == [[5, 6, 10, 7, 8, 11, 7, 8]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3, 2, 3, 3]]
    assert batch.end.tolist() == [[8, 8, 5, 4, 5, 8, 7, 8]]
    # responses group by group: 7 and 8 after tag 10 (column 2), 8 and 7 after tag 11 (column 5)
    assert batch.predictor.tolist() == [2, 2, 5, 5]
    assert batch.target.tolist() == [7, 8, 8, 7]
    assert count_columns(groups) == 8


def test_trees_that_share_nothing_stand_in_one_row() -> None:
    batch = lay_out([[TokenGroup([4], [[3]]), TokenGroup([5], [[6]])]])
    assert batch.input_ids.tolist() == [[4, 3, 5, 6]]
    assert batch.position_ids.tolist() == [[0, 1, 0, 1]]
    assert batch.end.tolist() == [[2, 2, 4, 4]]


def test_a_token_sees_its_ancestors_and_itself_only() -> None:
    batch = lay_out([[TokenGroup([5, 6], [[7, 8], [9]])], [TokenGroup([1] * 6, [[2]])]])
    seen = ["".join(".x"[int(cell)] for cell in row) for row in visibility(batch.end)[0]]
    assert seen == [
        "x......",
        "xx.....",
        "xxx....",
        "xxxx...",
        "xx..x..",  # the second response: prompt and itself, nothing of the first
        ".....x.",  # padding sees itself, so that its row is not empty
        "......x",
    ]


def test_additive_mask_is_zero_or_the_least_number() -> None:
    mask = additive(torch.tensor([[[True, False]]]), torch.bfloat16)
    assert mask.shape == (1, 1, 1, 2)
    assert mask.flatten().tolist() == [0.0, torch.finfo(torch.bfloat16).min]


def test_layout_continues_after_a_shared_prefix() -> None:
    assert lay_out([[TokenGroup([5], [[7]])]], first_position=10).position_ids.tolist() == [[10, 11]]


@pytest.mark.parametrize("group", [TokenGroup([], [[1]]), TokenGroup([1], [[]])])
def test_layout_refuses_an_empty_prompt_or_response(group: TokenGroup) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        lay_out([[group]])


_TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=5)
_GROUPS = st.lists(st.tuples(_TOKENS, st.lists(_TOKENS, max_size=4)), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(_GROUPS, min_size=1, max_size=3))
def test_every_response_sees_exactly_its_own_sequence(content: list[list[tuple[list[int], list[list[int]]]]]) -> None:
    rows = [[TokenGroup(prompt, responses) for prompt, responses in row] for row in content]
    batch = lay_out(rows)
    visible = visibility(batch.end)
    number = 0
    for index, row in enumerate(rows):
        beginnings = set()
        for group in row:
            for response in group.responses or [[]]:
                sequence = [*group.prompt, *response]
                beginnings |= {tuple(sequence[:n]) for n in range(1, len(sequence) + 1)}
            for response in group.responses:
                path, sequence = batch.paths[number], [*group.prompt, *response]
                assert batch.input_ids[index][path].tolist() == sequence
                assert batch.position_ids[index][path].tolist() == list(range(len(sequence)))
                # each token of the sequence sees the sequence up to itself and nothing else of the row
                for depth, column in enumerate(path):
                    assert visible[index, column].nonzero()[:, 0].tolist() == path[: depth + 1]
                own = batch.scored[batch.response == number]
                assert batch.target[own].tolist() == response
                start = index * batch.input_ids.shape[1]
                assert (batch.predictor[own] - start).tolist() == path[len(group.prompt) - 1 : -1]
                number += 1
        # one column per distinct beginning: nothing is computed twice
        assert count_columns(row) == len(beginnings)
        assert int((visible[index].sum(dim=0) > 0).sum()) == batch.input_ids.shape[1]
