"""Named features of style: what each is, in which unit, and its value for every explanation.

A word is what `capo_core.text.words` says, with ’ written as '. For the word lists (`lexicons`) and the tagger, a word
with an apostrophe is two parts, as in the Penn Treebank: does|n't, it|'s; it is counted if the word or a part is in the
list. A rate is a count divided by the number of words, undefined (null) without words; punctuation and digits are
divided by characters. White space around an explanation counts only in leading_space and trailing_space. Lists, tagger
and readability are for English: for other languages leave those features out.

Parts of speech are those of `syntax`, whose model is packaged. Parse trees are left out: no parser was found that
ships its model in a package. Readability is our own: textstat downloads a pronouncing dictionary when first used.
Character n-grams and sentence embeddings are not named features; they are the families that the attribution classifier
reads (`attribution`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.stylometry.lexicons import read_lexicon
from capo_core.stylometry.overlap import join_texts, longest_shared_run
from capo_core.stylometry.syntax import PARTS_OF_SPEECH, count_parts_of_speech
from capo_core.text import words


class Feature(NamedTuple):
    """A named property of one explanation."""

    name: str
    unit: str
    definition: str


PER_WORD = "share of words"
PER_CHARACTER = "share of characters"
YES = "1 yes, 0 no"

_LEXICON_FEATURES = {
    "article_rate": ("articles", "Words that are articles"),
    "pronoun_rate": ("pronouns", "Words that are pronouns or pronominal determiners"),
    "preposition_rate": ("prepositions", "Words that are simple prepositions"),
    "conjunction_rate": ("conjunctions", "Words that are conjunctions, `that` included"),
    "auxiliary_rate": ("auxiliaries", "Words that are forms of be, have, do or modals, contracted ones included"),
    "first_person_rate": ("first_person", "Words of the first person"),
    "second_person_rate": ("second_person", "Words of the second person"),
    "hedge_rate": ("hedges", "Words that withhold full commitment"),
    "booster_rate": ("boosters", "Words that claim certainty"),
    "negation_rate": ("negation", "Words of negation, n't included"),
    "task_word_rate": ("task_words", "Words that speak of the task: its texts, relations and labels"),
    "connective_rate": ("connectives", "Words that join by cause, condition, contrast, addition or result"),
}
"""Rates of words of a list: feature, list, definition."""

FEATURES: tuple[Feature, ...] = (
    Feature("characters", "characters", "Unicode characters, white space around the explanation removed."),
    Feature("words", "words", "Number of words."),
    Feature(
        "sentences",
        "sentences",
        "Pieces with a word in them, cut after every run of . ! ? … that ends the text or stands before white space, "
        "closing quotation marks or brackets between allowed.",
    ),
    Feature("words_per_sentence", "words", "Words divided by sentences; undefined without words."),
    Feature("word_length", "characters", "Mean number of characters of a word, apostrophes in it included."),
    Feature("type_token_ratio", "share of words", "Distinct words divided by words; falls with length."),
    *(Feature(name, PER_WORD, f"{text} ({file}.txt).") for name, (file, text) in _LEXICON_FEATURES.items()),
    *(
        Feature(f"{name}_rate", PER_WORD, f"Word parts with a Penn tag {tag}…, divided by words.")
        for name, tag in PARTS_OF_SPEECH.items()
    ),
    Feature(
        "quoted_share",
        PER_WORD,
        "Words between a quotation mark that follows no word character and the next that precedes none.",
    ),
    Feature("copied_share", PER_WORD, "Words that also stand in either text of the item."),
    Feature("copied_run", "words", "Longest run of words that stands unbroken in one text of the item; 0 for none."),
    Feature("comma_rate", PER_CHARACTER, "Commas."),
    Feature("full_stop_rate", PER_CHARACTER, "Full stops, wherever they stand."),
    Feature("quote_rate", PER_CHARACTER, "Quotation marks, single ones included; apostrophes inside a word are none."),
    Feature("parenthesis_rate", PER_CHARACTER, "Round brackets."),
    Feature("other_punctuation_rate", PER_CHARACTER, "Whatever is no word, white space or mark counted above."),
    Feature("starts_lower_case", YES, "The first letter is lower-case; undefined without letters."),
    Feature("ends_with_full_stop", YES, "The last character, white space aside, is a full stop; undefined if empty."),
    Feature("leading_space", YES, "The explanation begins with white space; undefined if there is nothing else."),
    Feature("trailing_space", YES, "The explanation ends with white space; undefined if there is nothing else."),
    Feature("capital_rate", "share of letters", "Letters that are upper-case; undefined without letters."),
    Feature("digit_rate", PER_CHARACTER, "Decimal digits."),
    Feature(
        "reading_ease",
        "Flesch reading ease",
        "206.835 - 1.015 words / sentences - 84.6 syllables / words (Flesch 1948); a word has as many syllables as "
        "runs of a, e, i, o, u, y, one less for a final e (not after consonant and l), at least one.",
    ),
)
"""Every feature, in the order of the columns."""

NAMES = tuple(feature.name for feature in FEATURES)
REQUIRED = ("explanation", "text_a", "text_b")
_PASSED_ON = ("item_id", "annotator_id", "label", "explanation")

_LEXICONS = {name: read_lexicon(file) for name, (file, _) in _LEXICON_FEATURES.items()}
_TOKEN = re.compile(r"(?P<word>[^\W_]+(?:['’][^\W_]+)*)|[^\w\s]|_")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)")
_QUOTED = re.compile(r"(?<!\w)[\"“„«'‘](.+?)[\"”“»'’](?!\w)", re.DOTALL)
_PUNCTUATION = {"comma": ",", "full_stop": ".", "quote": "\"'“”„‘’‚«»", "parenthesis": "()"}
_VOWELS = re.compile("[aeiouy]+")
_SILENT_E = re.compile("(?:[^l]|[aeiouy]l)e$")


def style_features(annotations: pl.DataFrame) -> pl.DataFrame:
    """Return every named feature of every explanation, rows as given.

    Args:
        annotations: columns explanation, text_a, text_b; item_id, annotator_id and label where there are any. Missing
            explanations have no features; copying is undefined where a text of the item is missing.

    Returns:
        item_id, annotator_id, label (each only if given), explanation, then a Float64 column for each of `FEATURES`,
        null where undefined.

    Raises:
        CorpusError: if a required column is missing.
    """
    if missing := [name for name in REQUIRED if name not in annotations.columns]:
        raise CorpusError(f"style features need the columns {list(REQUIRED)}; {missing} are not there")
    texts = annotations.select(pl.col(REQUIRED).cast(pl.String))
    unique = texts.filter(pl.col("explanation").is_not_null()).unique(maintain_order=True)
    measured = pl.concat([unique, _count_all(unique).select(_expressions())], how="horizontal")
    joined = texts.join(measured, on=list(REQUIRED), how="left", nulls_equal=True, maintain_order="left")
    passed_on = annotations.select([name for name in _PASSED_ON if name in annotations.columns])
    return pl.concat([passed_on, joined.select(NAMES)], how="horizontal")


def feature_matrix(annotations: pl.DataFrame) -> np.ndarray:
    """Return the features of every explanation, [n, F] in the order of `FEATURES`, NaN where undefined.

    Args:
        annotations: as for `style_features`.

    Raises:
        CorpusError: if a required column is missing.
    """
    return style_features(annotations).select(NAMES).to_numpy().astype(float)


def count_syllables(word: str) -> int:
    """Return the syllables of a case-folded English word by its vowels, see reading_ease; at least 1."""
    runs = len(_VOWELS.findall(word))
    return max(1, runs - bool(_SILENT_E.search(word)))


def _count_all(texts: pl.DataFrame) -> pl.DataFrame:
    """Return the counts that the features are made of, one row for each of the distinct texts."""
    inputs = {pair: _read_input(*pair) for pair in texts.select("text_a", "text_b").unique().iter_rows()}
    counts, tokens = [], []
    for explanation, text_a, text_b in texts.select(REQUIRED).iter_rows():
        own = [word.replace("’", "'") for word in words(explanation)]
        tokens.append(_split_tokens(explanation))
        counts.append(
            _count_characters(explanation) | _count_words(explanation, own) | _count_copied(own, inputs[text_a, text_b])
        )
    tagged = count_parts_of_speech(tokens)
    return pl.DataFrame([a | b for a, b in zip(counts, tagged, strict=True)], schema=_COUNTS)


def _expressions() -> list[pl.Expr]:
    """Return each feature as an expression over the counts."""
    n_words, n_characters = (pl.when(pl.col(name) > 0).then(pl.col(name)) for name in ("words", "characters"))
    direct = ("characters", "words", "sentences", "copied_run")
    flags = ("starts_lower_case", "ends_with_full_stop", "leading_space", "trailing_space")
    by_name = {name: pl.col(name) for name in (*direct, *flags)} | {
        "words_per_sentence": n_words / pl.col("sentences"),
        "word_length": pl.col("word_characters") / n_words,
        "type_token_ratio": pl.col("distinct_words") / n_words,
        "quoted_share": pl.col("quoted_words") / n_words,
        "copied_share": pl.col("copied_words") / n_words,
        "capital_rate": pl.col("capitals") / pl.when(pl.col("letters") > 0).then(pl.col("letters")),
        "digit_rate": pl.col("digits") / n_characters,
        "reading_ease": 206.835 - 1.015 * n_words / pl.col("sentences") - 84.6 * pl.col("syllables") / n_words,
    }
    by_name |= {name: pl.col(name) / n_words for name in _LEXICON_FEATURES}
    by_name |= {f"{name}_rate": pl.col(name) / n_words for name in PARTS_OF_SPEECH}
    by_name |= {f"{name}_rate": pl.col(name) / n_characters for name in (*_PUNCTUATION, "other_punctuation")}
    return [by_name[name].cast(pl.Float64).alias(name) for name in NAMES]


def _read_input(text_a: str | None, text_b: str | None) -> tuple[frozenset[str], str] | None:
    """Return the distinct words of an item and its texts joined for `longest_shared_run`; None if one is missing."""
    if text_a is None or text_b is None:
        return None
    both = [[word.replace("’", "'") for word in words(text)] for text in (text_a, text_b)]
    return frozenset(both[0]) | frozenset(both[1]), join_texts(both)


def _count_characters(explanation: str) -> dict[str, int | bool | None]:
    """Return the counts of characters, and how the explanation begins and ends."""
    text = explanation.strip()
    marks = [match.group() for match in _TOKEN.finditer(text) if match["word"] is None]
    letters = [character for character in text if character.isalpha()]
    counts: dict[str, int | bool | None] = {
        kind: sum(mark in members for mark in marks) for kind, members in _PUNCTUATION.items()
    }
    n_known = sum(mark in "".join(_PUNCTUATION.values()) for mark in marks)
    return counts | {
        "characters": len(text),
        "other_punctuation": len(marks) - n_known,
        "letters": len(letters),
        "capitals": sum(letter.isupper() for letter in letters),
        "digits": sum(character.isdecimal() for character in text),
        "starts_lower_case": letters[0].islower() if letters else None,
        "ends_with_full_stop": text.endswith(".") if text else None,
        "leading_space": explanation[0].isspace() if text else None,
        "trailing_space": explanation[-1].isspace() if text else None,
    }


def _count_words(explanation: str, own: list[str]) -> dict[str, int]:
    """Return the counts of words."""
    parts = [{word, *_split_contraction(word)} for word in own]
    listed = {name: sum(not found.isdisjoint(lexicon) for found in parts) for name, lexicon in _LEXICONS.items()}
    return listed | {
        "words": len(own),
        "word_characters": sum(map(len, own)),
        "distinct_words": len(set(own)),
        "sentences": sum(bool(words(piece)) for piece in _SENTENCE_END.split(explanation)),
        "syllables": sum(map(count_syllables, own)),
        "quoted_words": sum(len(words(quoted)) for quoted in _QUOTED.findall(explanation)),
    }


def _count_copied(own: list[str], read: tuple[frozenset[str], str] | None) -> dict[str, int | None]:
    """Return how many words stand in the item's texts, and the longest run of them."""
    if read is None:
        return {"copied_words": None, "copied_run": None}
    known, joined = read
    return {"copied_words": sum(word in known for word in own), "copied_run": longest_shared_run(own, joined)}


def _split_contraction(word: str) -> list[str]:
    """Return the parts of a word with an apostrophe, straight in what is returned: doesn’t -> does n't; it's -> it 's.

    Case is kept; a word without apostrophe is its only part.
    """
    word = word.replace("’", "'")
    if word.lower().endswith("n't") and len(word) > 3:
        return [word[:-3], word[-3:]]
    stem, apostrophe, rest = word.partition("'")
    return [stem, apostrophe + rest] if apostrophe else [word]


def _split_tokens(text: str) -> list[str]:
    """Return words, contractions split, and every other mark, as written."""
    tokens = []
    for match in _TOKEN.finditer(text):
        tokens += [match.group()] if match["word"] is None else _split_contraction(match.group())
    return tokens


_FLAGS = dict.fromkeys(("starts_lower_case", "ends_with_full_stop", "leading_space", "trailing_space"), pl.Boolean)
_COUNTS = (
    dict.fromkeys(
        (
            *("characters", "words", "word_characters", "distinct_words", "sentences", "syllables", "quoted_words"),
            *("copied_words", "copied_run", "letters", "capitals", "digits", "other_punctuation"),
            *_LEXICON_FEATURES,
            *PARTS_OF_SPEECH,
            *_PUNCTUATION,
        ),
        pl.Int64,
    )
    | _FLAGS
)
