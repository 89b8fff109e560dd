"""Text normalisation and tokenisation: one definition of a word, of identity and of surface form."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_WHITE_SPACE = re.compile(r"\s+")

MASK = "▁"
"""What a masked word is replaced with; not a word character, so that no tokeniser of ours sees it as a word."""


def words(text: str) -> list[str]:
    """Return the words of `text` in order, case-folded: runs of letters or digits, apostrophes inside kept."""
    return [match.group().casefold() for match in _WORD.finditer(text)]


def identity_form(text: str) -> str:
    """Return `text` in NFC with white space runs as one space and none at the ends: what makes two texts the same."""
    return _WHITE_SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


def text_id(*texts: str) -> str:
    """Return the first 16 hexadecimal digits of sha256 over the identity forms, joined by a unit separator."""
    joined = "\x1f".join(identity_form(text) for text in texts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def surface_normalise(text: str) -> str:
    """Return the words of `text`, case-folded and joined by single spaces: no white-space, case or punctuation habits.

    Word masks (`MASK`) survive as tokens of their own.
    """
    pattern = re.compile(f"{MASK}|{_WORD.pattern}")
    return " ".join(match.group().casefold().replace("’", "'") for match in pattern.finditer(text))


def mask_words(text: str, masked: frozenset[str] | set[str]) -> str:
    """Return `text` with every word whose case-folded form is in `masked` replaced by `MASK`; all else stays."""
    return _WORD.sub(lambda match: MASK if match.group().casefold() in masked else match.group(), text)
