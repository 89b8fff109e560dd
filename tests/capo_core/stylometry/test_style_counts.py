"""The one pass over texts against the same counts taken plainly: regular expressions and Python, one row at a time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import paraphrase_corpus, varierr_corpus

from capo_core.stylometry import counting_pass, features
from capo_core.stylometry.overlap import join_texts, longest_shared_run
from capo_core.stylometry.style_counts import count_style
from capo_core.stylometry.syntax import PARTS_OF_SPEECH
from capo_core.stylometry.token_counts import LEXICONS, PUNCTUATION, count_syllables, split_contraction
from capo_core.text import words

_TOKEN = re.compile(r"(?P<word>[^\W_]+(?:['’][^\W_]+)*)|[^\w\s]|_")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)")
_QUOTED = re.compile(r"(?<!\w)[\"“„«'‘](.+?)[\"”“»'’](?!\w)", re.DOTALL)
_PIECES = (
    *(
        "can't",
        "It's",
        "don’t",
        "The",
        "not",
        "Running",
        "rock'n'roll",
        "xn't",
        "n't",
        "O'Neil",
        "e.g.",
        "1.5",
        "²",
        "٣",
    ),
    *("ß", "ŉ", "İ", "ı", "ſ", "ﬁ", "ǅ", "ΣΑΣ", "Ж", "女", "ª", "̈", "😀", "𝔸", "ⓐ", "_", "—", "-", "a", "B", "table"),
    *(".", "...", "!", "?", "…", ",", '"', "'", "’", "‘", "“", "”", "„", "«", "»", "(", ")", "]", "''"),
    *('." a', '." "a', ".') b", "... ", "a. b", ' "a b" ', "'a b'_", "“a” ", " 'n' ", "the table ", " not the "),
    *(" ", " ", " ", " ", "\n", "\t", "\r", "\x00", "\x85", "\u2028", "\u00a0", "\u200d"),
)
TEXTS = st.one_of(st.lists(st.sampled_from(_PIECES), max_size=30).map("".join), st.text(max_size=30))
ROWS = st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS), min_size=1, max_size=12)


def as_frame(rows: list[tuple[str | None, str | None, str | None]]) -> pl.DataFrame:
    """Return rows of explanation and texts."""
    return pl.DataFrame(rows, schema=dict.fromkeys(("explanation", "text_a", "text_b"), pl.String), orient="row")


def count_plainly(explanation: str, text_a: str | None, text_b: str | None) -> dict[str, int | None]:
    """Return the counts of one explanation, each as its definition says it."""
    text, own = explanation.strip(), [word.replace("’", "'") for word in words(explanation)]
    parts = [{word, *split_contraction(word)} for word in own]
    marks = [match.group() for match in _TOKEN.finditer(text) if match["word"] is None]
    letters = [character for character in text if character.isalpha()]
    known = {name: sum(mark in members for mark in marks) for name, members in PUNCTUATION.items()}
    both = [[w.replace("’", "'") for w in words(t)] for t in (text_a, text_b) if t is not None]
    read = both if len(both) == 2 else None
    return {
        **{name: sum(not part.isdisjoint(listed) for part in parts) for name, listed in LEXICONS.items()},
        **known,
        **_tag_plainly(explanation),
        "other_punctuation": len(marks) - sum(known.values()),
        "words": len(own),
        "word_characters": sum(map(len, own)),
        "distinct_words": len(set(own)),
        "syllables": sum(map(count_syllables, own)),
        "sentences": sum(bool(words(piece)) for piece in _SENTENCE_END.split(explanation)),
        "quoted_words": sum(len(words(quoted)) for quoted in _QUOTED.findall(explanation)),
        "copied_words": None if read is None else sum(word in read[0] + read[1] for word in own),
        "copied_run": None if read is None else longest_shared_run(own, join_texts(read)),
        "characters": len(text),
        "letters": len(letters),
        "capitals": sum(map(str.isupper, letters)),
        "digits": sum(map(str.isdecimal, text)),
        "starts_lower_case": int(letters[0].islower()) if letters else None,
        "ends_with_full_stop": int(text.endswith(".")) if text else None,
        "leading_space": int(explanation[0].isspace()) if text else None,
        "trailing_space": int(explanation[-1].isspace()) if text else None,
    }


def _tag_plainly(explanation: str) -> dict[str, int]:
    """Return the parts of speech of all tokens of one explanation, tagged together."""
    from textblob.en import parser

    tokens: list[str] = []
    for match in _TOKEN.finditer(explanation):
        tokens += [match.group()] if match["word"] is None else split_contraction(match.group())
    tags = [tag for _, tag in parser.find_tags(tokens)]
    return {name: sum(tag.startswith(prefix) for tag in tags) for name, prefix in PARTS_OF_SPEECH.items()}


def assert_counts_are_plain(frame: pl.DataFrame) -> None:
    """Compare every count of every row; flags only where they mean something."""
    counted = count_style(frame).to_dicts()
    for row, counts in zip(frame.iter_rows(), counted, strict=True):
        expected = count_plainly(row[0] or "", *row[1:])
        assert expected.keys() == counts.keys()
        meant = {name for name, n in expected.items() if n is not None or name.startswith("copied")}
        assert {n: counts[n] for n in meant} == {n: expected[n] for n in meant}, row


@settings(max_examples=400, deadline=None)
@given(ROWS)
def test_counts_of_any_text_are_those_taken_plainly(rows: list[tuple[str | None, str | None, str | None]]) -> None:
    assert_counts_are_plain(as_frame(rows))


@pytest.mark.parametrize("corpus", [varierr_corpus, paraphrase_corpus])
def test_counts_of_published_explanations_are_those_taken_plainly(corpus: Callable[[], pl.DataFrame]) -> None:
    assert_counts_are_plain(corpus().select("explanation", "text_a", "text_b"))


def test_every_code_point_is_split_as_the_regular_expressions_do() -> None:
    # Each between two letters: a letter joins them, an apostrophe too, a mark is a token of its own, a space is none.
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    text = "".join(f"a{character}b " for character in every) + "\n"
    codes = np.array([text]).view(np.uint32)
    kinds = counting_pass.find_kinds(codes, counting_pass.character_kinds())
    spans, _, _ = counting_pass.split_tokens(codes, kinds, np.array([0, len(text)]))
    assert np.array_equal(spans, [match.span() for match in _TOKEN.finditer(text)])


def test_more_distinct_words_than_the_hash_table_begins_with_stay_distinct() -> None:
    # 5,000 words; the table begins with 4,096 slots, grows at 2,048 words to 16,384, where all fit.
    text = " ".join(f"w{number}" for number in range(5_000))
    counts = count_style(as_frame([(f"{text} {text}", text, "")])).row(0, named=True)
    assert (counts["words"], counts["distinct_words"], counts["copied_run"]) == (10_000, 5_000, 5_000)


def test_slices_and_threads_do_not_change_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"It's {'very ' * (n % 7)}late, no. {n}", f"It is {n // 3}", "late") for n in range(300)]
    frame = as_frame([*rows, (None, "a", "b"), ("", None, "b")])
    whole = features.style_features(frame)
    monkeypatch.setattr(features, "_SLICE_BYTES", 200)  # 302 rows of some 30 bytes: slices of six or so
    sliced = features.style_features(frame)
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 1)
    assert whole.equals(sliced)
    assert whole.equals(features.style_features(frame))
    assert np.array_equal(features.feature_matrix(frame), whole.select(features.NAMES).to_numpy(), equal_nan=True)


def test_order_of_rows_does_not_change_a_feature() -> None:
    # Items stand together in one order and apart in the other.
    frame = as_frame([(f"the words {n} of {n % 5}", f"words of {n % 3}", f"{n % 4} the") for n in range(60)])
    shuffled = frame.with_row_index().sample(fraction=1, shuffle=True, seed=3)
    again = features.style_features(shuffled).with_columns(shuffled["index"]).sort("index").drop("index")
    assert features.style_features(frame).equals(again)


def test_importing_features_loads_neither_the_compiler_nor_the_tagger() -> None:
    code = "import sys, capo_core.stylometry.features; sys.exit(bool({'numba', 'textblob', 'torch'} & {*sys.modules}))"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
