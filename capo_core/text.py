"""Text normalisation and tokenisation: one definition of a word, of identity and of surface form."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_WHITE_SPACE = re.compile(r"\s+")

MASK = "▁"
"""What a masked word is replaced with; not a word character, so that no tokeniser of ours sees it as a word."""

_MIN_STEM = 5
"""Letters a word or stem must have for its inflections to be recognised: `stat` of `station` would take in `state`."""
_ENDINGS = ("", "s", "e", "es", "ed", "ing", "ion", "ions", "ment", "ments")


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


def surface_normalise(text: str, spellings: Mapping[str, str] | None = None) -> str:
    """Return the words of `text`, case-folded and joined by single spaces: no white-space, case or punctuation habits.

    Word masks (`MASK`) survive as tokens of their own.

    Args:
        text: as written.
        spellings: case-folded words and what each is written as, e.g. of `label_spellings`; other words stay.
    """
    pattern = re.compile(f"{MASK}|{_WORD.pattern}")
    tokens = (match.group().casefold().replace("’", "'") for match in pattern.finditer(text))
    return " ".join(tokens if not spellings else (spellings.get(token, token) for token in tokens))


def label_spellings(names: Iterable[str]) -> dict[str, str]:
    """Return the inflected spellings of label names, each with the name it stands for.

    A word of a name is unified with its plural and, where at least `_MIN_STEM` letters are left when a final -ment,
    -ion or -e is taken off, with the stem and its endings `_ENDINGS`: entail, entails, entailed, entailing and
    entailments are all written entailment. Nothing else is unified: neither other derivations (contradictory) nor
    misspellings. Numbers and words of fewer letters have no inflections; a spelling of two names is left alone.

    Args:
        names: label names, e.g. of the task; scores give nothing.

    Returns:
        Case-folded spelling to case-folded word of a name, names themselves not included.
    """
    targets = sorted({word for name in names for word in words(name.replace("_", " ")) if len(word) >= _MIN_STEM})
    found: dict[str, set[str]] = {}
    for target in targets:
        if target.isalpha():
            stem = re.sub(r"(?:ment|ion|e)$", "", target)
            inflected = {stem + ending for ending in _ENDINGS} if len(stem) >= _MIN_STEM else set()
            for spelling in inflected | {target + "s"}:
                found.setdefault(spelling, set()).add(target)
    return {s: min(meant) for s, meant in sorted(found.items()) if len(meant) == 1 and s not in targets}


def mask_words(text: str, masked: frozenset[str] | set[str]) -> str:
    """Return `text` with every word whose case-folded form is in `masked` replaced by `MASK`; all else stays."""
    return _WORD.sub(lambda match: MASK if match.group().casefold() in masked else match.group(), text)


def mask_words_except(text: str, kept: frozenset[str] | set[str]) -> str:
    """Return `text` with every word whose case-folded form is not in `kept` replaced by `MASK`; all else stays."""
    return _WORD.sub(lambda match: match.group() if match.group().casefold() in kept else MASK, text)
