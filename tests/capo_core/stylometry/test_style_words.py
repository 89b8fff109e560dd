"""Words that carry a style: the statistic by hand, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from evaluation_material import HABITS, persona_corpus

from capo_core.stylometry.style_words import N_TERMS, log_odds_z, style_words
from schemas.frames import STYLE_WORDS


def texts_of(rows: list[tuple[str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["item_id", "annotator_id", "explanation"], orient="row")


def test_z_equals_the_arithmetic() -> None:
    # ana 6 of x and 2 of y, ben 2 of x and 6 of y; pooled half and half, so 4 prior tokens are 2 and 2.
    # δ_x = log((6 + 2) / (8 + 4 - 8)) - log((2 + 2) / (8 + 4 - 4)) = log 2 - log .5; σ² = 1/8 + 1/4
    z = log_odds_z(np.array([[6, 2], [2, 6]]), prior_tokens=4.0)
    assert z[0] == pytest.approx(np.array([1, -1]) * np.log(4) / np.sqrt(3 / 8))
    assert z[1] == pytest.approx(-z[0])


def test_rare_terms_are_held_back_by_the_prior() -> None:
    # Both terms are ana's alone; the one she uses twenty times says more than the one she uses once.
    z = log_odds_z(np.array([[20, 1, 100], [0, 0, 121]]))
    assert z[0, 0] > 2 * z[0, 1] > 0


def test_who_wrote_nothing_has_no_words() -> None:
    assert log_odds_z(np.array([[0, 0], [3, 1]])).tolist() == [[0, 0], [0, 0]]


def test_habits_are_found_as_words_and_phrases() -> None:
    corpus = persona_corpus(n_train=30, n_test=0)
    table = style_words(corpus, seed=0)
    assert table.schema == pl.Schema(STYLE_WORDS)
    terms = {name: set(table.filter(annotator_id=name)["term"]) for name in HABITS}
    assert {"nope", "lol", "nope nothing"} <= terms["ben"]  # “nope, nothing”: punctuation parts no phrase
    assert {"settles it", "one can"} <= terms["ana"]
    assert {"guess", "don't know"} <= terms["dee"]
    # what all write about is nobody's
    assert not any({"river", "kitchen", "prize"} & found for found in terms.values())
    row = table.filter(annotator_id="ben", term="lol").row(0, named=True)
    assert (row["n_own"], row["n_others"]) == (30, 0)
    for _, own in table.group_by("annotator_id"):
        assert own.height <= N_TERMS
        assert own["z"].is_sorted(descending=True)
        assert (own["z"] > 0).all()


def test_without_style_hardly_ever_a_word_is_listed() -> None:
    # 40 corpora of random words, nobody has a style: one in twenty may list something; six or more of 40 once in 70.
    listed = 0
    for seed in range(40):
        rng = np.random.default_rng([5, seed])
        rows = [
            (f"i{i}", name, " ".join(f"w{k}" for k in rng.zipf(1.5, 6).clip(0, 60)))
            for i in range(25)
            for name in ("ana", "ben", "cem")
        ]
        listed += style_words(texts_of(rows), seed=seed).height > 0
    assert listed <= 5


def test_order_of_rows_does_not_matter() -> None:
    corpus = persona_corpus(n_train=9)
    assert style_words(corpus, seed=0).equals(style_words(corpus.sample(fraction=1.0, shuffle=True, seed=1), seed=0))


def test_texts_without_words_have_no_terms() -> None:
    assert style_words(texts_of([("i", "ana", "..."), ("i", "ben", "")]), seed=0).height == 0
