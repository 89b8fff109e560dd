"""Word lists that named style features count; each file says its source and definition."""

from __future__ import annotations

from importlib.resources import files


def read_lexicon(name: str) -> frozenset[str]:
    """Return the words of `<name>.txt`: one a line, case-folded, straight apostrophes; lines with `#` are comments.

    Raises:
        FileNotFoundError: if there is no such list.
    """
    text = (files("capo_core.stylometry.lexicons") / f"{name}.txt").read_text(encoding="utf-8")
    return frozenset(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
