"""The rating page: one HTML file that a rater opens from disk; tasks, style and script are inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from capo_core.errors import RatingsError
from capo_core.self_contained_page import render_self_contained
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_TASKS, check_columns

_PACKAGE = "capo_core.human_validation.rating_page"
_SCRIPTS = ("order.js", "formats.js", "drawing.js", "page.js")


def render_rating_page(tasks: pl.DataFrame, task: TaskSpec, *, consent: str, instructions: str, set_id: str) -> str:
    """Return the rating page as one self-contained HTML document.

    The document has no reference to anything outside itself; its content security policy allows only its own style
    sheet and script, by their hashes, and no connection. Texts of tasks travel as JSON and are shown as text, never
    as markup. Only the columns of VALIDATION_TASKS go in, so whatever they do not tell the page does not tell. Equal
    tasks in any row order give equal documents, byte for byte. Every rater gets an order of his own, shuffled in the
    browser from `set_id` and his name.

    Args:
        tasks: VALIDATION_TASKS.
        task: names of the two texts.
        consent: Markdown (CommonMark with tables), shown first; HTML in it is shown as text, pictures as links. A
            first-level heading at its beginning names the screen.
        instructions: Markdown as above.
        set_id: names the set in the rater's browser: answers are kept under it.

    Raises:
        RatingsError: if there is no task, a task stands twice or has no explanation or fewer than two candidates,
            candidates are not distinct letters, or `set_id` is blank.
        ValueError: if a column is missing, superfluous or of another type.
    """
    rows = check_columns(tasks, VALIDATION_TASKS, "validation_tasks").sort("position", "task_id").to_dicts()
    if problems := _find_problems(rows, set_id):
        raise RatingsError("no rating page can be made: " + "; ".join(problems))
    content = {
        "set": set_id,
        "names": [task.text_a_name, task.text_b_name],
        "tasks": [_describe_task(row) for row in rows],
    }
    context = {
        "consent": _render_markdown(consent, "Before you begin"),
        "instructions": _render_markdown(instructions, "Instructions"),
        "content": content,
    }
    return render_self_contained(_PACKAGE, "page.html.j2", context, style="page.css", scripts=_SCRIPTS)


def _find_problems(rows: Sequence[dict[str, Any]], set_id: str) -> list[str]:
    """Return what keeps the tasks from being shown, in words."""
    problems = [] if rows else ["there are no tasks"]
    if not set_id.strip():
        problems.append(f"set_id is {set_id!r}; give the set a name, such as its hash")
    seen: set[str] = set()
    for row in rows:
        name = row["task_id"]
        if name in seen:
            problems.append(f"task {name!r} stands twice")
        seen.add(name)
        if not row["explanations"]:
            problems.append(f"task {name!r} has no explanation to attribute")
        letters = [reference["candidate"] for reference in row["references"]]
        if len(letters) < 2:
            problems.append(f"task {name!r} has {len(letters)} candidates, at least 2 are needed")
        if len(set(letters)) < len(letters) or any(not _is_letter(letter) for letter in letters):
            problems.append(f"task {name!r} has candidates {letters}; distinct letters A to Z are needed")
    return problems


def _is_letter(text: str) -> bool:
    return len(text) == 1 and "A" <= text <= "Z"


def _describe_task(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the page's script reads of one task."""
    return {
        "id": row["task_id"],
        "signature": row["signature"],
        "texts": [row["text_a"], row["text_b"]],
        "explanations": row["explanations"],
        "people": [{"letter": shown["candidate"], "examples": shown["examples"]} for shown in row["references"]],
    }


def _render_markdown(text: str, title: str) -> tuple[str, Markup]:
    """Return the heading of a screen and the HTML below it: `title` and all, or apart what opens as a first heading."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    renderer = RendererHTML(parser)
    tokens = parser.parse(text)
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        title = renderer.renderInlineAsText(tokens[1].children, parser.options, {})
        tokens = tokens[3:]
    for token in tokens:
        if token.type.startswith("heading_") and token.tag == "h1":
            token.tag = "h2"  # a screen has one first heading
        for child in token.children or ():
            _open_apart(child)
    # HTML is switched off above, so nothing but Markdown's own elements comes out.
    return title, Markup(renderer.render(tokens, parser.options, {}))


def _open_apart(token: Token) -> None:
    """Let a link open beside the page, whose place would otherwise be taken."""
    if token.type == "link_open":
        token.attrSet("target", "_blank")
        token.attrSet("rel", "noopener noreferrer")
