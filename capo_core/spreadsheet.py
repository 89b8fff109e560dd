"""Text that strangers wrote, in files that spreadsheets open: nothing in it may run as a formula."""

from __future__ import annotations

import polars as pl
from polars import selectors as cs

_FORMULA_OPENINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def neutralise_cell(text: str) -> str:
    """Return `text` such that no spreadsheet takes it for a formula; `restore_cell` undoes it.

    A text that begins with = + - @ (full width too), a tab or a line break gets an apostrophe in front; so does one
    that begins with an apostrophe, to keep the two apart.
    """
    return "'" + text if text.startswith(("'", *_FORMULA_OPENINGS)) else text


def restore_cell(text: str) -> str:
    """Return the text of which `neutralise_cell` made `text`; an apostrophe that it cannot have put there stays."""
    return text[1:] if text.startswith("'") and text[1:].startswith(("'", *_FORMULA_OPENINGS)) else text


def neutralise_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table with every cell of text neutralised."""
    return table.with_columns(cs.string().map_elements(neutralise_cell, return_dtype=pl.String))
