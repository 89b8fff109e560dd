"""Function words of English: the closed classes, which carry grammar and manner rather than content."""

from __future__ import annotations

from importlib.resources import files


def read_function_words() -> frozenset[str]:
    """Return the words of function_words.txt, case-folded, each with either apostrophe; `#` lines are comments."""
    text = (files("capo_core.stylometry") / "function_words.txt").read_text(encoding="utf-8")
    found = {word.casefold() for line in text.splitlines() if not line.startswith("#") for word in line.split()}
    return frozenset(found | {word.replace("'", "’") for word in found})


FUNCTION_WORDS = read_function_words()
