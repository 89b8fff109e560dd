"""Tables as the template writes them: a caption, column headings, rows of cells, in groups where that helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from capo_core.report.formats import NOT_MEASURED, format_interval, format_value, is_measured

NO_FIGURE = "–"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        notes: smaller lines below, for example interval and n.
        style: style classes from this package, never text from the data.
        numeric: set in figures of equal width, to the right.
    """

    text: str
    notes: tuple[str, ...] = ()
    style: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class RowGroup:
    """Rows under one heading. The first cell of a row names it.

    Attributes:
        title: heading of the group, empty for none.
        meaning: a sentence below the heading.
    """

    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption. An empty one is shown as `empty_text`."""

    caption: str
    columns: tuple[Cell, ...]
    groups: tuple[RowGroup, ...]
    notes: tuple[str, ...] = field(default=())
    empty_text: str = NOT_MEASURED

    @property
    def is_empty(self) -> bool:
        """Whether there is no row at all."""
        return not any(group.rows for group in self.groups)


def text_cell(value: object) -> Cell:
    """Return a cell with text as it stands; an absent value is a dash."""
    return Cell(NO_FIGURE, style="absent") if value is None or value == "" else Cell(str(value))


def count_cell(value: int | None) -> Cell:
    """Return a cell with a count."""
    return Cell(NOT_MEASURED, style="absent") if value is None else Cell(f"{value:,}", numeric=True)


def value_cell(
    value: float | None, low: float | None, high: float | None, *, share: bool, notes: Sequence[str] = ()
) -> Cell:
    """Return a cell with a value, its interval below, then `notes`."""
    if not is_measured(value):
        return Cell(NOT_MEASURED, tuple(notes), style="absent")
    interval = format_interval(low, high, share=share) or "no interval"
    return Cell(format_value(value, share=share), (interval, *notes), numeric=True)


def heat_cell(
    value: float | None, *, text: str, notes: tuple[str, ...] = (), minimum: float = 0.0, maximum: float = 1.0
) -> Cell:
    """Return a cell whose ground deepens in ten steps from `minimum` to `maximum`; lesser values have plain ground."""
    if value is None or not is_measured(value):
        return Cell(NOT_MEASURED, notes, style="absent")
    step = round(10 * min(max((value - minimum) / (maximum - minimum), 0.0), 1.0)) if maximum > minimum else 0
    return Cell(text, notes, style=f"heat heat-{step}", numeric=True)


def build_table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    notes: Sequence[str] = (),
    empty_text: str = NOT_MEASURED,
) -> Table:
    """Return a table of one group; a column is set to the right where any of its cells is a number."""
    numeric = [any(row[i].numeric for row in rows) for i in range(len(columns))]
    heads = tuple(Cell(title, numeric=is_number) for title, is_number in zip(columns, numeric, strict=True))
    return Table(caption, heads, (RowGroup(tuple(tuple(row) for row in rows)),), tuple(notes), empty_text)
