"""The three chart forms of the report, drawn with Vega-Lite at build time into inline SVG.

Colours are CSS custom properties (`var(--sft)`), so that one drawing serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert
from markupsafe import Markup

from capo_core.report.svg import rewrite_svg, writable

Spec = dict[str, Any]
"""A part of a Vega-Lite specification."""

WIDTH = 340
"""Width of a panel in SVG units: about a phone's, and a third of a desktop page."""

_VEGA_LITE_VERSION = "6.4"
_TEXT = "var(--ink-2)"
_PANEL_COLOUR = "var(--panel)"
_FONT_SIZE = 12
_LABEL_WIDTH = 124
_LABEL_SPACE = 134
_TICK_LABEL = "replace(datum.label, regexp('^(−?)0[.]'), '$1.')"
"""Ticks as the tables write numbers: .25 for 0.25."""


@dataclass(frozen=True)
class Dot:
    """One row's value with its interval.

    Attributes:
        label: the row; dots of the same label share one.
        value: None is written out as `not measured`.
        colour: a CSS colour of this package, never text from the data.
        tip: what pointing at the dot says.
        is_hollow: drawn as a ring.
        lane: place within the row, for rows with several dots.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    colour: str
    tip: str
    is_hollow: bool = False
    lane: int = 0


@dataclass(frozen=True)
class Bar:
    """One row's bar from 0 to its value; outlined only where `is_hollow`."""

    label: str
    value: float
    colour: str
    tip: str
    is_hollow: bool = False


@dataclass(frozen=True)
class Point:
    """One point of a curve with its band."""

    x: float
    y: float
    low: float | None
    high: float | None
    tip: str


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        dash: lengths of dash and gap; empty for a solid line.
        has_dots: whether each point is marked and can be pointed at.
    """

    points: tuple[Point, ...]
    colour: str
    dash: tuple[int, ...] = ()
    width: float = 2.0
    opacity: float = 1.0
    has_dots: bool = True
    is_hollow: bool = False


@dataclass(frozen=True)
class Reference:
    """A line across the panel, such as chance or no difference."""

    value: float
    dash: tuple[int, ...] = (2, 3)
    colour: str = "var(--ink-2)"


def draw_dots(
    dots: Sequence[Dot],
    *,
    description: str,
    domain: tuple[float, float] | None = None,
    references: Sequence[Reference] = (),
) -> Markup:
    """Return a panel with one row per label, a dot and an interval per value.

    Args:
        dots: in the order of the rows, top to bottom.
        description: what the panel shows, for readers who do not see it.
        domain: ends of the value axis; None takes them from the data and 0.
        references: vertical lines.
    """
    rows = _dot_rows(dots)
    scale: Spec = {"domain": list(domain), "nice": False} if domain else {"zero": True}
    lanes = {"field": "lane", "type": "ordinal"}
    layer = {
        "data": {"values": rows},
        "encoding": {
            "y": _label_axis([row["label"] for row in rows]),
            "yOffset": lanes,
        },
        "layer": _dot_layers(scale),
    }
    n_labels, n_lanes = len({row["label"] for row in rows}), len({row["lane"] for row in rows})
    height = _panel_height(n_labels, n_lanes)
    return _render([*_rules(references, "x", scale), layer], height, description)


def draw_bars(bars: Sequence[Bar], *, description: str, domain: tuple[float, float] | None = None) -> Markup:
    """Return a panel of horizontal bars, one per row.

    Args:
        bars: top to bottom; at least one.
        description: what the panel shows, for readers who do not see it.
        domain: ends of the value axis; None takes them from the data and 0.
    """
    rows = [
        {
            "label": writable(bar.label),
            "value": bar.value,
            "stroke": bar.colour,
            "fill": _PANEL_COLOUR if bar.is_hollow else bar.colour,
            "tip": writable(bar.tip),
        }
        for bar in bars
    ]
    scale: Spec = {"domain": list(domain), "nice": False} if domain else {"zero": True}
    paint = {name: {"field": name, "type": "nominal", "scale": None} for name in ("fill", "stroke")}
    layer = {
        "data": {"values": rows},
        "mark": {"type": "bar", "height": 10, "strokeWidth": 1.5},
        "encoding": {
            "y": _label_axis([row["label"] for row in rows]),
            "x": _value("value", scale),
            "description": {"field": "tip"},
            **paint,
        },
    }
    return _render([layer], _panel_height(len(rows), 1), description)


def _label_axis(labels: Sequence[str]) -> Spec:
    """Return the encoding of a row by its label, in the order given, the labels in a column of fixed width."""
    axis = {
        "labelLimit": _LABEL_WIDTH,
        "minExtent": _LABEL_SPACE,
        "ticks": False,
        "domain": False,
        "grid": False,
        "labelPadding": 6,
    }
    # Without a sort of its own the renderer puts rows without a value last.
    return {"field": "label", "type": "nominal", "sort": list(dict.fromkeys(labels)), "title": None, "axis": axis}


def _panel_height(n_labels: int, n_lanes: int) -> int:
    """Return the height of a panel of rows, axis included."""
    return 34 + n_labels * (10 + 13 * n_lanes)


def _dot_rows(dots: Sequence[Dot]) -> list[Spec]:
    """Return the dots as rows of data."""
    return [
        {
            "label": writable(dot.label),
            "lane": dot.lane,
            "value": dot.value,
            "low": dot.low,
            "high": dot.high,
            "stroke": dot.colour,
            "fill": _PANEL_COLOUR if dot.is_hollow else dot.colour,
            "tip": writable(dot.tip),
            "note": "not measured" if dot.value is None else "",
        }
        for dot in dots
    ]


def _dot_layers(scale: Spec) -> list[Spec]:
    """Return the marks of a row: its interval, its dot, or the words that there is none."""
    stroke = {"field": "stroke", "type": "nominal", "scale": None}
    interval = {
        "mark": {"type": "rule", "strokeWidth": 2.5, "clip": True},
        "encoding": {"x": _value("low", scale), "x2": {"field": "high"}, "stroke": stroke},
    }
    fill = {"field": "fill", "type": "nominal", "scale": None}
    marks = {
        "mark": {"type": "point", "size": 64, "strokeWidth": 2, "opacity": 1},
        "encoding": {"x": _value("value", scale), "fill": fill, "stroke": stroke, "description": {"field": "tip"}},
    }
    absent = {
        "mark": {
            "type": "text",
            "align": "left",
            "dx": 4,
            "fontSize": _FONT_SIZE,
            "fontStyle": "italic",
            "fill": _TEXT,
        },
        "encoding": {"x": {"value": 0}, "text": {"field": "note"}},
    }
    return [interval, marks, absent]


def draw_curves(
    curves: Sequence[Curve],
    *,
    description: str,
    x_title: str,
    x_ticks: Sequence[float] | None = None,
    domain: tuple[float, float] | None = None,
    references: Sequence[Reference] = (),
) -> Markup:
    """Return a panel of lines with bands.

    Args:
        curves: in drawing order; at least one with a point.
        description: what the panel shows, for readers who do not see it.
        x_title: what the horizontal axis counts.
        x_ticks: values written on the horizontal axis; given, the axis is logarithmic (sizes 1, 3, 5, 10 stand apart).
        domain: ends of the vertical axis; None takes them from the data.
        references: horizontal lines.
    """
    x: Spec = {"field": "x", "type": "quantitative", "title": x_title, "scale": {"nice": False, "zero": False}}
    x["axis"] = {"tickCount": 5, "grid": False}
    if x_ticks:
        x["scale"] = {"type": "log", "nice": False, "padding": 8}
        x["axis"] = {"values": list(x_ticks), "labelExpr": "datum.value", "grid": False}
    scale: Spec = {"domain": list(domain), "nice": False} if domain else {"zero": False}
    layers = [layer for curve in curves if curve.points for layer in _curve_layers(curve, x, scale)]
    return _render([*_rules(references, "y", scale), *layers], 230, description)


def _value(field: str, scale: Spec) -> Spec:
    """Return the encoding of a value by place, its axis written as the tables write numbers."""
    axis = {"tickCount": 4, "format": "~f", "labelExpr": _TICK_LABEL, "labelSeparation": 8}
    return {"field": field, "type": "quantitative", "title": None, "scale": scale, "axis": axis}


def _curve_layers(curve: Curve, x: Spec, scale: Spec) -> list[Spec]:
    """Return the band, line and dots of one curve."""
    rows = [
        {"x": point.x, "y": point.y, "low": point.low, "high": point.high, "tip": writable(point.tip)}
        for point in curve.points
    ]
    band: Spec = {
        "mark": {"type": "area", "fill": curve.colour, "opacity": 0.16, "clip": True},
        "encoding": {"x": x, "y": _value("low", scale), "y2": {"field": "high"}},
    }
    stroke = {"stroke": curve.colour, "strokeWidth": curve.width, "strokeDash": list(curve.dash)}
    line: Spec = {
        "mark": {"type": "line", "opacity": curve.opacity, "clip": True, **stroke},
        "encoding": {"x": x, "y": _value("y", scale)},
    }
    dots: Spec = {
        "mark": {
            "type": "point",
            "size": 48,
            "opacity": 1,
            "strokeWidth": 2,
            "fill": _PANEL_COLOUR if curve.is_hollow else curve.colour,
            "stroke": curve.colour,
        },
        "encoding": {"x": x, "y": _value("y", scale), "description": {"field": "tip"}},
    }
    has_band = any(row["low"] is not None and row["high"] is not None for row in rows)
    layers = [*([band] if has_band else []), line, *([dots] if curve.has_dots else [])]
    return [{"data": {"values": rows}, **layer} for layer in layers]


def _rules(references: Sequence[Reference], channel: str, scale: Spec) -> list[Spec]:
    """Return the reference lines as layers, vertical for channel x, horizontal for y."""
    return [
        {
            "data": {"values": [{"at": reference.value}]},
            "mark": {
                "type": "rule",
                "stroke": reference.colour,
                "strokeDash": list(reference.dash),
                "strokeWidth": 1.25,
            },
            "encoding": {channel: _value("at", scale)},
        }
        for reference in references
    ]


def _render(layers: list[Spec], height: int, description: str) -> Markup:
    """Return the layers as inline SVG that scales with its box."""
    axis = dict.fromkeys(("labelColor", "titleColor"), _TEXT)
    axis |= dict.fromkeys(("gridColor", "tickColor", "domainColor"), "var(--rule)")
    axis |= {"labelFontSize": _FONT_SIZE, "titleFontSize": _FONT_SIZE, "titleFontWeight": "normal", "titlePadding": 6}
    spec = {
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 4,
        "background": "transparent",
        "layer": layers,
        "config": {"axis": axis, "view": {"stroke": None}},
    }
    drawing = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE_VERSION, allowed_base_urls=[])
    return Markup(rewrite_svg(drawing, description))
