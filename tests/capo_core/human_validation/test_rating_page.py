"""The rating page as a document: self-contained, blind, and closed to markup from texts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from rating_page_material import CONSENT, INSTRUCTIONS, TASK, make_tasks

from capo_core.errors import RatingsError
from capo_core.human_validation.rating_page.page import render_rating_page

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--"


class Document(HTMLParser):
    """What stands inside every style and script element, and every attribute that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.targets: list[str] = []
        self.policy = ""
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = (tag, dict(attrs)) if tag in ("style", "script") else None
        self.targets += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = str(dict(attrs)["content"])

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside.append((*self._open, data))
            self._open = None


def render(tasks: pl.DataFrame | None = None, consent: str = CONSENT, instructions: str = INSTRUCTIONS) -> str:
    shown = make_tasks() if tasks is None else tasks
    return render_rating_page(shown, TASK, consent=consent, instructions=instructions, set_id="set-1")


def read_content(page: str) -> dict:
    return json.loads(next(text for _, attrs, text in Document(page).inside if attrs.get("type") == "application/json"))


def test_page_refers_to_nothing_outside_itself() -> None:
    document = Document(render())
    # The empty icon, and the address in the consent text, which is opened only by a click.
    assert document.targets == ["data:,", "mailto:team@example.org"]
    for _, _, text in document.inside:
        assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", text)


def test_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    document = Document(render())
    hashes = {
        tag: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for tag, attrs, text in document.inside
        if "type" not in attrs
    }
    assert dict(part.strip().split(" ", 1) for part in document.policy.split(";")) == {
        "default-src": "'none'",
        "style-src": hashes["style"],
        "script-src": hashes["script"],
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # Nothing in the page needs what the policy forbids: style attributes and event handlers in the markup.
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", re.sub(r"<(script|style).*?</\1>", "", render(), flags=re.S))


def test_equal_tasks_give_equal_pages_whatever_the_row_order() -> None:
    tasks = make_tasks()
    assert render(tasks.sample(fraction=1.0, shuffle=True, seed=3)) == render(tasks)


def test_page_tells_only_what_the_rater_may_know() -> None:
    page = render()
    content = read_content(page)
    assert set(content) == {"set", "names", "tasks"}
    assert content["tasks"][0] == {
        "id": "t0",
        "signature": "0" * 64,
        "texts": list(make_tasks().select("text_a", "text_b").row(0)),
        "explanations": [f"Task 0: crossing street {i} means to be outside." for i in range(3)],
        "people": [
            {
                "letter": letter,
                "examples": [f"As {letter} sees example 0.{i}, the text says so, and so it follows." for i in range(3)],
            }
            for letter in "ABCD"
        ],
    }
    # The name of the project is that of a method.
    assert "capo" not in page.replace(Document(page).policy, "").lower()


def test_texts_of_tasks_cannot_close_the_script_they_travel_in() -> None:
    page = render(make_tasks(spice=HOSTILE))
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert read_content(page)["tasks"][0]["explanations"][0].endswith(HOSTILE)


def test_markdown_is_rendered_without_markup_of_its_own() -> None:
    page = render(
        consent="Below\n\n<b onclick=x>bold</b> & **strong**\n\n[a](javascript:x) [b](https://example.org)",
        instructions="![picture](https://example.org/x.png)",
    )
    assert "&lt;b onclick=x&gt;bold&lt;/b&gt; &amp; <strong>strong</strong>" in page
    assert "[a](javascript:x)" in page
    assert '<a href="https://example.org" target="_blank" rel="noopener noreferrer">b</a>' in page
    assert "<img" not in page


def test_a_heading_that_opens_a_text_names_its_screen() -> None:
    page = render(consent="# *Taking* <part>\n\n## Why\n\n# Again", instructions="No heading, ## nor this.")
    assert '<h1 id="consent-title" tabindex="-1">Taking &lt;part&gt;</h1>\n<div class="prose"><h2>Why</h2>' in page
    # There is one first heading to a screen.
    assert "<h2>Again</h2>" in page
    assert page.count(">Instructions</h1>") == 2


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (make_tasks(0), "there are no tasks"),
        (pl.concat([make_tasks(1), make_tasks(1)]), "task 't0' stands twice"),
        (make_tasks(1, n_explanations=1).with_columns(explanations=pl.lit([], pl.List(pl.String))), "no explanation"),
        (make_tasks(1, letters="A"), "task 't0' has 1 candidates, at least 2 are needed"),
        (make_tasks(1, letters="AA"), "candidates ['A', 'A']; distinct letters A to Z are needed"),
        (make_tasks(1, letters="A1"), "candidates ['A', '1']; distinct letters"),
    ],
)
def test_a_set_that_cannot_be_shown_is_refused_with_the_reason(tasks: pl.DataFrame, message: str) -> None:
    with pytest.raises(RatingsError) as caught:
        render(tasks)
    assert message in str(caught.value)


def test_a_set_without_a_name_or_with_a_column_too_many_is_refused() -> None:
    with pytest.raises(RatingsError, match="set_id is ' '"):
        render_rating_page(make_tasks(), TASK, consent=CONSENT, instructions=INSTRUCTIONS, set_id=" ")
    with pytest.raises(ValueError, match="unexpected column 'method'"):
        render(make_tasks().with_columns(method=pl.lit("sft")))
