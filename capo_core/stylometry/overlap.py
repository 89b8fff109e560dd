"""Runs of words that a text shares with others: what was copied word for word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_BREAK = " | "
"""Between texts; not a word character, so that no run of words crosses it."""


def join_texts(texts: Iterable[Sequence[str]]) -> str:
    """Return texts, each a sequence of words, as one string in which `longest_shared_run` can search."""
    return _BREAK + _BREAK.join(" ".join(text) for text in texts) + _BREAK


def longest_shared_run(own: Sequence[str], joined: str) -> int:
    """Return the number of words in the longest run of `own` that stands, in order and unbroken, in one of the texts.

    Args:
        own: words, as `capo_core.text.words` gives them.
        joined: the other texts, from `join_texts`.
    """
    longest = 0
    for start in range(len(own)):
        while start + longest < len(own) and f" {' '.join(own[start : start + longest + 1])} " in joined:
            longest += 1
    return longest
