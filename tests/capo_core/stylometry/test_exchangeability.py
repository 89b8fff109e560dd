"""The permutation test of attribution: its arithmetic, and its level where there is no style."""

from __future__ import annotations

import numpy as np
import pytest

from capo_core.stylometry.exchangeability import exchangeability_p_value, permute_within_blocks
from capo_core.stylometry.folding import Folding, chained_splits, crossed_splits, leave_strata_out


def test_owners_change_places_within_blocks_only() -> None:
    owners, blocks = np.array([0, 1, 2, 0, 1, 2, 2]), np.array([7, 7, 7, 3, 3, 9, 3])
    permuted = permute_within_blocks(owners, blocks, 300, np.random.default_rng(0))
    assert permuted.shape == (300, 7)
    for block in (3, 7, 9):
        inside = permuted[:, blocks == block]
        assert (np.sort(inside, axis=1) == np.sort(owners[blocks == block])).all()
    assert (permuted[:, 5] == 2).all()  # alone in his block
    # three owners in block 7: each stands in each place in a third of the permutations
    assert np.array([(permuted[:, 0] == owner).mean() for owner in range(3)]) == pytest.approx(1 / 3, abs=0.09)


def test_p_value_is_the_share_of_permutations_as_accurate() -> None:
    # Two items of two authors, all four verdicts right. Permuted, each item is all right or all wrong with equal
    # chance: all right 1/4. With every one of the four patterns once: p = (1 + 1) / (1 + 4).
    owners = verdicts = np.array([0, 1, 0, 1])
    patterns = np.array([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]], dtype=np.int8)
    assert exchangeability_p_value(verdicts, owners, patterns) == pytest.approx(2 / 5)
    # One item right and one wrong: three of four patterns are as accurate.
    assert exchangeability_p_value(np.array([0, 1, 1, 0]), owners, patterns) == pytest.approx(4 / 5)


def test_every_author_weighs_the_same() -> None:
    # Author 0 wrote one, author 1 three. Verdict 0 on all: mean of 1/1 and 0/3. Where another row is 0's, the same: the
    # statistic cannot tell, p = 1.
    owners = np.array([0, 1, 1, 1])
    permuted = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]], dtype=np.int8)
    assert exchangeability_p_value(np.zeros(4, dtype=int), owners, permuted) == 1.0
    # Verdicts 0 1 0 0: observed 1 + 1/3; second pattern (row 1 is 0's) gives 0 + 0; third: 1/1 + 1/3, as much.
    assert exchangeability_p_value(np.array([0, 1, 0, 0]), owners, permuted) == pytest.approx((1 + 2) / 4)


def test_explanations_without_verdict_do_not_count() -> None:
    owners = np.array([0, 1, 0, 1])
    patterns = np.array([[0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]], dtype=np.int8)
    # Of the second item only; it is right in two patterns of four.
    assert exchangeability_p_value(np.array([-1, -1, 0, 1]), owners, patterns) == pytest.approx(3 / 5)
    assert np.isnan(exchangeability_p_value(np.full(4, -1), owners, patterns))


def test_chain_judges_each_fold_by_those_before_it() -> None:
    fold_of = np.array([2, 0, 1, 0, 2])
    folding = Folding(fold_of, np.zeros(5, dtype=int), np.arange(5))
    labelling = {"human": np.array([0, 1, 0, 0, 1])}
    chain = [(s.train.tolist(), s.test.tolist()) for s in chained_splits(folding, labelling)]
    assert chain == [([1, 3], [2]), ([1, 2, 3], [0, 4])]
    crossed = [(s.train.tolist(), s.test.tolist()) for s in crossed_splits(folding, labelling)]
    assert crossed == [([0, 2, 4], [1, 3]), ([0, 1, 3, 4], [2]), ([1, 2, 3], [0, 4])]


def test_left_out_strata_are_judged_by_all_others() -> None:
    folding = Folding(np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, dtype=int), np.arange(6))
    strata = np.array([0, 1, -1, 0, 1, -1])  # rows 2 and 5 are in none: learnt from, not judged
    owners = np.array([0, 1, 0, 0, 1, 0])
    splits = leave_strata_out(crossed_splits(folding, {"label_left_out": owners}), strata)
    # Fold 0 without stratum 0 is judged by rows 4 and 5, of both owners; without stratum 1 by rows 3 and 5, both owner
    # 0's: nothing can be learnt. Likewise fold 1 by rows 1 and 2, but not by rows 0 and 2.
    assert [(s.train.tolist(), s.test.tolist()) for s in splits] == [([4, 5], [0]), ([1, 2], [3])]


def nearest_mean(train: np.ndarray, owners: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the owner whose mean is nearest to each test row: a classifier fast enough for many simulations."""
    means = np.stack([train[owners == owner].mean(axis=0) for owner in range(3)])
    return ((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)


def simulate(effect: float, rng: np.random.Generator) -> float:
    """Return the p-value of one corpus of 40 items by 3 authors, each `effect` away from the others in noise of 1."""
    items, owners = np.repeat(np.arange(40), 3), np.tile(np.arange(3), 40)
    embeddings = rng.normal(size=(120, 3)) + effect * np.eye(3)[owners]
    folding = Folding(rng.permutation(40)[items] % 4, owners, np.arange(120))
    verdicts = np.full(120, -1)
    for split in chained_splits(folding, {"human": owners}):
        verdicts[split.test] = nearest_mean(embeddings[split.train], owners[split.train], embeddings[split.test])
    return exchangeability_p_value(verdicts, owners, permute_within_blocks(owners, items, 200, rng))


def test_p_values_are_uniform_where_there_is_no_style() -> None:
    rng = np.random.default_rng(11)
    p_values = np.array([simulate(0.0, rng) for _ in range(1000)])
    # The statistic is a count of about 30 with a standard deviation of about 4.5, so that a permutation ties with it in
    # up to 9 of 100 cases in the middle, 2 at the tail; ties count against significance.
    assert 0.03 <= np.mean(p_values < 0.05) <= 0.07
    assert 0.2 <= np.mean(p_values < 0.25) <= 0.28
    assert 0.41 <= np.mean(p_values < 0.5) <= 0.53


def test_a_planted_style_is_found() -> None:
    rng = np.random.default_rng(12)
    assert np.mean([simulate(1.0, rng) < 0.05 for _ in range(100)]) > 0.95
