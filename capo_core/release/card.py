"""What cards of data sets and of adapters have in common: header, templates, licence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from huggingface_hub import CardData
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from capo_core.errors import ReleaseError
from capo_core.markdown import escape_markdown, fence, write_markdown_table
from schemas.release import ReleaseConfig, is_stated

CARD_FILE = "README.md"


def render_card(template: str, header: CardData, context: Mapping[str, Any]) -> str:
    """Return a card: the YAML that the Hugging Face hub reads, then the filled Markdown template.

    Args:
        template: name of a template beside this module.
        header: of the card.
        context: what the template names.
    """
    body = _environment().get_template(template).render(context)
    return f"---\n{header.to_yaml().strip()}\n---\n\n{body.strip()}\n"


@cache
def _environment() -> jinja2.Environment:
    """Return the template environment: an unknown name is an error."""
    loader = jinja2.FunctionLoader(lambda name: files("capo_core.release").joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.globals |= {
        "table": write_markdown_table,
        "escape": escape_markdown,
        "fence": fence,
        "is_stated": is_stated,
    }
    return environment


def licence_fields(release: ReleaseConfig) -> dict[str, Any]:
    """Return the header's fields for the licence, none where none is stated.

    The hub knows single licences by their SPDX id in lower case; anything else is `other`, with its expression.

    Raises:
        ReleaseError: if the licence is no SPDX expression.
    """
    if not is_stated(release.licence):
        return {}
    try:
        expression = canonicalize_license_expression(release.licence)
    except InvalidLicenseExpression as error:
        raise ReleaseError(
            f"release.licence: {release.licence!r} is no SPDX licence expression; write for example CC-BY-4.0 or MIT, "
            "or LicenseRef-<name> for terms of your own"
        ) from error
    if " " in expression or expression.startswith("LicenseRef-"):
        return {"license": "other", "license_name": expression}
    return {"license": expression.lower()}
