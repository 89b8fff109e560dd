"""The counts that style features are made of, all in one pass over a slice of texts.

Texts are split into tokens, distinct tokens numbered, each distinct token measured once (`token_counts`), and its
counts summed by text; what depends on the order of characters or words is counted by the compiled pass
(`counting_pass`). The texts of an item are read once for each run of rows that share them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from capo_core.stylometry.syntax import PARTS_OF_SPEECH
from capo_core.stylometry.token_counts import COUNTED, measure_token

_TEXTS = ("text_a", "text_b")


class _Tokens(NamedTuple):
    """The tokens of all texts, one text after the other.

    Attributes:
        numbers: of each token, which distinct one it is [tokens].
        bounds: where each text's tokens begin, and the last one's end [texts + 1].
        words: of each distinct token, its number as a word; -1 for a mark [distinct].
        n_words: number of distinct words.
        counts: of each distinct token, what it adds to `COUNTED` [distinct, counted].
        opening: of each distinct token, what to add to the parts of speech where it opens a text [distinct, parts].
    """

    numbers: np.ndarray
    bounds: np.ndarray
    words: np.ndarray
    n_words: int
    counts: np.ndarray
    opening: np.ndarray


def count_style(texts: pl.DataFrame) -> pl.DataFrame:
    """Return the counts of every explanation, rows as given.

    Args:
        texts: columns explanation, text_a, text_b, String, at least one row. A missing explanation counts as empty.

    Returns:
        Int32 columns: those of `token_counts.COUNTED`, distinct_words, sentences, quoted_words, copied_words and
        copied_run (both null where a text is missing), characters, and the flags leading_space, trailing_space,
        ends_with_full_stop and starts_lower_case, which mean nothing without characters or letters.
    """
    from capo_core.stylometry import counting_pass  # half a second to import, and only features need it

    n = len(texts)
    items = texts.select(item=pl.struct(_TEXTS).rle_id())["item"]
    read = texts.select(_TEXTS).filter(items.is_first_distinct())
    series = pl.concat([texts["explanation"], read["text_a"], read["text_b"]]).fill_null("")
    text = series.str.join("\n").item() + "\n"
    bounds = np.concatenate([[0], np.cumsum(series.str.len_chars() + 1, dtype=np.int64)])
    codes = np.array([text]).view(np.uint32)  # numpy keeps text as code points
    kinds = counting_pass.find_kinds(codes, counting_pass.character_kinds())
    tokens = _number(text, codes, kinds, bounds)

    sums = counting_pass.sum_tokens(tokens.numbers, tokens.bounds[: n + 1], tokens.counts)
    not_empty = np.flatnonzero(np.diff(tokens.bounds[: n + 1]))
    sums[not_empty, : len(PARTS_OF_SPEECH)] += tokens.opening[tokens.numbers[tokens.bounds[not_empty]]]
    words, word_bounds = counting_pass.keep_words(tokens.numbers, tokens.bounds, tokens.words)
    distinct = counting_pass.count_distinct(words, word_bounds[: n + 1], tokens.n_words)
    pieces = counting_pass.count_pieces(kinds, bounds[: n + 1])
    ends = counting_pass.describe_ends(kinds, bounds[: n + 1])
    of_item = items.to_numpy().astype(np.int64)
    copied = counting_pass.count_copied(words, word_bounds, n + of_item[:, None] + [0, len(read)])

    names = (*COUNTED, "distinct_words", "sentences", "quoted_words", "copied_words", "copied_run")
    names += ("characters", "leading_space", "trailing_space", "ends_with_full_stop", "starts_lower_case")
    counts = pl.DataFrame(np.column_stack([sums, distinct, pieces, copied, ends]), schema=list(names))
    both = texts["text_a"].is_not_null() & texts["text_b"].is_not_null()
    return counts.with_columns(pl.when(both).then(pl.col("copied_words", "copied_run")))


def _number(text: str, codes: np.ndarray, kinds: np.ndarray, bounds: np.ndarray) -> _Tokens:
    """Return the tokens of all texts, each distinct one measured."""
    from capo_core.stylometry import counting_pass

    spans, hashes, token_bounds = counting_pass.split_tokens(codes, kinds, bounds)
    numbers, first = counting_pass.number_tokens(codes, spans, hashes)
    distinct = [measure_token(text[start:end]) for start, end in zip(*first.T.tolist(), strict=True)]
    word_numbers: dict[str, int] = {}
    words = [-1 if t.word is None else word_numbers.setdefault(t.word, len(word_numbers)) for t in distinct]
    counts = np.frombuffer(b"".join([t.counts for t in distinct]), np.int32).reshape(-1, len(COUNTED))
    opening = np.frombuffer(b"".join([t.opening for t in distinct]), np.int32).reshape(-1, len(PARTS_OF_SPEECH))
    return _Tokens(numbers, token_bounds, np.array(words, np.int32), len(word_numbers), counts, opening)
