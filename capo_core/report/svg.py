"""Drawings made safe: parsed and written anew with only the elements and attributes a drawing needs.

No style, link, script or event attribute can come from data.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from zlib import crc32

_SVG = "{http://www.w3.org/2000/svg}"
_KEPT_ELEMENTS = {f"{_SVG}{name}" for name in ("svg", "g", "path", "line", "rect", "text", "tspan", "defs", "clipPath")}
_KEPT_ATTRIBUTES = frozenset(
    [
        "id",
        "d",
        "x",
        "y",
        "x1",
        "x2",
        "y1",
        "y2",
        "width",
        "height",
        "viewBox",
        "transform",
        "fill",
        "fill-opacity",
        "stroke",
        "stroke-width",
        "stroke-opacity",
        "stroke-dasharray",
        "stroke-linecap",
        "stroke-linejoin",
        "stroke-miterlimit",
        "opacity",
        "clip-path",
        "font-size",
        "font-weight",
        "font-style",
        "text-anchor",
        "dx",
        "dy",
    ]
)
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CLIP_ID = re.compile(r"clip\d+")
_LONG_DECIMAL = re.compile(r"(\d+\.\d{2})\d+")

ElementTree.register_namespace("", "http://www.w3.org/2000/svg")


def rewrite_svg(drawing: str, description: str) -> str:
    """Return the SVG with only kept elements and attributes, tips on dots, and a description for the whole."""
    root = ElementTree.fromstring(drawing)
    # The renderer numbers clip paths through its whole life; named by content they are unique and always the same.
    prefix = format(crc32((description + _CLIP_ID.sub("clip", drawing)).encode()), "08x")
    clips = {clip.get("id", ""): f"clip-{prefix}-{i}" for i, clip in enumerate(root.iter(f"{_SVG}clipPath"))}
    for element in list(root.iter()):
        for child in list(element):
            if child.tag not in _KEPT_ELEMENTS or child.get("display") == "none":
                element.remove(child)
    for group in root.iter(f"{_SVG}g"):
        if any(name in group.get("class", "") for name in ("mark-symbol role-mark", "mark-rect role-mark")):
            for shape in group:
                shape.set("data-tip", shape.get("aria-label", ""))
    for element in root.iter():
        kept = {name: value for name, value in element.attrib.items() if name in _KEPT_ATTRIBUTES or name == "data-tip"}
        element.attrib.clear()
        element.attrib.update({name: _shorten(name, value, clips) for name, value in kept.items()})
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": writable(description)})
    return ElementTree.tostring(root, encoding="unicode")


def _shorten(name: str, value: str, clips: dict[str, str]) -> str:
    """Return an attribute's value with clip paths renamed and long decimals cut to two places."""
    if name == "id":
        return clips.get(value, value)
    if name == "clip-path":
        return f"url(#{clips[value.removeprefix('url(#').removesuffix(')')]})"
    return _LONG_DECIMAL.sub(r"\1", value) if name in ("d", "transform") else value


def writable(text: str) -> str:
    """Return `text` without characters that XML cannot hold."""
    return _UNWRITABLE.sub("�", text)
