"""Drawings hold only what a drawing needs, say what they show, and take their colours from the page."""

from __future__ import annotations

from xml.etree import ElementTree

from capo_core.report.charts import Bar, Curve, Dot, Point, Reference, draw_bars, draw_curves, draw_dots

SVG = "{http://www.w3.org/2000/svg}"


def dots() -> list[Dot]:
    return [
        Dot("CAPO", 0.75, 0.5, 1.0, "var(--capo)", "CAPO: .75"),
        Dot("SFT", 0.25, 0.0, 0.5, "var(--sft)", "SFT: .25", is_hollow=True),
        Dot("Zero-shot", None, None, None, "var(--zero-shot)", "Zero-shot: not measured"),
    ]


def draw(rows: list[Dot] | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(draw_dots(rows or dots(), description="Figures", domain=(0.0, 1.0)))


def place(dot: ElementTree.Element) -> float:
    """Return a dot's horizontal place."""
    return float(dot.get("transform", "").removeprefix("translate(").split(",")[0])


def test_dots_stand_where_their_values_are() -> None:
    points = {dot.get("data-tip"): dot for dot in draw().iter(f"{SVG}path") if dot.get("data-tip")}
    # The grid lines of 0 and 1 bound the axis; .25 and .75 lie at a quarter and three quarters of it, so the distance
    # between the dots is half the width of the axis, as is each interval.
    intervals = [line for line in draw().iter(f"{SVG}line") if line.get("stroke") == "var(--capo)"]
    half = float(intervals[0].get("x2", "0"))
    assert abs(place(points["CAPO: .75"]) - place(points["SFT: .25"]) - half) < 0.05


def test_ring_and_disc_differ_by_fill_not_by_colour_alone() -> None:
    fills = {dot.get("data-tip"): (dot.get("fill"), dot.get("stroke")) for dot in draw().iter(f"{SVG}path")}
    assert fills["CAPO: .75"] == ("var(--capo)", "var(--capo)")
    assert fills["SFT: .25"] == ("var(--panel)", "var(--sft)")


def test_absent_value_is_written_out_and_has_no_dot() -> None:
    root = draw()
    assert "not measured" in [text.text for text in root.iter(f"{SVG}text")]
    assert not [dot for dot in root.iter(f"{SVG}path") if dot.get("data-tip") == "Zero-shot: not measured"]


def test_drawing_is_described_and_scales_with_its_box() -> None:
    root = draw()
    assert (root.get("role"), root.get("aria-label")) == ("img", "Figures")
    assert root.get("viewBox")
    assert root.get("width") is None


def test_hostile_labels_stay_text() -> None:
    name = '</text><script>alert(1)</script>" onload="x'
    root = draw([Dot(name, 0.5, 0.4, 0.6, "var(--capo)", name)])
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "g", "path", "line", "rect", "text", "defs", "clipPath",
    }  # fmt: skip
    # Nothing but shape, place and paint is kept: no class, style, link or event.
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on")} | attributes & {"class", "style", "href"}
    assert [dot.get("data-tip") for dot in root.iter(f"{SVG}path") if dot.get("data-tip")] == [name]


def test_characters_that_xml_cannot_hold_are_replaced() -> None:
    root = draw([Dot("a\x00b", 0.5, 0.4, 0.6, "var(--capo)", "\x1b[31m")])
    assert "a�b" in [text.text for text in root.iter(f"{SVG}text")]


def test_same_drawing_twice_is_the_same_and_others_have_other_ids() -> None:
    first = draw_dots(dots(), description="Figures")
    assert draw_dots(dots(), description="Figures") == first
    other = draw_dots(dots()[:1], description="Figures")
    ids = [
        {element.get("id") for element in ElementTree.fromstring(text).iter(f"{SVG}clipPath")}
        for text in (first, other)
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_curve_has_band_line_dots_and_reference() -> None:
    points = tuple(Point(k, v, v - 0.1, v + 0.1, f"k = {k}") for k, v in ((1, 0.5), (10, 0.9)))
    curve = Curve(points, "var(--human)")
    svg = draw_curves(
        [curve], description="Curve", x_title="k", x_ticks=[1, 10], domain=(0.0, 1.0), references=[Reference(0.25)]
    )
    root = ElementTree.fromstring(svg)
    assert [dot.get("data-tip") for dot in root.iter(f"{SVG}path") if dot.get("data-tip")] == ["k = 1", "k = 10"]
    assert [path for path in root.iter(f"{SVG}path") if path.get("opacity") == "0.16"]
    assert [line for line in root.iter(f"{SVG}line") if line.get("stroke-dasharray") == "2,3"]
    assert {"1", "10", "k", "0", ".2"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_bars_are_as_long_as_their_values_in_the_order_given_with_tips() -> None:
    bars = [Bar("b", 0.2, "var(--accent)", "b: .20"), Bar("a", 0.4, "var(--accent)", "a: .40", is_hollow=True)]
    root = ElementTree.fromstring(draw_bars(bars, description="Shares"))
    drawn = {bar.get("data-tip"): bar for bar in root.iter(f"{SVG}path") if bar.get("data-tip")}
    assert list(drawn) == ["b: .20", "a: .40"]
    assert [bar.get("fill") for bar in drawn.values()] == ["var(--accent)", "var(--panel)"]
    # A bar's path begins `M x,y h width`: .4 is twice as long as .2.
    widths = [float(bar.get("d", "").split("h")[1].split("v")[0]) for bar in drawn.values()]
    assert abs(widths[1] - 2 * widths[0]) < 0.05


def test_row_without_a_value_keeps_its_place() -> None:
    rows = [Dot("first", None, None, None, "var(--capo)", ""), Dot("second", 0.5, 0.4, 0.6, "var(--sft)", "")]
    labels = [text.text for text in draw(rows).iter(f"{SVG}text") if text.text in ("first", "second")]
    assert labels == ["first", "second"]
