"""Numbers as the report writes them: an absent one says so and none is rounded into saying something else."""

from __future__ import annotations

import math

NOT_MEASURED = "not measured"
DOES_NOT_APPLY = "–"
MINUS = "−"
NO_BREAK = "\u00a0"


def is_measured(value: float | int | None) -> bool:
    """Return whether `value` is a finite number."""
    return value is not None and math.isfinite(value)


def format_value(value: float | int | None, *, share: bool = False) -> str:
    """Return a measured value in two decimals: `.71` for shares, `1.35` else; `not measured` where there is none.

    A value that would round to 0 (or a share that would round to 1) without being so gets a third decimal, and
    beyond that is written as `<.001` or `>.999`.
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    sign, size = (MINUS if value < 0 else ""), abs(float(value))
    if size >= 1000:
        return f"{sign}{size:,.0f}"
    text = f"{size:.2f}"
    if _rounds_to_a_bound(text, size, share):
        text = f"{size:.3f}"
        if _rounds_to_a_bound(text, size, share):
            return _strictly(sign, "<.001" if float(text) == 0 else ">.999")
    if float(text) == 0:
        sign = ""
    return sign + (text.removeprefix("0") if share and size < 1 else text)


def _rounds_to_a_bound(text: str, size: float, share: bool) -> bool:
    """Return whether `text` says 0 (or, for a share, 1) of a `size` that is not."""
    return (float(text) == 0 and size > 0) or (share and float(text) == 1 and size < 1)


def _strictly(sign: str, text: str) -> str:
    """Return `<.001` with the sign of a negative number: −.0004 is > −.001."""
    if not sign:
        return text
    return (">" if text[0] == "<" else "<") + sign + text[1:]


def format_interval(low: float | None, high: float | None, *, share: bool = False) -> str:
    """Return `[.60, .80]`, its space one that does not break, or an empty string where an end is missing."""
    if not is_measured(low) or not is_measured(high):
        return ""
    return f"[{format_value(low, share=share)},{NO_BREAK}{format_value(high, share=share)}]"


def format_estimate(value: float | None, low: float | None, high: float | None, *, share: bool = False) -> str:
    """Return a value with its interval, `.71 [.60, .80]`; without an interval it says so."""
    text = format_value(value, share=share)
    if text == NOT_MEASURED:
        return text
    return f"{text} {format_interval(low, high, share=share) or '(no interval)'}"


def format_difference(value: float | None, *, share: bool = False) -> str:
    """Return a difference with its sign, `+.16` or `−.05`."""
    text = format_value(value, share=share)
    return f"+{text}" if value is not None and is_measured(value) and value > 0 and text[0] not in "<>" else text


def format_p(value: float | None) -> str:
    """Return `p = .012` or `p < .001`, with spaces that do not break; an empty string where no test was made."""
    number = write_p(value)
    if not number:
        return ""
    return f"p{NO_BREAK}{number}" if number.startswith("<") else f"p{NO_BREAK}={NO_BREAK}{number}"


def write_p(value: float | None) -> str:
    """Return a p value alone, `.012` or `< .001`; an empty string where no test was made."""
    if value is None or not math.isfinite(value):
        return ""
    if value < 0.001:
        return f"<{NO_BREAK}.001"
    return f"{value:.3f}".removeprefix("0") if value < 0.9995 else "1"


def format_count(value: int | None) -> str:
    """Return a count with separators between thousands."""
    return NOT_MEASURED if value is None else f"{value:,}"


def format_percent(part: int, whole: int) -> str:
    """Return `part` of `whole` in per cent; never 0% or 100% unless it is exactly so."""
    if whole == 0:
        return NOT_MEASURED
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<1%"
    if 99 < percent < 100:
        return ">99%"
    return f"{percent:.0f}%"


def plural(n: int, noun: str, nouns: str | None = None) -> str:
    """Return a count with its noun: `1 seed`, `3 seeds`."""
    return f"{format_count(n)} {noun if n == 1 else nouns or noun + 's'}"


def join_and(parts: list[str]) -> str:
    """Return the parts as a list in a sentence: `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""
