"""The page in a real browser: silent, without network, usable at phone width, its filter at work."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from browser import CHROMIUM, launch_browser
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page
from report_samples import (
    attribution_rows,
    distance_rows,
    frame,
    make_corpus,
    make_data,
    make_generations,
    make_judge_comparisons,
    make_judge_metrics,
    make_raters,
    make_timings,
    make_usage,
    metric_row,
)

from capo_core.report import render_report
from capo_core.spreadsheet import neutralise_formulas
from schemas.frames import METRICS

STICKING_OUT = """width => [...document.querySelectorAll("main *")].filter((element) => {
  const box = element.getBoundingClientRect();
  const isHidden = !box.width || getComputedStyle(element).clipPath !== "none";
  return !isHidden && !element.closest(".scroll, svg, caption, thead") && box.right > width + 1;
}).map((element) => element.outerHTML.slice(0, 80))"""
"""Elements that reach beyond the page's right edge, those in boxes of their own that scroll left out."""

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
PEOPLE = ("ada", HOSTILE)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    single = {"condition": "raw", "classifier": "ngrams", "size": 1}
    rows = [row for who in ("all", *PEOPLE) for row in (*attribution_rows(who), *distance_rows(who))]
    rows += [metric_row(name, "attribution_accuracy", 0.6, **single) for name in ("human", "sft", "capo")]
    data = make_data(
        corpus=make_corpus(PEOPLE, HOSTILE),
        generations=make_generations(PEOPLE, HOSTILE),
        metrics=frame(rows, METRICS),
        judge_metrics=make_judge_metrics(),
        judge_comparisons=make_judge_comparisons(),
        judge_usage=make_usage(),
        ratings_metrics=frame([metric_row("capo", "human_attribution_accuracy", 0.7, decision=None)], METRICS),
        raters=make_raters(),
        timings=make_timings(),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    return path


class Visit:
    """A page opened from disk, with everything it complained of or asked for."""

    def __init__(self, browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # pyright: ignore
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_silent_needs_no_network_and_does_not_overflow(
    browser: Browser, page_file: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, page_file, width, scheme)
    for fold in visit.page.locator("details").all():
        fold.evaluate("fold => { fold.open = true; }")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert visit.page.title() == "sample · capo report"
    visit.page.close()


def test_ink_stands_out_in_light_and_dark(browser: Browser, page_file: Path) -> None:
    def grey(scheme: str, style: str) -> float:
        visit = Visit(browser, page_file, scheme=scheme)
        colour = visit.page.evaluate(f"getComputedStyle(document.body).{style}")
        visit.page.close()
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    assert grey("light", "backgroundColor") > 600 > 200 > grey("light", "color")
    assert grey("dark", "backgroundColor") < 200 < 600 < grey("dark", "color")


def test_drawings_fill_their_panels_with_colours_of_the_page(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file, 390)
    for fold in visit.page.locator("details").all():
        fold.evaluate("fold => { fold.open = true; }")
    for panel in visit.page.locator(".panel svg").all():
        box = panel.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 50
    stroke = visit.page.locator("#summary svg path[data-tip]").first.evaluate("dot => getComputedStyle(dot).stroke")
    assert stroke == "rgb(28, 32, 38)"  # --human: #1c2026
    visit.page.close()


def test_filter_by_person_item_text_and_kind(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    page, cards = visit.page, visit.page.locator(".example")
    # Two test items, two people.
    assert cards.count() == 4
    page.locator("#filter-person").select_option("ada")
    assert cards.count() == 2
    assert cards.first.locator("h4").all_inner_texts()[0] == "ada wrote"
    page.locator("#filter-item").select_option(f"{3:016x}")
    assert cards.count() == 1
    assert "Statement 3" in cards.first.inner_text()
    page.locator("#filter-item").select_option("")
    page.locator("#filter-text").fill("CONTEXT 2")
    assert cards.count() == 1
    page.locator("#filter-text").fill("nowhere")
    assert cards.count() == 0
    assert page.locator("#example-count").inner_text() == "0 of 0 examples shown (4 in all)."
    page.locator("#filter-text").fill("")
    page.locator("#filter-kind").select_option("unread")
    # Zero-shot's response to the first test item is the one that could not be read.
    assert cards.count() == 1
    assert "could not be read: no label" in cards.first.inner_text()
    assert "I cannot say" in cards.first.inner_text()
    assert visit.complaints == []
    page.close()


def test_same_label_is_marked_in_words_or_signs(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    card = visit.page.locator(".example").first
    # The people say yes, SFT says yes and CAPO says no.
    assert card.locator(".row-human .label").all_inner_texts() == ["yes"]
    assert card.locator(".row-sft .label").all_inner_texts() == ["yes ✓"]
    assert card.locator(".row-capo .label").all_inner_texts() == ["no"]
    visit.page.close()


def test_filter_and_folds_work_from_the_keyboard(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    page = visit.page
    page.locator("#filter-person").focus()
    page.keyboard.press("a")
    assert page.locator("#filter-person").input_value() == "ada"
    assert page.locator(".example").count() == 2
    fold = page.locator("details#configuration")
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.evaluate("fold => fold.open")
    visit.page.close()


def test_pointing_at_a_dot_shows_its_figure(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    dot = visit.page.locator("#summary svg path[data-tip]").first
    dot.scroll_into_view_if_needed()
    dot.hover()
    assert visit.page.locator("#tip").inner_text() == dot.get_attribute("data-tip")
    assert visit.complaints == []
    visit.page.close()


def test_group_sizes_are_chosen_and_legend_entries_make_a_series_stand_out(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    page = visit.page
    for fold in page.locator("details").all():
        fold.evaluate("fold => { fold.open = true; }")
    chooser = page.locator(".choose-k select").first
    figure = page.locator("figure", has=page.locator(".choose-k")).first
    panels = figure.locator(".panel")
    assert panels.count() == 2  # k = 1 and 5
    chooser.select_option("5")
    assert [panel.is_visible() for panel in panels.all()] == [False, True]
    chooser.select_option("")
    assert [panel.is_visible() for panel in panels.all()] == [True, True]
    stability = page.locator("#stability figure", has=page.locator(".entry-button")).first
    button = stability.locator(".entry-button", has_text="surface removed")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    faded = stability.locator("svg .dim")
    assert faded.count() > 0
    assert "var(--accent)" not in {mark.get_attribute("stroke") for mark in faded.all()}
    page.keyboard.press("Enter")
    assert faded.count() == 0
    assert visit.complaints == []
    page.close()


def test_tables_are_saved_as_csv_that_reads_back(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    with visit.page.expect_download() as saved:
        visit.page.locator("#results .save").first.click()
    assert saved.value.suggested_filename == "imitation-beside-its-distance-mean-over-annotators.csv"
    table = pl.read_csv(saved.value.path(), infer_schema=False)
    rows = {row["Method"]: row for row in table.iter_rows(named=True)}
    own = next(name for name in table.columns if name.startswith("Attributed") and name.endswith("surface removed"))
    # .78 [.73, .83], written as numbers and text that a spreadsheet reads.
    assert rows["CAPO"][own] == "0.78"
    assert rows["CAPO"][f"{own}: detail"] == "[.73, .83]"
    assert visit.complaints == []
    visit.page.close()


def test_full_tables_are_saved_in_full_precision_without_formulas(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    with visit.page.expect_download() as saved:
        visit.page.get_by_role("button", name="Save metrics.csv", exact=True).click()
    table = pl.read_csv(saved.value.path())
    assert table.columns == list(METRICS)
    # 17 figures over all and of two people each, and 3 of single explanations.
    assert table.height == 3 * 17 + 3
    visit.page.close()
    hostile = make_data().metrics.with_columns(annotator_id=pl.lit("=cmd()"))
    assert set(neutralise_formulas(hostile)["annotator_id"]) == {"'=cmd()"}


@pytest.mark.parametrize(("width", "look"), [(390, "light"), (1280, "dark"), (794, "print")])  # 794: A4 at 96 dpi
def test_no_section_is_blank_and_nothing_sticks_out(browser: Browser, page_file: Path, width: int, look: str) -> None:
    visit = Visit(browser, page_file, width, "dark" if look == "dark" else "light")
    page = visit.page
    if look == "print":
        page.emulate_media(media="print")
    for section in page.locator("section").all():
        picture = np.asarray(Image.open(BytesIO(section.screenshot())).convert("L")).astype(int)
        name = section.get_attribute("id")
        assert np.ptp(picture) > 100, f"{name} is blank"
        # Rows of pixels without anything on them; no stretch of 600, most of a screen, is empty.
        drawn = np.flatnonzero(np.ptp(picture, axis=1) > 20)
        gaps = np.diff(np.concatenate([[0], drawn, [len(picture)]]))
        assert gaps.max() < 600, f"{name} has {gaps.max()} empty rows"
    for fold in page.locator("details").all():
        fold.evaluate("fold => { fold.open = true; }")
    assert page.evaluate(STICKING_OUT, width) == []
    page.close()


def test_two_thousand_generations_stay_small_and_a_few_show_at_a_time(browser: Browser, tmp_path: Path) -> None:
    # 200 copies of the sample's 10 responses.
    corpora = [_renumber(make_corpus(), number) for number in range(200)]
    generations = [_renumber(make_generations(), number) for number in range(200)]
    data = make_data(corpus=pl.concat(corpora), generations=pl.concat(generations))
    assert data.generations.height == 2000
    path = tmp_path / "large.html"
    path.write_text(render_report(data), encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    visit = Visit(browser, path)
    assert visit.page.locator(".example").count() == 6
    assert "6 of 800 examples" in visit.page.locator("#example-count").inner_text()
    visit.page.locator("#example-more").click()
    assert visit.page.locator(".example").count() == 12
    visit.page.close()


def _renumber(table: pl.DataFrame, number: int) -> pl.DataFrame:
    """Return a copy of the sample under new item ids, with longer explanations where there is one."""
    long = "The context speaks of somebody else and leaves open where they are. " * 4
    return table.with_columns(
        (pl.col("item_id") + f"-{number}").alias("item_id"),
        pl.when(pl.col("explanation").is_not_null()).then(pl.lit(long)).alias("explanation"),
    )
