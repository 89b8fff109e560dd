"""What in explanations could name somebody. Counted, never removed: explanations are published as written."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TRACES = {
    "explanations with an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.\w"),
    "explanations with a web address": re.compile(r"https?://|\bwww\.\w", re.IGNORECASE),
    "explanations with an @name": re.compile(r"(?<![\w.+-])@\w"),
    "explanations with a number of seven digits or more": re.compile(r"\d(?:[ ./-]?\d){6,}"),
}
NAMINGS = "explanations with an annotator's own id as a word"


def count_traces(explanations: Iterable[str], annotators: Iterable[str]) -> dict[str, int]:
    """Return how many explanations hold each kind of trace of a person.

    Args:
        explanations: as written.
        annotators: ids as they stand in the data; numbers are not looked for, since they are words of many texts.
    """
    texts = list(explanations)
    names = [re.escape(name) for name in annotators if not name.isdigit()]
    own = {NAMINGS: re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)")} if names else {}
    return {
        what: sum(pattern.search(text) is not None for text in texts) for what, pattern in {**_TRACES, **own}.items()
    }
