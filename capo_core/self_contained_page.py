"""HTML documents that need nothing but themselves."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup


def render_self_contained(
    package: str, template: str, context: Mapping[str, Any], *, style: str, scripts: Sequence[str]
) -> str:
    """Return a page as one HTML document without a reference to anything outside itself.

    The template finds `style`, `script` and `policy` among its names, the last being the content security policy that
    allows exactly this style sheet and script and no connection.

    Args:
        package: where the files named below lie.
        template: of the page; likewise those that it names.
        context: what else the template names; all text in it is escaped.
        style: file of the style sheet.
        scripts: files of the script, in order.
    """
    sheet, script = _read_asset(package, style), "".join(_read_asset(package, name) for name in scripts)
    inside = {"style": Markup(sheet), "script": Markup(script), "policy": _write_policy(sheet, script)}
    return _environment(package).get_template(template).render({**inside, **context}).lstrip()


def _write_policy(style: str, script: str) -> str:
    """Return the content security policy that allows exactly this inline style sheet and script and no network."""
    return (
        f"default-src 'none'; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _read_asset(package: str, name: str) -> str:
    """Return a text file that is shipped inside a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """Return the hash source of an inline element's text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment(package: str) -> jinja2.Environment:
    """Return the template environment: everything is escaped, an unknown name is an error."""
    loader = jinja2.FunctionLoader(lambda name: _read_asset(package, name))
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
