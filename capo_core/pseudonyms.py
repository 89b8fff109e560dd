"""Names for annotators that say nothing of who they are, and that only the holder of a key can trace back.

A pseudonym is a keyed message authentication code (HMAC-SHA256, RFC 2104), cut to ten hex digits: without the key
nobody can try names out, as anybody could with a plain digest. The data stay pseudonymised, never anonymous: who has
the key, or knows how somebody writes, gets further.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable

PREFIX = "annotator-"
_N_DIGITS = 10
_FORM = re.compile(rf"{PREFIX}[0-9a-f]{{{_N_DIGITS}}}")


def name_pseudonym(annotator: str, corpus: str, key: bytes) -> str:
    """Return an annotator's pseudonym: `annotator-` and the first ten hex digits of HMAC-SHA256(key, corpus, id).

    The same key, corpus and id give the same pseudonym, so that later files and releases go on with it and a person
    who withdraws can be found; in another corpus the same id has another one.

    Args:
        annotator: the id.
        corpus: name of the corpus.
        key: secret.
    """
    message = json.dumps([corpus, annotator]).encode("ascii")
    return PREFIX + hmac.digest(key, message, "sha256").hex()[:_N_DIGITS]


def name_pseudonyms(annotators: Iterable[str], corpus: str, key: bytes) -> dict[str, str]:
    """Return the pseudonym of each annotator, by id; arguments as of `name_pseudonym`.

    Raises:
        ValueError: if two annotators get the same (with a thousand of them, once in two million keys).
    """
    names = {annotator: name_pseudonym(annotator, corpus, key) for annotator in annotators}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two annotators of {corpus} got the same pseudonym: use another key")
    return names


def is_pseudonym(annotator: str) -> bool:
    """Return whether an id has the form of a pseudonym."""
    return _FORM.fullmatch(annotator) is not None
