"""Judged text is data: how it is set apart from instructions so that nothing inside can end the data."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

_LOOKALIKES = str.maketrans({"<": "‹", ">": "›", "＜": "‹", "＞": "›"})
_CONTROL_TOKEN = re.compile(r"\[(/?(?=[a-z_]*[A-Z])[A-Za-z_]+)\]")


def neutralise(text: str) -> str:
    """Return `text` on one line, without characters that could close a fence, open a chat turn or hide.

    Angle brackets become single guillemets, which covers our fences, `<|im_end|>`, `</s>`, `<<SYS>>` and
    `<start_of_turn>` alike; a bracketed word with a capital such as `[INST]` gets white square brackets; format and
    control characters (zero width, bidirectional overrides) go. References and judged text are treated the same, so
    no author is given away by it. A text that is one line cannot put a role or a verdict at the start of one.
    """
    visible = "".join(
        character if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} else " "
        for character in text
    )
    return " ".join(_CONTROL_TOKEN.sub(r"⟦\1⟧", visible.translate(_LOOKALIKES)).split())


def make_nonce(seed: int, *parts: str) -> str:
    """Return 12 hexadecimal digits determined by `seed` and `parts`, which no writer of judged text can foresee."""
    return hashlib.sha256("\x1f".join((str(seed), *parts)).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def fence(texts: Sequence[str], name: str, nonce: str) -> str:
    """Return the neutralised texts as a numbered list between two lines that carry the nonce."""
    lines = [f"{number}. {neutralise(text)}" for number, text in enumerate(texts, start=1)]
    return "\n".join([f"<<<{name} {nonce}>>>", *lines, f"<<<END {nonce}>>>"])
