"""What is taken away from an explanation before its author is sought."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from evaluation_material import corpus_frame, corpus_row, embed_by_letters

from capo_core.stylometry.reduction import explanation_inputs, reduce_texts, shared_words, subtract_item_means
from capo_core.text import MASK


def rows(explanation: str, text_a: str = "The women Work.", text_b: str = "They don't rest") -> list[dict]:
    return [corpus_row("i", "ana", "neutral", explanation, text_a=text_a, text_b=text_b)]


def test_words_of_either_text_are_masked_whatever_their_case() -> None:
    frame = corpus_frame(rows("WOMEN work because they rest, clearly."))
    assert reduce_texts(frame, "shared_words_masked", "none") == [f"{MASK} {MASK} because {MASK} {MASK}, clearly."]


def test_either_apostrophe_is_the_same_word() -> None:
    assert reduce_texts(corpus_frame(rows("we don’t know")), "shared_words_masked", "none") == [f"we {MASK} know"]
    assert {"don't", "don’t"} <= shared_words("don’t", "")


def test_no_reduction_keeps_the_text_as_written() -> None:
    assert reduce_texts(corpus_frame(rows("  Odd  spacing.")), "none", "none") == ["  Odd  spacing."]


def test_surface_normalisation_comes_after_masking_and_keeps_masks() -> None:
    frame = corpus_frame(rows(" Women, I THINK: rest!"))
    assert reduce_texts(frame, "shared_words_masked", "surface") == [f"{MASK} i think {MASK}"]
    assert reduce_texts(frame, "none", "surface") == ["women i think rest"]


def test_item_mean_is_subtracted_item_by_item() -> None:
    # Item p: (1, 0), (3, 2), mean (2, 1). Item q: (5, 5) alone, mean itself.
    embeddings = np.array([[1.0, 0.0], [5.0, 5.0], [3.0, 2.0]])
    items = ["p", "q", "p"]
    expected = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    assert subtract_item_means(embeddings, items, embeddings, items) == pytest.approx(expected)


def test_generated_text_is_placed_against_the_mean_of_the_people() -> None:
    # Mean of the people's (0, 2) and (2, 2) is (1, 2); the generated (4, 4) stands at (3, 2), whatever else was
    # generated for the item.
    people = np.array([[0.0, 2.0], [2.0, 2.0]])
    generated = np.array([[4.0, 4.0], [9.0, 9.0]])
    reduced = subtract_item_means(generated, ["p", "p"], people, ["p", "p"])
    assert reduced == pytest.approx(np.array([[3.0, 2.0], [8.0, 7.0]]))


def test_item_without_a_reference_is_an_error() -> None:
    with pytest.raises(KeyError, match="q"):
        subtract_item_means(np.ones((1, 2)), ["q"], np.ones((1, 2)), ["p"])


def test_embedding_reduction_leaves_nothing_where_all_of_an_item_say_the_same() -> None:
    frame = corpus_frame([corpus_row("i", a, "neutral", "same words") for a in ("ana", "ben")])
    reduced = explanation_inputs(frame, "embedding_minus_item_mean", "none", embed_by_letters)
    assert reduced == pytest.approx(np.zeros((2, 26)))


def test_embedding_reduction_embeds_the_normalised_text() -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.zeros((len(texts), 2))

    explanation_inputs(corpus_frame(rows("It IS so.")), "embedding_minus_item_mean", "surface", embed)
    assert seen == ["it is so"]


def test_without_an_encoder_the_embedding_reduction_is_not_measured() -> None:
    assert explanation_inputs(corpus_frame(rows("x")), "embedding_minus_item_mean", "none", None) is None
    assert explanation_inputs(corpus_frame(rows("x")), "none", "none", None) == ["x"]
