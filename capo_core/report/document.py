"""HTML files that need nothing but themselves: style, script, drawings and data are inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup


def render_document(template: str, context: Mapping[str, Any]) -> str:
    """Return a page as one self-contained HTML document.

    It has no reference to anything outside itself; its content security policy allows only its own style sheet and
    script, by their hashes.

    Args:
        template: name of a template beside this module that fills `layout.html.j2`.
        context: what the template names; all text in it is escaped.
    """
    style, script = _read_asset("report.css"), _read_asset("report.js")
    inside = {"style": Markup(style), "script": Markup(script), "policy": content_policy(style, script)}
    return _environment().get_template(template).render({**inside, **context}).lstrip()


def content_policy(style: str, script: str) -> str:
    """Return the content security policy that allows exactly this inline style sheet and script and no network."""
    return (
        f"default-src 'none'; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    """Return the hash source of an inline element's text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read_asset(name: str) -> str:
    """Return a file that is shipped beside this module."""
    return files("capo_core.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    """Return the template environment: everything is escaped, an unknown name is an error."""
    loader = jinja2.FunctionLoader(_read_asset)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
