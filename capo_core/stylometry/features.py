"""Named features of style: what each is, in which unit, and its value for every explanation.

A word is what `capo_core.text.words` says, with ’ written as '. For the word lists (`lexicons`) and the tagger, a word
with an apostrophe is two parts, as in the Penn Treebank: does|n't, it|'s; it is counted if the word or a part is in the
list. A rate is a count divided by the number of words, undefined (null) without words; punctuation and digits are
divided by characters. White space around an explanation counts only in leading_space and trailing_space. Lists, tagger
and readability are for English: for other languages leave those features out.

All are measured in one pass (`style_counts`): the counts of each distinct token once, those that depend on the order of
characters or words by compiled code; here each feature is a formula over the counts. Memory beside the result does not
grow with the rows.

Parts of speech are those of `syntax`, whose model is packaged. Parse trees are left out: no parser was found that
ships its model in a package. Readability is our own: textstat downloads a pronouncing dictionary when first used.
Character n-grams and sentence embeddings are not named features; they are the families that the attribution classifier
reads (`attribution`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.stylometry.style_counts import count_style
from capo_core.stylometry.syntax import PARTS_OF_SPEECH


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

_MARK_FEATURES = {
    "comma_rate": "commas",
    "full_stop_rate": "full_stops",
    "quote_rate": "quotes",
    "parenthesis_rate": "parentheses",
}
"""Rates of marks: feature, count."""

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

_SCHEMA = dict.fromkeys(NAMES, pl.Float64)
_SLICE_BYTES = 1 << 21
"""Text that one thread works on at a time: little enough for its arrays to stay in cache, whatever the rows."""


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
    _require_columns(annotations)
    passed_on = annotations.select([name for name in _PASSED_ON if name in annotations.columns])
    measured = pl.concat([pl.DataFrame(schema=_SCHEMA), *_measure_slices(annotations)], rechunk=False)
    return pl.concat([passed_on, measured], how="horizontal")


def feature_matrix(annotations: pl.DataFrame) -> np.ndarray:
    """Return the features of every explanation, [n, F] in the order of `FEATURES`, NaN where undefined.

    Args:
        annotations: as for `style_features`.

    Raises:
        CorpusError: if a required column is missing.
    """
    _require_columns(annotations)
    matrix, start = np.empty((len(NAMES), len(annotations))).T, 0
    for measured in _measure_slices(annotations):
        matrix[start : start + len(measured)] = measured.to_numpy()
        start += len(measured)
    return matrix


def _require_columns(annotations: pl.DataFrame) -> None:
    """Raise CorpusError if a required column is missing."""
    if missing := [name for name in REQUIRED if name not in annotations.columns]:
        raise CorpusError(f"style features need the columns {list(REQUIRED)}; {missing} are not there")


def _measure_slices(annotations: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the features of slices of the rows in order, measured by as many threads as polars has."""
    texts = annotations.select(pl.col(REQUIRED).cast(pl.String))
    if texts.is_empty():
        return
    n_bytes = texts.select(pl.sum_horizontal(pl.all().str.len_bytes().sum())).item()
    rows = max(1, min(len(texts), len(texts) * _SLICE_BYTES // max(n_bytes, 1)))
    slices = list(texts.iter_slices(rows))
    n_threads = min(pl.thread_pool_size(), len(slices))
    if n_threads == 1:
        yield from map(_measure, slices)
        return
    with ThreadPoolExecutor(n_threads) as threads:
        yield from threads.map(_measure, slices)


def _measure(texts: pl.DataFrame) -> pl.DataFrame:
    """Return the features of one slice."""
    features = count_style(texts).select(_expressions())
    if not texts["explanation"].has_nulls():
        return features
    return features.select(pl.when(texts["explanation"].is_not_null()).then(pl.all()))


def _expressions() -> list[pl.Expr]:
    """Return each feature as an expression over the counts of `style_counts`."""
    n_words, n_characters, n_letters = (
        pl.when(pl.col(name) > 0).then(pl.col(name).cast(pl.Float64)) for name in ("words", "characters", "letters")
    )
    by_name = {name: pl.col(name) for name in ("characters", "words", "sentences", "copied_run")} | {
        "words_per_sentence": n_words / pl.col("sentences"),
        "word_length": pl.col("word_characters") / n_words,
        "type_token_ratio": pl.col("distinct_words") / n_words,
        "quoted_share": pl.col("quoted_words") / n_words,
        "copied_share": pl.col("copied_words") / n_words,
        "starts_lower_case": pl.when(pl.col("letters") > 0).then("starts_lower_case"),
        "capital_rate": pl.col("capitals") / n_letters,
        "digit_rate": pl.col("digits") / n_characters,
        "other_punctuation_rate": pl.col("other_punctuation") / n_characters,
        "reading_ease": 206.835 - 1.015 * n_words / pl.col("sentences") - 84.6 * pl.col("syllables") / n_words,
    }
    flags = ("ends_with_full_stop", "leading_space", "trailing_space")
    by_name |= {name: pl.when(pl.col("characters") > 0).then(name) for name in flags}
    by_name |= {name: pl.col(file) / n_words for name, (file, _) in _LEXICON_FEATURES.items()}
    by_name |= {f"{name}_rate": pl.col(name) / n_words for name in PARTS_OF_SPEECH}
    by_name |= {name: pl.col(marks) / n_characters for name, marks in _MARK_FEATURES.items()}
    return [by_name[name].cast(pl.Float64).alias(name) for name in NAMES]
