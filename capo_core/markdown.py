"""Markdown in which text from elsewhere is text and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capo_core.report.formats import NO_BREAK


def write_markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, every cell escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(escape_markdown(cell) for cell in line) + " |" for line in lines)


def escape_markdown(text: str) -> str:
    """Return text in which no character ends a cell or opens markup."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, "\\" + character)
    return text.replace(NO_BREAK, " ").replace("\n", " ")


def fence(text: str, language: str = "") -> str:
    """Return text as a code block that nothing in it can end."""
    longest = max((len(line) - len(line.lstrip("`")) for line in text.splitlines()), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"
