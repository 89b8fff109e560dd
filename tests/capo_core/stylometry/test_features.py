"""Named style features against counts made by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from capo_core.errors import CorpusError
from capo_core.stylometry.features import FEATURES, NAMES, feature_matrix, style_features
from capo_core.stylometry.lexicons import read_lexicon
from capo_core.stylometry.overlap import join_texts, longest_shared_run
from capo_core.stylometry.token_counts import count_syllables
from capo_core.text import words

SENTENCE = 'No, it "just might be" (I think), but it doesn\'t entail 2 sentences. Why?'
# 14 words: no it just might be i think but it doesn't entail 2 sentences why


def measure(text: str | None, text_a: str | None = "It might be late.", text_b: str = "No sentences here") -> dict:
    """Return the features of one explanation."""
    frame = pl.DataFrame({"explanation": [text], "text_a": [text_a], "text_b": [text_b]})
    return style_features(frame).row(0, named=True)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("characters", 73),
        ("words", 14),
        ("sentences", 2),  # "… 2 sentences." and "Why?"
        ("words_per_sentence", 14 / 2),
        # letters, digits, apostrophe: 2+2+4+5+2+1+5+3+2+7+6+1+9+3 = 52
        ("word_length", 52 / 14),
        ("type_token_ratio", 13 / 14),  # `it` twice
        ("article_rate", 0),
        ("pronoun_rate", 3 / 14),  # it, i, it
        ("preposition_rate", 0),
        ("conjunction_rate", 1 / 14),  # but
        ("auxiliary_rate", 3 / 14),  # might, be, does|n't
        ("first_person_rate", 1 / 14),  # i
        ("second_person_rate", 0),
        ("hedge_rate", 2 / 14),  # might, think
        ("booster_rate", 0),
        ("negation_rate", 2 / 14),  # no, does|n't
        ("task_word_rate", 2 / 14),  # entail, sentences
        ("connective_rate", 1 / 14),  # but
        ("quoted_share", 3 / 14),  # just might be
        # no it might be it sentences stand in the texts
        ("copied_share", 6 / 14),
        ("copied_run", 2),  # "might be"; "it just might" is broken by just
        ("comma_rate", 2 / 73),
        ("full_stop_rate", 1 / 73),
        ("quote_rate", 2 / 73),  # the apostrophe of doesn't is none
        ("parenthesis_rate", 2 / 73),
        ("other_punctuation_rate", 1 / 73),  # ?
        ("starts_lower_case", 0),
        ("ends_with_full_stop", 0),
        ("leading_space", 0),
        ("trailing_space", 0),
        # 50 letters: the 52 without ' and 2. Capitals: N, I, W
        ("capital_rate", 3 / 50),
        ("digit_rate", 1 / 73),
        # syllables: no it just might be i think but it = 9, doesn't 1 (runs: oe), entail 2, 2 → 1, sentences 3, why 1
        ("reading_ease", 206.835 - 1.015 * 7 - 84.6 * 17 / 14),
    ],
)
def test_feature_of_one_explanation_by_hand(feature: str, expected: float) -> None:
    assert measure(SENTENCE)[feature] == pytest.approx(expected)


def test_parts_of_speech_of_a_plain_sentence() -> None:
    # the/DT old/JJ woman/NN walked/VBD slowly/RB in/IN the/DT garden/NN: 8 words.
    features = measure("The old woman walked slowly in the garden.")
    rates = [features[f"{name}_rate"] for name in ("noun", "verb", "adjective", "adverb")]
    assert rates == pytest.approx([2 / 8, 1 / 8, 1 / 8, 1 / 8])


def test_contractions_count_by_their_parts_with_either_apostrophe() -> None:
    # can't: modal and negation; we'll: pronoun, first person, modal. Four words of which the tagger sees six.
    for text in ("we'll see, can't we", "we’ll see, can’t we"):
        features = measure(text)
        assert features["negation_rate"] == pytest.approx(1 / 4)
        assert features["auxiliary_rate"] == pytest.approx(2 / 4)
        assert features["first_person_rate"] == pytest.approx(2 / 4)


def test_white_space_around_is_seen_only_by_its_own_features() -> None:
    plain, spaced = measure("the same topic."), measure("  the same topic.\n")
    assert (spaced["leading_space"], spaced["trailing_space"]) == (1, 1)
    assert (plain["leading_space"], plain["trailing_space"]) == (0, 0)
    changed = {"leading_space", "trailing_space", "explanation"}
    assert {n: v for n, v in spaced.items() if n not in changed} == {n: v for n, v in plain.items() if n not in changed}


def test_first_letter_and_last_character_decide_how_it_starts_and_ends() -> None:
    features = measure('"is built" implies it. ')
    assert (features["starts_lower_case"], features["ends_with_full_stop"]) == (1, 1)
    features = measure('1. Reform is "meant."')
    assert (features["starts_lower_case"], features["ends_with_full_stop"]) == (0, 0)


@pytest.mark.parametrize(
    ("text", "n"),
    [("One. Two! Three", 3), ('He said "no." Then he left...', 2), ("3.5 per cent", 1), ("...", 0), ("e.g. this", 2)],
)
def test_sentences_end_at_marks_before_white_space(text: str, n: int) -> None:
    # "e.g. this" is cut after the abbreviation: that is what the definition says.
    assert measure(text)["sentences"] == n


@pytest.mark.parametrize(
    ("text", "n"), [("'usually' and \"as if\"", 3), ("the users' work isn't 'so'", 1), ('12" of', 0), ('"" a"', 1)]
)
def test_quoted_words_stand_between_quotation_marks(text: str, n: int) -> None:
    assert measure(text)["quoted_share"] == pytest.approx(n / len(words(text)))


def test_an_empty_explanation_has_counts_of_zero_and_no_rates() -> None:
    features = measure("  ")
    zero = ("characters", "words", "sentences", "copied_run")
    assert [features[name] for name in zero] == [0, 0, 0, 0]
    assert all(features[name] is None for name in NAMES if name not in zero)


def test_text_without_words_has_punctuation_but_no_word_rates() -> None:
    features = measure("?!")
    assert features["other_punctuation_rate"] == 1
    assert features["words_per_sentence"] is None
    assert features["starts_lower_case"] is None


def test_a_missing_explanation_has_no_features_and_a_missing_input_no_copying() -> None:
    assert all(measure(None)[name] is None for name in NAMES)
    features = measure("It might", text_a=None)
    assert (features["copied_share"], features["copied_run"], features["words"]) == (None, None, 2)


def test_rows_stay_as_given_and_known_columns_are_passed_on() -> None:
    texts = ["b a", "a", "b a", None]
    frame = pl.DataFrame(
        {"text_b": "b", "explanation": texts, "item_id": list("wxyz"), "text_a": ["a", "a", "c", "a"], "more": 1}
    )
    features = style_features(frame)
    assert features.columns == ["item_id", "explanation", *NAMES]
    assert features["explanation"].to_list() == texts
    assert features["words"].to_list() == [2, 1, 2, None]
    assert features["copied_share"].to_list() == [1.0, 1.0, 0.5, None]  # the item's own texts, not the explanation's
    assert {features.schema[name] for name in NAMES} == {pl.Float64}


def test_matrix_has_a_column_for_each_feature_and_nan_for_undefined() -> None:
    frame = pl.DataFrame({"explanation": ["one two", ""], "text_a": "", "text_b": ""})
    matrix = feature_matrix(frame)
    assert matrix.shape == (2, len(FEATURES))
    assert matrix[:, NAMES.index("words")].tolist() == [2, 0]
    assert np.isnan(matrix[1, NAMES.index("word_length")])


def test_no_rows_give_no_rows() -> None:
    frame = pl.DataFrame(schema={"explanation": pl.String, "text_a": pl.String, "text_b": pl.String})
    assert feature_matrix(frame).shape == (0, len(FEATURES))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(CorpusError, match="text_b"):
        style_features(pl.DataFrame({"explanation": ["a"], "text_a": ["b"]}))


def test_words_are_those_of_the_rest_of_capo() -> None:
    for text in (SENTENCE, "naïve o'clock; snake_case — ’tis 3.5%", "женщины РАБОТАЮТ"):
        assert measure(text)["words"] == len(words(text))


def test_syllables_follow_the_stated_rule() -> None:
    # runs of vowels: s-a-me 2 - 1; t-a-bl-e 2, final le after a consonant stays; wh-o-l-e 2 - 1; th-e at least 1;
    # m-ea-n-i-ng 2; 3 none, at least 1; id-ea: i, ea.
    expected = {"same": 1, "table": 2, "whole": 1, "the": 1, "meaning": 2, "3": 1, "idea": 2}
    assert {word: count_syllables(word) for word in expected} == expected


def test_longest_run_never_crosses_two_texts_and_never_splits_a_word() -> None:
    joined = join_texts([["a", "b", "c"], ["d", "e"]])
    assert longest_shared_run(["x", "b", "c", "d", "e"], joined) == 2
    assert longest_shared_run(["a", "b", "c"], joined) == 3
    assert longest_shared_run(["ab"], joined) == 0
    assert longest_shared_run([], joined) == 0


def test_closed_classes_do_not_overlap_and_lists_are_clean() -> None:
    lists = {n: read_lexicon(n) for n in ("articles", "pronouns", "prepositions", "conjunctions", "auxiliaries")}
    assert sum(map(len, lists.values())) == len(frozenset().union(*lists.values()))
    for name in (*lists, "hedges", "boosters", "negation", "task_words", "connectives", "first_person"):
        assert all(word == word.casefold() and " " not in word and "’" not in word for word in read_lexicon(name))


def test_definitions_are_complete_and_names_unique() -> None:
    assert len(set(NAMES)) == len(FEATURES)
    assert all(feature.unit and feature.definition.endswith(".") for feature in FEATURES)
