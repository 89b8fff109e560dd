"""Explanations without end: real ones taken apart and put together again, for measurements on many rows."""

from __future__ import annotations

import numpy as np
import polars as pl

ROWS_PER_ITEM = 4


def vary_explanations(corpus: pl.DataFrame, n_rows: int, seed: int = 13) -> pl.DataFrame:
    """Return `n_rows` annotations made of real ones, nearly all distinct; rows of an item stand together.

    An explanation is the first half of one explanation of the item, a drawn word, and the second half of another of
    the same item; the first text of the item gets a drawn word at its end. Half of the words drawn are words of the
    corpus with a letter lost, so that new words keep coming up, as they do in notes.

    Args:
        corpus: columns item_id, explanation, text_a, text_b.
        n_rows: rows to make.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    halves = _split_halves(corpus)
    words = _list_words(corpus, rng)
    items = rng.integers(len(halves), size=-(-n_rows // ROWS_PER_ITEM)).repeat(ROWS_PER_ITEM)[:n_rows]
    sizes = halves["first"].list.len().to_numpy().astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    first, second = (halves[name].explode(empty_as_null=True) for name in ("first", "second"))

    def draw_words(n: int) -> pl.Series:
        return words[rng.integers(len(words), size=n)]

    def draw_explanations() -> np.ndarray:
        return starts[items] + rng.integers(0, sizes[items])

    of_items = draw_words(len(items) // ROWS_PER_ITEM + 1)[np.arange(n_rows) // ROWS_PER_ITEM]
    return pl.DataFrame(
        {
            "explanation": first[draw_explanations()] + draw_words(n_rows) + second[draw_explanations()],
            "text_a": halves["text_a"][items] + of_items,
            "text_b": halves["text_b"][items],
        }
    )


def _split_halves(corpus: pl.DataFrame) -> pl.DataFrame:
    """Return each item's texts and the halves of its explanations, cut before a word."""
    halves = []
    for text in corpus["explanation"]:
        cut = text.find(" ", len(text) // 2)
        halves.append((text[:cut], text[cut:]) if cut > 0 else (text, ""))
    cut_up = corpus.with_columns(
        pl.Series("first", [a for a, _ in halves]), pl.Series("second", [b for _, b in halves])
    )
    return cut_up.group_by("text_a", "text_b", maintain_order=True).agg("first", "second")


def _list_words(corpus: pl.DataFrame, rng: np.random.Generator) -> pl.Series:
    """Return the corpus's words as they stand, and as many with a letter lost, each after a space."""
    found = corpus["explanation"].str.split(" ").explode(empty_as_null=True).drop_nulls().unique(maintain_order=True)
    found = found.filter(found.str.len_chars() > 3)
    lost = rng.integers(1, found.str.len_chars().to_numpy())
    misspelt = [word[:cut] + word[cut + 1 :] for word, cut in zip(found, lost, strict=True)]
    return " " + pl.concat([found, pl.Series("explanation", misspelt)])
