"""Groups drawn in one order for all series, and what comes of them."""

from __future__ import annotations

import numpy as np
import pytest

from capo_core.statistics.significance import resample_counts
from capo_core.stylometry import groups as groups_module
from capo_core.stylometry.groups import (
    DrawnGroups,
    average_outcomes,
    group_accuracies,
    is_attributed,
    owner_probability,
    sum_groups,
)


def whole(n_items: int, n_groups: int = 50) -> DrawnGroups:
    return DrawnGroups(np.ones((1, n_items), dtype=int), n_groups, seed=0)


def test_groups_hold_different_items_that_were_drawn() -> None:
    counts = np.array([[2, 0, 1, 1, 0], [0, 0, 0, 3, 2]])
    drawn = DrawnGroups(counts, 30, seed=0).draw(np.ones(5, dtype=bool), 3)
    assert drawn.shape == (2, 30, 3)
    assert all(set(group) == {0, 2, 3} for group in drawn[0].tolist())  # 3 of 3 drawn items: all of them
    assert (drawn[1] == -1).all()  # only two different items there


def test_members_of_a_group_are_available_items() -> None:
    counts = resample_counts(9, 30, np.random.default_rng(1))
    groups = DrawnGroups(counts, 25, seed=0).draw(np.arange(9) != 4, 3)
    assert groups.shape == (30, 25, 3)
    assert all(len(set(group)) == 3 for resample in groups for group in resample.tolist())
    assert not (groups == 4).any()
    drawn = np.take_along_axis(counts, groups.reshape(30, -1).astype(int), axis=1)
    assert (drawn > 0).all()


def test_groups_are_nested_in_size_and_move_up_where_an_item_is_missing() -> None:
    groups = DrawnGroups(np.ones((1, 12), dtype=int), 50, seed=1)
    everything, without_seven = np.ones(12, dtype=bool), np.arange(12) != 7
    large, small = groups.draw(everything, 5)[0], groups.draw(everything, 3)[0]
    fewer = groups.draw(without_seven, 3)[0]
    for five, three, other in zip(large.tolist(), small.tolist(), fewer.tolist(), strict=True):
        assert set(three) <= set(five)
        assert 7 not in other
        if 7 not in three:
            assert three == other
        else:
            assert len(set(three) & set(other)) == 2


def test_items_enter_groups_in_proportion_to_their_weight() -> None:
    # Successive draws of 2 from weights 2, 1, 1: item 0 is first with 1/2, or second after one of the others with
    # 1/2 · 2/3: 5/6 in all. The others: (2 - 5/6) / 2 = 7/12. Sd of a share at most .5 / √6000 = .0065.
    groups = DrawnGroups(np.array([[2, 1, 1]]), 6000, seed=0).draw(np.ones(3, dtype=bool), 2)
    shares = [(groups == item).any(axis=2).mean() for item in range(3)]
    assert shares == pytest.approx([5 / 6, 7 / 12, 7 / 12], abs=0.02)
    # Without item 1 the weights are 2 and 1, and one item is drawn: item 0 with 2/3.
    alone = DrawnGroups(np.array([[2, 1, 1]]), 6000, seed=0).draw(np.arange(3) != 1, 1)
    assert np.mean(alone == 0) == pytest.approx(2 / 3, abs=0.02)


def test_forgotten_groups_are_drawn_again_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "_CHUNK_CELLS", 12 * 10 * 7)  # 40 resamples in chunks of 7
    counts = resample_counts(12, 40, np.random.default_rng(2))
    kept = DrawnGroups(counts, 10, seed=0)
    patterns = [np.arange(12) != k % 12 for k in range(12)]
    first = kept.draw(patterns[0], 3).copy()
    for size in range(2, 9):  # 12 patterns · 7 sizes exceed what is remembered
        for pattern in patterns:
            kept.draw(pattern, size)
    assert (kept.draw(patterns[0], 3) == first).all()
    monkeypatch.setattr(groups_module, "_KEPT_CELLS", 0)  # now orders are not kept either
    redrawn = DrawnGroups(counts, 10, seed=0)
    assert all((redrawn.draw(pattern, 3) == kept.draw(pattern, 3)).all() for pattern in patterns)


def test_sums_are_over_the_members() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert sum_groups(np.array([[0, 2], [2, 1]]), values).tolist() == [[5.0, 50.0], [6.0, 60.0]]
    assert sum_groups(np.array([[0, 2], [2, 1]]), values[:, :, None]).tolist() == [[[5.0], [50.0]], [[6.0], [60.0]]]


def test_probability_of_a_group_is_the_posterior_of_the_summed_scores() -> None:
    # Owner's odds per explanation 3 : 1 and 1 : 2; together 3 : 2, so probability 3/5, and attributed to him.
    sums = np.log([[3 / 4 * 1 / 3], [1 / 4 * 2 / 3]])[None]  # [1 group, 2 candidates, 1 series]
    for owner, attributed, probability in ((0, True, 0.6), (1, False, 0.4)):
        assert is_attributed(sums, np.array([owner])).item() is attributed
        assert owner_probability(sums, np.array([owner])).item() == pytest.approx(probability)


def test_groups_add_up_log_probabilities() -> None:
    # Explanation 1 gives its author .9, explanation 2 gives him .4. Alone: right, wrong -> accuracy 1/2, mean .65.
    # Together: .9 · .4 = .36 against .1 · .6 = .06 -> right, with probability 6/7.
    scores = np.log(np.array([[[0.9, 0.1], [0.4, 0.6]]]))
    owners, outcomes = np.array([0]), (is_attributed, owner_probability)
    assert average_outcomes(scores, owners, 1, whole(2), outcomes).ravel() == pytest.approx([0.5, 0.65])
    assert average_outcomes(scores, owners, 2, whole(2), outcomes).ravel() == pytest.approx([1.0, 6 / 7])


def test_single_explanations_count_as_often_as_their_item_was_drawn() -> None:
    # Right on item 0 only, drawn 3 times of 4: 3/4.
    scores = np.log(np.array([[[0.9, 0.1], [0.2, 0.8]]]))
    groups = DrawnGroups(np.array([[3, 1]]), 10, seed=0)
    assert group_accuracies(scores, np.array([0]), 1, groups) == pytest.approx(np.array([[0.75]]))


def test_resample_with_too_few_items_has_no_groups() -> None:
    groups = DrawnGroups(np.array([[4, 0, 0, 0], [1, 1, 1, 1]]), 5, seed=0)
    assert (groups.draw(np.ones(4, dtype=bool), 2)[0] == -1).all()
    scores = np.log(np.full((1, 4, 2), 0.5) + np.array([0.1, -0.1]))
    accuracies = group_accuracies(scores, np.array([0]), 2, groups)
    assert np.isnan(accuracies[0, 0])
    assert accuracies[1, 0] == 1.0


def test_series_with_fewer_items_than_the_group_size_is_not_measured() -> None:
    scores = np.log(np.full((2, 5, 2), 0.5))
    scores[1, :3] = np.nan  # the second author explained two items
    accuracies = group_accuracies(scores, np.array([0, 0]), 3, whole(5))
    assert not np.isnan(accuracies[0, 0])
    assert np.isnan(accuracies[0, 1])


def test_accuracy_of_one_series_does_not_depend_on_the_others_scored_beside_it() -> None:
    rng = np.random.default_rng(0)
    scores = np.log(rng.dirichlet(np.ones(3), size=(4, 10)))
    scores[3, 2] = np.nan
    owners = np.array([0, 1, 2, 0])
    together = group_accuracies(scores, owners, 4, whole(10))
    for series in range(4):
        alone = group_accuracies(scores[[series]], owners[[series]], 4, whole(10))
        assert alone[0, 0] == together[0, series]


def test_resampled_group_accuracy_spreads_about_as_far_as_fresh_samples_do() -> None:
    # 40 items, 2 candidates, margins N(0.25, 1): the spread of the accuracy at k = 3 over fresh samples of items is
    # what the bootstrap of one sample should show.
    rng = np.random.default_rng(4)

    def sample() -> np.ndarray:
        margins = rng.normal(0.25, 1.0, size=(1, 40))
        return np.stack([margins, np.zeros_like(margins)], axis=2)

    owner = np.array([0])
    fresh = [group_accuracies(sample(), owner, 3, whole(40, 200))[0, 0] for _ in range(150)]
    counts = resample_counts(40, 300, rng)
    spreads = [group_accuracies(sample(), owner, 3, DrawnGroups(counts, 100, k)).std() for k in range(15)]
    assert np.mean(spreads) == pytest.approx(np.std(fresh), rel=0.3)
