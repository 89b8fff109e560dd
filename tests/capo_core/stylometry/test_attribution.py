"""The classifier of authors, and its control."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_material import HABITS, explain

from capo_core.errors import CorpusError
from capo_core.stylometry.attribution import LOG_FLOOR, fit_attributor, fit_attributors
from capo_core.stylometry.controls import shuffle_within_items

NAMES = list(HABITS)
TEXTS = [explain(name, item) for item in range(12) for name in NAMES]
OWNERS = NAMES * 12


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
    with pytest.raises(CorpusError, match="no features can be computed from 2 explanations"):
        fit_attributor(["a", "b"], ["ana", "ben"])


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
