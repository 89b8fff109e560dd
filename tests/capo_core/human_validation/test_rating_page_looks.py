"""The rating page's looks, and its safety, in a real browser: every screen fits, is legible and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, launch_browser
from playwright.sync_api import Browser, Page, expect
from rating_page_material import make_tasks
from rating_page_visit import Visit, answer_all, download, read_lines, write_page

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
CHECKS = (Path(__file__).parents[2] / "material" / "page_checks.js").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), make_tasks())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_screen_fits_is_legible_and_named(browser: Browser, page_file: Path, width: int, scheme: str) -> None:
    visit = Visit(browser, page_file, width, scheme)
    page = visit.page
    page.evaluate(CHECKS)
    for screen in ("consent", "name", "instructions", "task", "instructions-dialog", "keys-dialog", "finish"):
        expect(page.locator(f"#{screen}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, screen
        assert page.evaluate("findFaintText()") == [], screen
        assert page.evaluate("findNameless()") == [], screen
        assert page.evaluate("findSmallTargets()") == [], screen
        go_on_from(page, screen)
    visit.close()


def go_on_from(page: Page, screen: str) -> None:
    match screen:
        case "consent":
            page.locator("#agree").check()
            page.locator("#consent .primary").click()
        case "name":
            page.locator("#name .primary").click()
            page.locator("#rater").fill("r1")
            page.locator("#name .primary").click()
        case "instructions":
            page.locator("#start").click()
        case "task":
            page.locator("#next").click()
            page.keyboard.press("a")
            page.locator("#open-instructions").click()
        case "instructions-dialog":
            page.keyboard.press("Escape")
            page.keyboard.press("?")
        case "keys-dialog":
            page.keyboard.press("Escape")
            answer_all(page)


def test_a_task_prints_dark_on_white_without_buttons(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file, scheme="dark")
    visit.enter("r1")
    visit.page.emulate_media(media="print", color_scheme="dark")
    visit.page.evaluate(CHECKS)
    assert visit.page.evaluate("findFaintText()") == []
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visit.page.get_by_role("button").count() == 0
    expect(visit.page.locator(".person").last).to_be_visible()
    visit.close()


def test_texts_are_shown_as_they_are_and_do_nothing(browser: Browser, tmp_path: Path) -> None:
    long = " " + "x" * 400
    visit = Visit(browser, write_page(tmp_path, make_tasks(2, spice=HOSTILE + long)), 360)
    visit.enter(HOSTILE[:60])
    page = visit.page
    assert page.locator(".explanation").first.inner_text().endswith(HOSTILE + long)
    assert page.locator(".person blockquote").first.inner_text().endswith(HOSTILE + long)
    assert page.locator(".texts dd").first.inner_text().endswith(HOSTILE + long)
    answer_all(page)
    row = read_lines(download(page, "#download-lines", tmp_path))[0]
    assert row["rater_id"] == HOSTILE[:60].strip()
    assert page.title() == "Who wrote this?"
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    visit.close()


def test_policy_stops_requests_and_scripts_that_are_not_the_pages_own(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    heard = visit.page.evaluate(
        """async () => {
          const heard = [];
          document.addEventListener("securitypolicyviolation", (event) => heard.push(event.effectiveDirective));
          await fetch("https://example.invalid/").catch(() => {});
          const script = document.createElement("script");
          script.textContent = "document.title = 'owned'";
          document.body.append(script);
          await new Promise((resolve) => setTimeout(resolve, 50));
          return heard.sort();
        }"""
    )
    assert heard == ["connect-src", "script-src-elem"]
    assert visit.page.title() == "Who wrote this?"
    assert all("Content Security Policy" in complaint for complaint in visit.complaints)
    visit.context.close()
