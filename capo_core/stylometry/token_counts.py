"""What one token adds to the counts of its text: measured once for each distinct token, whatever the number of rows.

A token is a word with its apostrophes or any other single character that is not white space (a mark). For the word
lists and the tagger a word with an apostrophe is two parts, as in the Penn Treebank: does|n't, it|'s.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from capo_core.stylometry.lexicons import read_lexicon
from capo_core.stylometry.syntax import PARTS_OF_SPEECH, count_parts_of_speech

LEXICONS = {
    name: read_lexicon(name)
    for name in (
        *("articles", "pronouns", "prepositions", "conjunctions", "auxiliaries", "first_person", "second_person"),
        *("hedges", "boosters", "negation", "task_words", "connectives"),
    )
}
PUNCTUATION = {"commas": ",", "full_stops": ".", "quotes": "\"'“”„‘’‚«»", "parentheses": "()"}
_OF_CHARACTERS = ("letters", "capitals", "digits")
_OF_WORDS = ("words", "word_characters", "syllables")

COUNTED = (*PARTS_OF_SPEECH, *_OF_WORDS, *_OF_CHARACTERS, *LEXICONS, *PUNCTUATION, "other_punctuation")
"""What is counted of a token, in the order of `Token.counts`; parts of speech first."""

_REMEMBERED = 1 << 17
_VOWELS = re.compile("[aeiouy]+")
_SILENT_E = re.compile("(?:[^l]|[aeiouy]l)e$")


class Token(NamedTuple):
    """One distinct token.

    Attributes:
        word: case-folded, ’ written as '; None for a mark.
        counts: what it adds to each of `COUNTED`, int32.
        opening: what to add to the parts of speech if it opens a text, int32.
    """

    word: str | None
    counts: bytes
    opening: bytes


@lru_cache(_REMEMBERED)
def measure_token(token: str) -> Token:
    """Return what a token, as written, adds to the counts of its text."""
    is_word = token[0].isalnum()
    parts = split_contraction(token) if is_word else [token]
    tags = count_parts_of_speech(parts, opening=False)
    opening = np.subtract(count_parts_of_speech(parts, opening=True), tags)
    word = token.casefold().replace("’", "'") if is_word else None
    counts = (*tags, *_count_word(word), *_count_characters(token), *_count_listed(word), *_count_mark(token, is_word))
    return Token(word, np.array(counts, np.int32).tobytes(), opening.astype(np.int32).tobytes())


def count_syllables(word: str) -> int:
    """Return the syllables of a case-folded English word: runs of a, e, i, o, u, y, less a silent e; at least 1.

    A final e is silent unless consonant and l stand before it.
    """
    runs = len(_VOWELS.findall(word))
    return max(1, runs - bool(_SILENT_E.search(word)))


def split_contraction(word: str) -> list[str]:
    """Return the parts of a word with an apostrophe, straight in what is returned: doesn’t -> does n't; it's -> it 's.

    Case is kept; a word without apostrophe is its only part.
    """
    word = word.replace("’", "'")
    if word.lower().endswith("n't") and len(word) > 3:
        return [word[:-3], word[-3:]]
    stem, apostrophe, rest = word.partition("'")
    return [stem, apostrophe + rest] if apostrophe else [word]


def _count_word(word: str | None) -> tuple[int, int, int]:
    """Return whether it is a word, its characters and its syllables."""
    return (0, 0, 0) if word is None else (1, len(word), count_syllables(word))


def _count_characters(token: str) -> tuple[int, int, int]:
    """Return its letters, upper-case letters and decimal digits."""
    letters = [character for character in token if character.isalpha()]
    return len(letters), sum(map(str.isupper, letters)), sum(map(str.isdecimal, token))


def _count_listed(word: str | None) -> list[int]:
    """Return for each list whether the word or a part of it is in it."""
    parts = set() if word is None else {word, *split_contraction(word)}
    return [not parts.isdisjoint(listed) for listed in LEXICONS.values()]


def _count_mark(token: str, is_word: bool) -> list[int]:
    """Return which mark it is; a word is none."""
    known = [not is_word and token in marks for marks in PUNCTUATION.values()]
    return [*known, not is_word and not any(known)]
