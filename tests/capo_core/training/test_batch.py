"""Groups to batches: families and the tensors of a part, checked by hand."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capo_core.training.batch import families_per_batch, gather_families, split_into_parts
from capo_core.training.collate import PreferenceGroup


def bare(item: str, n_prompt: int, token: int) -> PreferenceGroup:
    """Return a group of one response of one token after a prompt that begins with the same token."""
    return PreferenceGroup([token] * n_prompt, [(token,)], (item,))


def test_groups_of_an_item_are_a_family_in_order_of_appearance() -> None:
    one, two, three = bare("b", 1, 2), bare("a", 1, 3), bare("b", 1, 4)
    assert gather_families([one, two, three]) == [(one, three), (two,)]


def test_a_batch_has_about_as_many_groups_as_asked_for() -> None:
    families = [(bare("a", 1, 2),) * 4, (bare("b", 1, 2),) * 3, (bare("c", 1, 2),) * 5]
    # 4 groups a family on average: two families for 8 or 9, three for 11, and never none
    assert [families_per_batch(families, n) for n in (8, 9, 11, 1)] == [2, 2, 3, 1]


def test_part_numbers_responses_over_its_groups() -> None:
    first = PreferenceGroup([5], [(7,), (8, 9), (6,)], ("a",), (1, 2, 1), (0.25, 0.5, 0.25), (-1.0, -2.0, -3.0))
    second = PreferenceGroup([5], [(7, 7), (8,)], ("a",), (1,), (1.0,), (-4.0, -5.0))
    (part,) = split_into_parts([(first, second)], torch.float32, 100)
    assert part.groups == (first, second)
    # two annotators answered with the first group's first rejected response; the chosen one fills up the second group
    assert part.place.tolist() == [[0, 1, 2, 1], [3, 4, 3, 3]]
    assert part.weights.tolist() == [[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]
    assert part.reference_logps.tolist() == [-1.0, -2.0, -3.0, -4.0, -5.0]
    # response tokens in order: 7 | 8 9 | 6 | 7 7 | 8
    assert part.is_chosen.tolist() == [True, False, False, False, True, True, False]
    assert part.n_chosen_tokens == 3


def test_parts_are_filled_in_order_within_the_budget_and_share_what_they_can() -> None:
    families = [(bare("a", 29, 9),), (bare("b", 19, 8),), (bare("c", 9, 8),), (bare("d", 9, 7),)]
    parts = split_into_parts(families, torch.float32, 60)
    # with the response 30, 20, 10 and 10 columns; the third is the beginning of the second: 30 + 20 + 0 + 10 = 60
    assert [part.layout.input_ids.shape for part in parts] == [(1, 60)]
    parts = split_into_parts(families, torch.float32, 55)
    assert [[group.key[0] for group in part.groups] for part in parts] == [["a", "b", "c"], ["d"]]


def test_a_family_beyond_the_budget_has_a_part_of_its_own() -> None:
    families = [(bare("long", 100, 9),), (bare("short", 5, 8),), (bare("other", 40, 7),)]
    parts = split_into_parts(families, torch.float32, 50)
    assert [[group.key[0] for group in part.groups] for part in parts] == [["long"], ["short", "other"]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(10, 200))
def test_every_group_is_in_one_part_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    families = [(bare(str(i), n, i + 2),) for i, n in enumerate(lengths)]
    parts = split_into_parts(families, torch.float32, max_tokens)
    assert [group.key[0] for part in parts for group in part.groups] == [str(i) for i in range(len(lengths))]
    for part in parts:
        assert part.layout.input_ids.numel() <= max(max_tokens, max(lengths) + 1)
        assert len(part.layout.n_tokens) == len(part.groups)
