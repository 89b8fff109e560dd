"""Where the report's templates, style sheet and script lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capo_core.self_contained_page import render_self_contained


def render_report_page(template: str, context: Mapping[str, Any]) -> str:
    """Return a page in the report's style.

    Args:
        template: name of a template beside this module that fills `layout.html.j2`.
        context: what the template names.
    """
    return render_self_contained("capo_core.report", template, context, style="report.css", scripts=["report.js"])
