"""The classifier of authors, and the attribution of groups of explanations."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_material import HABITS, explain

from capo_core.errors import CorpusError
from capo_core.evaluation.significance import resample_counts
from capo_core.stylometry.attribution import LOG_FLOOR, fit_attributor, fit_attributors
from capo_core.stylometry.controls import shuffle_within_items
from capo_core.stylometry.groups import GroupSampler, group_accuracies, group_membership

NAMES = list(HABITS)
TEXTS = [explain(name, item) for item in range(12) for name in NAMES]
OWNERS = NAMES * 12


def whole(n_items: int, n_groups: int = 50) -> GroupSampler:
    return GroupSampler(np.ones((1, n_items), dtype=int), n_groups, seed=0)


def test_attributor_knows_personas_on_items_it_never_saw() -> None:
    attributor = fit_attributor(TEXTS, OWNERS)
    scores = attributor.log_probabilities([explain(name, 31) for name in NAMES], NAMES)
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(4))


def test_columns_follow_the_candidates_asked_for_and_strangers_get_the_floor() -> None:
    attributor = fit_attributor(TEXTS, OWNERS)
    scores = attributor.log_probabilities([TEXTS[1]], ["nobody", "ben", "ana"])
    assert scores[0, 0] == LOG_FLOOR
    assert scores[0, 1] > scores[0, 2] > LOG_FLOOR


def test_features_come_from_training_text_only() -> None:
    attributor = fit_attributor(TEXTS, OWNERS)
    before = attributor.log_probabilities(["One can see that"], NAMES)
    # Whatever else is scored beside it leaves no trace in the scores of a text.
    beside = attributor.log_probabilities(["One can see that", "zyzzyva xylophone", "zyzzyva"], NAMES)
    assert beside[:1] == pytest.approx(before)
    assert (attributor.log_probabilities(["зззз"], NAMES) == attributor.log_probabilities([""], NAMES)).all()


def test_surface_differences_are_features_of_raw_text() -> None:
    texts = [t for k in range(10) for t in (f"It is number {k}.", f"It is number {k}")]  # one of two writes full stops
    attributor = fit_attributor(texts, ["a", "b"] * 10)
    assert attributor.log_probabilities(["It is number 77.", "It is number 77"], ["a", "b"]).argmax(
        axis=1
    ).tolist() == [0, 1]


def test_embeddings_are_attributed_as_texts_are() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3) * 4, 20, axis=0)
    attributor = fit_attributor(centres + rng.normal(size=centres.shape), ["x"] * 20 + ["y"] * 20 + ["z"] * 20)
    assert attributor.log_probabilities(np.eye(3) * 4, ["x", "y", "z"]).argmax(axis=1).tolist() == [0, 1, 2]


def test_several_labellings_share_features_and_nothing_else() -> None:
    wrong = OWNERS[1:] + OWNERS[:1]
    both = fit_attributors(TEXTS, [OWNERS, wrong])
    alone = fit_attributor(TEXTS, OWNERS)
    assert both[0].log_probabilities(TEXTS, NAMES) == pytest.approx(alone.log_probabilities(TEXTS, NAMES))
    assert both[1].log_probabilities(TEXTS, NAMES).argmax(axis=1).tolist() == [(k + 1) % 4 for k in range(4)] * 12


def test_nobody_is_named_for_having_written_more() -> None:
    # Both write the same two texts; ana wrote three times as much. Nothing tells them apart, so each has one half.
    texts = ["one text", "another text"] * 4
    attributor = fit_attributor(texts, ["ana"] * 6 + ["ben"] * 2)
    assert np.exp(attributor.log_probabilities(texts[:2], ["ana", "ben"])) == pytest.approx(0.5, abs=1e-3)


def test_no_explanations_give_no_scores() -> None:
    assert fit_attributor(TEXTS, OWNERS).log_probabilities([], NAMES).shape == (0, 4)


def test_one_annotator_cannot_be_told_from_anybody() -> None:
    with pytest.raises(CorpusError, match=r"at least two annotators.*ana"):
        fit_attributor(["a text", "a text"], ["ana", "ana"])


def test_texts_without_common_features_are_refused_with_a_reason() -> None:
    with pytest.raises(CorpusError, match="no features can be computed from 2 training explanations"):
        fit_attributor(["a", "b"], ["ana", "ben"])


def test_groups_add_up_log_probabilities() -> None:
    # Explanation 1 gives its author .9, explanation 2 gives him .4. Alone: right, wrong -> accuracy 1/2.
    # Together: .9 · .4 = .36 against .1 · .6 = .06 -> right.
    scores = np.log(np.array([[[0.9, 0.1]], [[0.4, 0.6]]]))
    owners = np.array([0])
    assert group_accuracies(scores, owners, 1, whole(2)) == pytest.approx(np.array([[0.5]]))
    assert group_accuracies(scores, owners, 2, whole(2)) == pytest.approx(np.array([[1.0]]))


def test_single_explanations_count_as_often_as_their_item_was_drawn() -> None:
    # Right on item 0 only, drawn 3 times of 4: 3/4.
    scores = np.log(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]))
    sampler = GroupSampler(np.array([[3, 1]]), 10, seed=0)
    assert group_accuracies(scores, np.array([0]), 1, sampler) == pytest.approx(np.array([[0.75]]))


def test_members_of_a_group_are_different_items_that_were_drawn() -> None:
    counts = resample_counts(9, 30, np.random.default_rng(1))
    available = np.arange(9) != 4
    groups = GroupSampler(counts, 25, seed=0).draw(available, 3)
    assert groups.shape == (30, 25, 3)
    assert all(len(set(group)) == 3 for resample in groups for group in resample.tolist())
    assert not (groups == 4).any()
    drawn = np.take_along_axis(counts, groups.reshape(30, -1).astype(int), axis=1)
    assert (drawn > 0).all()


def test_items_enter_groups_in_proportion_to_their_weight() -> None:
    # Successive draws of 2 from weights 2, 1, 1: item 0 is first with 1/2, or second after one of the others with
    # 1/2 · 2/3: 5/6 in all. The others: (2 - 5/6) / 2 = 7/12.
    groups = GroupSampler(np.array([[2, 1, 1]]), 6000, seed=0).draw(np.ones(3, dtype=bool), 2)
    shares = group_membership(groups, 3).mean(axis=(0, 1))
    assert shares == pytest.approx([5 / 6, 7 / 12, 7 / 12], abs=0.02)


def test_resample_with_too_few_items_has_no_groups() -> None:
    sampler = GroupSampler(np.array([[4, 0, 0, 0], [1, 1, 1, 1]]), 5, seed=0)
    assert (sampler.draw(np.ones(4, dtype=bool), 2)[0] == -1).all()
    scores = np.log(np.full((4, 1, 2), 0.5) + np.array([0.1, -0.1]))
    accuracies = group_accuracies(scores, np.array([0]), 2, sampler)
    assert np.isnan(accuracies[0, 0])
    assert accuracies[1, 0] == 1.0


def test_series_with_fewer_items_than_the_group_size_is_not_measured() -> None:
    scores = np.log(np.full((5, 2, 2), 0.5))
    scores[:3, 1] = np.nan  # the second author explained two items
    accuracies = group_accuracies(scores, np.array([0, 0]), 3, whole(5))
    assert not np.isnan(accuracies[0, 0])
    assert np.isnan(accuracies[0, 1])


def test_accuracy_of_one_series_does_not_depend_on_the_others_scored_beside_it() -> None:
    rng = np.random.default_rng(0)
    scores = np.log(rng.dirichlet(np.ones(3), size=(10, 4)))
    scores[2, 3] = np.nan
    owners = np.array([0, 1, 2, 0])
    together = group_accuracies(scores, owners, 4, whole(10))
    for series in range(4):
        alone = group_accuracies(scores[:, [series]], owners[[series]], 4, whole(10))
        assert alone[0, 0] == together[0, series]


def test_forgotten_groups_are_drawn_again_the_same() -> None:
    sampler = whole(12)
    patterns = [np.arange(12) != k % 12 for k in range(12)]
    first = sampler.draw(patterns[0], 3).copy()
    for size in range(2, 9):  # 12 patterns · 7 sizes exceed what is remembered
        for pattern in patterns:
            sampler.draw(pattern, size)
    assert (sampler.draw(patterns[0], 3) == first).all()


def test_resampled_group_accuracy_spreads_about_as_far_as_fresh_samples_do() -> None:
    # 40 items, 2 candidates, margins N(0.25, 1): the spread of the accuracy at k = 3 over fresh samples of items is
    # what the bootstrap of one sample should show.
    rng = np.random.default_rng(4)

    def sample() -> np.ndarray:
        margins = rng.normal(0.25, 1.0, size=(40, 1))
        return np.stack([margins, np.zeros_like(margins)], axis=2)

    owner = np.array([0])
    fresh = [group_accuracies(sample(), owner, 3, whole(40, 200))[0, 0] for _ in range(150)]
    counts = resample_counts(40, 300, rng)
    spreads = [group_accuracies(sample(), owner, 3, GroupSampler(counts, 100, k)).std() for k in range(15)]
    assert np.mean(spreads) == pytest.approx(np.std(fresh), rel=0.3)


def test_shuffling_permutes_authors_within_each_item_only() -> None:
    items = np.array([0, 1, 0, 1, 0, 2])
    owners = np.array([0, 0, 1, 2, 2, 1])
    rng = np.random.default_rng(0)
    outcomes = [shuffle_within_items(owners, items, rng) for _ in range(200)]
    for shuffled in outcomes:
        for item in range(3):
            assert sorted(shuffled[items == item]) == sorted(owners[items == item])
    # All six orders of item 0 come up; its first row keeps its own author a third of the time.
    assert len({tuple(s[items == 0]) for s in outcomes}) == 6
    assert np.mean([s[0] == 0 for s in outcomes]) == pytest.approx(1 / 3, abs=0.1)
