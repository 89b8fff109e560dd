"""A rater's browser, for the tests of the rating page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page
from rating_page_material import CONSENT, INSTRUCTIONS, TASK

from capo_core.human_validation.rating_page.page import render_rating_page


def write_page(directory: Path, tasks: pl.DataFrame) -> Path:
    """Write the page of the tasks, always of the same set."""
    path = directory / "rating.html"
    page = render_rating_page(tasks, TASK, consent=CONSENT, instructions=INSTRUCTIONS, set_id="set-1")
    path.write_text(page, encoding="utf-8")
    return path


class Visit:
    """A rater's browser: its pages share what is kept; all they complain of or ask for is noted."""

    def __init__(self, browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,  # pyright: ignore[reportArgumentType]
        )
        self.address = path.as_uri()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = self.open()

    def open(self, address: str | None = None) -> Page:
        """Return a new tab."""
        page = self.context.new_page()
        page.set_default_timeout(5000)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address or self.address)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def enter(self, rater: str) -> None:
        """Agree, give a name, and press the start button unless the page goes on where the rater stopped."""
        self.page.locator("#agree").check()
        self.page.get_by_role("button", name="Go on").click()
        self.page.locator("#rater").fill(rater)
        self.page.keyboard.press("Enter")
        if self.page.locator("#start").is_visible():
            self.page.locator("#start").press("Enter")

    def close(self) -> None:
        """Check that the page was silent and asked for nothing but itself."""
        self.context.close()
        assert self.complaints == []
        assert {url for url in self.requests if not url.startswith(("data:", "blob:"))} <= {self.address}


def task_of(page: Page) -> int:
    """Return the number of the task on screen, which its explanations name."""
    found = re.search(r"Task (\d+): crossing", page.locator("#items").inner_text())
    assert found is not None
    return int(found[1])


def answer_all(page: Page, letter: str = "a") -> list[int]:
    """Return the tasks in the order they came, each answered with `letter`."""
    seen: list[int] = []
    while page.locator("#task").is_visible():
        assert task_of(page) not in seen, f"task {seen[-1]} is left only to come back"
        seen.append(task_of(page))
        page.keyboard.press(letter)
        page.keyboard.press("Enter")
    return seen


def download(page: Page, button: str, directory: Path) -> Path:
    with page.expect_download() as started:
        page.locator(button).click()
    path = directory / started.value.suggested_filename
    started.value.save_as(path)
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.tagName")
