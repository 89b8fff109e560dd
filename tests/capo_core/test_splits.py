"""Splits by whole contexts."""

from __future__ import annotations

from itertools import combinations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capo_core.errors import CorpusError
from capo_core.quality import add_context_ids
from capo_core.splits import assign_splits, nearest_sum, require_disjoint_splits
from schemas.config import SplitConfig
from schemas.frames import ANNOTATIONS, CORPUS


def make_annotations(n_items: int, items_per_context: int = 1) -> pl.DataFrame:
    """Return items with two annotations each; `items_per_context` neighbours share their first text."""
    rows = [
        {
            "item_id": f"{i:04}",
            "text_a": f"context {i // items_per_context}",
            "text_b": f"statement {i}",
            "annotator_id": annotator,
            "label": "neutral",
            "explanation": "e",
            "source_file": "f",
            "source_line": i,
            "source_id": str(i),
            "metadata": "{}",
        }
        for i in range(n_items)
        for annotator in ("a", "b")
    ]
    return add_context_ids(pl.DataFrame(rows)).select(list(ANNOTATIONS))


def sizes(corpus: pl.DataFrame) -> dict[str, int]:
    return dict(corpus.group_by("split").agg(pl.col("item_id").n_unique()).rows())


@pytest.mark.parametrize("items_per_context", [1, 2, 5])
def test_500_items_split_300_100_100_as_in_the_paper(items_per_context: int) -> None:
    corpus = assign_splits(make_annotations(500, items_per_context), SplitConfig())

    assert sizes(corpus) == {"train": 300, "validation": 100, "test": 100}
    assert corpus.height == 1000
    assert dict(corpus.schema) == CORPUS
    require_disjoint_splits(corpus)


def test_split_depends_on_items_and_seed_not_on_row_order() -> None:
    frame = make_annotations(60, 2)
    corpus = assign_splits(frame, SplitConfig(seed=3), 40)

    assert corpus.equals(assign_splits(frame.sample(fraction=1.0, shuffle=True, seed=1), SplitConfig(seed=3), 40))
    assert not corpus.equals(assign_splits(frame, SplitConfig(seed=4), 40))


def test_sample_takes_whole_contexts_up_to_the_limit() -> None:
    corpus = assign_splits(make_annotations(60, 3), SplitConfig(), 20)

    # Contexts of three: 18 is the largest multiple of 3 up to 20.
    assert corpus["item_id"].n_unique() == 18
    assert corpus.group_by("context_id").agg(pl.col("item_id").n_unique())["item_id"].unique().to_list() == [3]


def test_shares_that_no_contexts_meet_are_met_as_nearly_as_possible() -> None:
    # 30 items in 10 contexts of 3: 20 % are 6 items, two contexts each for test and validation.
    assert sizes(assign_splits(make_annotations(30, 3), SplitConfig())) == {"train": 18, "validation": 6, "test": 6}
    # 12 items in 3 contexts of 4: 20 % are 2.4; one context each is the nearest that is not empty.
    assert sizes(assign_splits(make_annotations(12, 4), SplitConfig())) == {"train": 4, "validation": 4, "test": 4}


@pytest.mark.parametrize(("n_items", "items_per_context"), [(2, 1), (40, 20), (1, 1)])
def test_too_few_contexts_are_an_error_that_says_what_is_needed(n_items: int, items_per_context: int) -> None:
    with pytest.raises(CorpusError, match="At least 3 items that share no text are needed"):
        assign_splits(make_annotations(n_items, items_per_context), SplitConfig())


def test_limit_below_every_context_is_an_error() -> None:
    with pytest.raises(CorpusError, match="raise max_items"):
        assign_splits(make_annotations(60, 20), SplitConfig(), 10)


def test_text_in_two_splits_is_found_in_either_position_and_form() -> None:
    corpus = pl.DataFrame({"text_a": ["p", "x"], "text_b": ["the  same", "y"], "split": ["train", "validation"]})
    require_disjoint_splits(corpus)
    leaking = corpus.vstack(pl.DataFrame({"text_a": ["the same "], "text_b": ["z"], "split": ["test"]}))
    with pytest.raises(CorpusError, match=r"1 text\(s\) stand in two splits; the first, in test and train: 'the same'"):
        require_disjoint_splits(leaking)


def test_a_large_target_is_met_beside_sizes_of_every_kind() -> None:
    ones = [1] * 60_000
    for sizes in (ones, [50_000, *ones], [40_000, 30_000, *ones[:100]], [7] * 40_000, [90_000, 80_000]):
        for at_most in (False, True):
            chosen = nearest_sum(sizes, 30_000, at_most=at_most)
            total = sum(sizes[index] for index in chosen)
            assert chosen == sorted(set(chosen))
            # 30,000 = 1 × 30,000; of sevens 4,286 × 7 = 30,002 or, at most, 4,285 × 7 = 29,995; of few and large ones
            # the second of the third list, 30,000, and of the last 80,000 or none.
            expected = {7: 29_995 if at_most else 30_002, 90_000: 0 if at_most else 80_000}
            assert total == expected.get(sizes[0], 30_000)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 30), st.booleans())
def test_nearest_sum_is_as_near_as_any_selection(values: list[int], target: int, at_most: bool) -> None:
    chosen = nearest_sum(values, target, at_most=at_most)

    sums = {
        sum(values[i] for i in selection)
        for size in range(1, len(values) + 1)
        for selection in combinations(range(len(values)), size)
    }
    allowed = {total for total in sums if total <= target} if at_most else sums
    assert len(set(chosen)) == len(chosen)
    if not allowed:
        assert chosen == []
    else:
        best = min(abs(total - target) for total in allowed)
        assert abs(sum(values[i] for i in chosen) - target) == best
        assert sum(values[i] for i in chosen) in allowed
