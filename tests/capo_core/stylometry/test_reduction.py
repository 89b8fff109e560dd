"""What is taken away from an explanation before its author is sought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from evaluation_material import corpus_frame, corpus_row, embed_by_letters

from capo_core.stylometry.function_words import FUNCTION_WORDS
from capo_core.stylometry.input_regression import fit_input_regression
from capo_core.stylometry.reduction import (
    Variant,
    fit_reducer,
    list_variants,
    reduce_texts,
    remember,
    shared_words,
    subtract_item_means,
)
from capo_core.text import MASK, label_spellings, words
from schemas.section import Classifier, Normalisation, Reduction


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
    assert apply("embedding_minus_item_mean", frame) == pytest.approx(np.zeros((2, 26)))


def test_embedding_reduction_embeds_the_normalised_text() -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.zeros((len(texts), 2))

    variant = Variant("embedding_minus_item_mean", "surface", "embeddings")
    frame = corpus_frame(rows("It IS so."))
    reducer = fit_reducer(variant, frame, embed)
    assert reducer is not None
    reducer.apply(frame)
    assert set(seen) == {"it is so"}


def test_generated_text_is_held_against_the_references_given() -> None:
    # "bb" is (a 0, b 2); the people's "a" and "ab" have the mean (1, 1/2): what is left is (-1, 3/2).
    people = corpus_frame([corpus_row("i", "ana", "neutral", "a"), corpus_row("i", "ben", "neutral", "ab")])
    generated = corpus_frame([corpus_row("i", "ana", "neutral", "bb")])
    reduced = apply("embedding_minus_item_mean", generated, references=people)
    assert reduced[0, :2] == pytest.approx([-1.0, 1.5])


def test_only_function_words_are_left_and_each_content_word_keeps_its_place() -> None:
    frame = corpus_frame(rows("The WOMEN can't work, Because of it; don’t they?"))
    masked = reduce_texts(frame, "content_words_masked", "none")
    assert masked == [f"The {MASK} can't {MASK}, Because of it; don’t they?"]
    assert reduce_texts(frame, "content_words_masked", "surface") == [
        f"the {MASK} can't {MASK} because of it don't they"
    ]


def test_function_words_are_words_in_the_sense_used_everywhere() -> None:
    assert all(words(word) == [word] for word in FUNCTION_WORDS)
    assert {"the", "not", "isn't", "isn’t", "because", "whoever"} <= FUNCTION_WORDS
    assert not {"statement", "true", "women", "mention"} & FUNCTION_WORDS


def test_every_combination_that_exists_is_listed_once_in_order() -> None:
    listed = list_variants(("none", "embedding_input_residual"), ("none", "surface"), ("ngrams", "embeddings"))
    assert listed == [
        Variant("none", "none", "ngrams"),
        Variant("none", "none", "embeddings"),
        Variant("none", "surface", "ngrams"),
        Variant("none", "surface", "embeddings"),
        Variant("embedding_input_residual", "none", "embeddings"),
        Variant("embedding_input_residual", "surface", "embeddings"),
    ]


def test_ngrams_read_text_and_embeddings_read_what_is_left_of_it() -> None:
    frame = corpus_frame(rows("Women rest"))
    assert apply("shared_words_masked", frame, classifier="ngrams") == [f"{MASK} {MASK}"]
    assert apply("shared_words_masked", frame) == pytest.approx(np.zeros((1, 26)))
    assert apply("none", frame) == pytest.approx(embed_by_letters(["Women rest"]))


def test_without_an_encoder_nothing_that_needs_one_is_measured() -> None:
    frame = corpus_frame(rows("x"))
    assert fit_reducer(Variant("none", "none", "embeddings"), frame, None) is None
    assert fit_reducer(Variant("embedding_input_residual", "none", "embeddings"), frame, None) is None
    assert fit_reducer(Variant("none", "none", "ngrams"), frame, None) is not None


def test_remembered_texts_are_embedded_once() -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return embed_by_letters(texts)

    remembered = remember(embed)
    first = remembered(["b", "a", "b"])
    assert remembered(["a"])[0] == pytest.approx(first[1])
    assert first == pytest.approx(embed_by_letters(["b", "a", "b"]))
    assert sorted(asked) == ["a", "b"]


def test_inflected_label_names_are_one_spelling_on_the_surface() -> None:
    frame = corpus_frame(
        [
            corpus_row("i", "ana", "entailment", "It ENTAILS that."),
            corpus_row("i", "ben", "contradiction", "Contradicts!"),
        ]
    )
    assert apply("none", frame, "surface", "ngrams") == ["it entailment that", "contradiction"]
    assert apply("none", frame, "none", "ngrams") == ["It ENTAILS that.", "Contradicts!"]


def test_other_derivations_scores_and_short_words_have_no_spellings() -> None:
    spellings = label_spellings(["entailment", "not_relevant", "-5", "5", "yes", "station"])
    assert {w for w, name in spellings.items() if name == "entailment"} >= {
        "entail",
        "entails",
        "entailed",
        "entailing",
    }
    assert spellings["relevants"] == "relevant"
    # "contradictory" is another word; of "station" only four letters would be left, so "state" is not its inflection.
    assert "stations" in spellings
    assert not {"contradictory", "state", "states", "yess", "entailment", "5s"} & set(spellings)


def test_a_spelling_two_labels_share_is_left_alone() -> None:
    # "engages" could be short for either; "neutrals" is nobody else's.
    spellings = label_spellings(["engagement", "engageion", "neutral"])
    assert "engages" not in spellings
    assert spellings["neutrals"] == "neutral"


def two_topic_rows(explanations: Sequence[str]) -> pl.DataFrame:
    """Return one explanation per item; the input of even items is a, of odd ones b."""
    made = [
        corpus_row(f"i{n}", "ana", "neutral", text, text_a="ab"[n % 2] * 3, text_b="c")
        for n, text in enumerate(explanations)
    ]
    return corpus_frame(made)


def test_what_the_input_lets_one_expect_is_subtracted() -> None:
    # Explanations repeat the letter of the input, twice, and add a habit: an x. The input tells the letter, so next to
    # nothing of it is left on unseen items; the x is everybody's, so it is in the mean that is subtracted. One who
    # writes xxx instead of x is left with two.
    seen = two_topic_rows(["ab"[n % 2] * 2 + "x" for n in range(40)])
    reducer = fit_reducer(Variant("embedding_input_residual", "none", "embeddings"), seen, embed_by_letters)
    assert reducer is not None
    left = reducer.apply(two_topic_rows(["aaxxx", "bbx", "bbx"]))
    assert isinstance(left, np.ndarray)
    assert left[:, [0, 1, 23]] == pytest.approx(np.array([[0, 0, 2], [0, 0, 0], [-2, 2, 0]]), abs=0.01)


def test_regression_on_the_input_sees_no_row_but_those_it_is_fitted_on() -> None:
    seen, unseen = two_topic_rows(["ax", "bx", "aax", "bbx", "aaa", "b"]), two_topic_rows(["ab", "ba"])
    variant = Variant("embedding_input_residual", "none", "embeddings")
    reducer = fit_reducer(variant, seen, embed_by_letters)
    assert reducer is not None
    alone = reducer.apply(unseen.head(1))
    beside = reducer.apply(two_topic_rows(["ab", "zzzzzz"]))
    assert np.asarray(beside)[0] == pytest.approx(np.asarray(alone)[0])
    changed = fit_reducer(variant, seen.with_columns(pl.lit("zzz").alias("explanation")), embed_by_letters)
    assert changed is not None
    assert np.abs(np.asarray(changed.apply(unseen)) - np.asarray(reducer.apply(unseen))).max() > 1


def test_penalty_is_chosen_by_leaving_items_out_not_explanations() -> None:
    # Inputs tell nothing of the explanations, but every item's four explanations are alike. Left out one by one, the
    # item's other three would recommend to interpolate (40 dimensions suffice for 30 items), and the expectations would
    # spread as the explanations do; left out by item, a strong penalty is best, and they stay near the mean.
    rng = np.random.default_rng(0)
    inputs, content = rng.normal(size=(30, 40)), rng.normal(size=(30, 5))
    items = np.repeat(np.arange(30), 4)
    regression = fit_input_regression(inputs[items], content[items], [str(item) for item in items])
    spread = (regression.predict(inputs) - content.mean(axis=0)).std()
    assert spread < 0.5 * content.std()


def apply(
    reduction: Reduction,
    frame: pl.DataFrame,
    normalisation: Normalisation = "none",
    classifier: Classifier = "embeddings",
    references: pl.DataFrame | None = None,
) -> Any:
    """Return the inputs of a variant fitted on the frame itself."""
    reducer = fit_reducer(Variant(reduction, normalisation, classifier), frame, embed_by_letters)
    assert reducer is not None
    return reducer.apply(frame, references)
