"""The rating page in a real browser: from consent to a file that is read back, by keyboard, kept over a reload."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from browser import CHROMIUM, launch_browser
from playwright.sync_api import Browser, expect
from rating_page_material import make_key, make_tasks
from rating_page_visit import (
    Visit,
    answer_all,
    download,
    focused,
    read_lines,
    task_of,
    write_page,
)

from capo_core.human_validation.ratings import read_ratings
from capo_core.spreadsheet import neutralise_cell, restore_cell

COMMENT = '=HYPERLINK("x";"y"), «so»\nand a second line'

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), make_tasks())


@pytest.fixture
def visit(browser: Browser, page_file: Path) -> Iterator[Visit]:
    visit = Visit(browser, page_file)
    yield visit
    visit.close()


def test_journey_by_keyboard_ends_in_files_that_are_read_back(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    assert focused(page) == "consent-title"
    page.locator("#agree").press("Space")
    page.keyboard.press("Enter")
    assert focused(page) == "rater"
    page.keyboard.type("Äda 1")
    page.keyboard.press("Enter")
    assert focused(page) == "instructions-title"
    page.locator("#start").press("Enter")
    answers = dict(zip(range(6), ["A", "B", "C", "D", "", "A"], strict=True))
    order = []
    for place in range(6):
        assert page.locator("#task-title").inner_text() == f"Task {place + 1} of 6"
        assert focused(page) == "task-title"
        order.append(task_of(page))
        page.keyboard.press(answers[order[-1]].lower() or "0")
        if place == 2:
            page.locator("#comment").fill(COMMENT)
            page.reload()
            assert page.locator("#task-title").inner_text() == "Task 3 of 6"
            assert page.locator("#comment").input_value() == COMMENT
            page.close()
            visit.page = page = visit.open()
            assert page.locator("#progress-text").inner_text() == "3 of 6 rated"
            page.keyboard.press("ArrowLeft")
            assert task_of(page) == order[1]
            assert page.locator("#options :checked").input_value() == answers[order[1]]
            page.keyboard.press("ArrowRight")
            assert task_of(page) == order[2]
        page.keyboard.press("ArrowRight" if place % 2 else "Enter")
    assert focused(page) == "finish-title"
    assert page.locator("#tally dd").all_inner_texts() == ["6", "5", "1", "1"]

    tasks, key = make_tasks(), make_key(make_tasks())
    lines = download(page, "#download-lines", tmp_path)
    cells = download(page, "#download-cells", tmp_path)
    assert (lines.name, cells.name) == ("ratings_da_1_6_of_6.jsonl", "ratings_da_1_6_of_6.csv")
    for path in (lines, cells):
        ratings = read_ratings(path, key)
        assert ratings.select("task_id", "rater_id", "answer").rows() == [
            (f"t{task}", "Äda 1", answer) for task, answer in answers.items()
        ]
    rows = read_lines(lines)
    assert [row["task_id"] for row in rows] == [f"t{task}" for task in order]
    assert [row["presented"] for row in rows] == [1, 2, 3, 4, 5, 6]
    signatures = dict(tasks.select("task_id", "signature").iter_rows())
    assert {row["task_id"]: row["signature"] for row in rows} == signatures
    assert [row["comment"] for row in rows] == ["", "", COMMENT, "", "", ""]
    table = list(csv.DictReader(io.StringIO(cells.read_bytes().decode("utf-8-sig"), newline="")))
    assert table[2]["comment"] == neutralise_cell(COMMENT) == "'" + COMMENT
    assert [{name: restore_cell(value) for name, value in row.items()} for row in table] == [
        {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in row.items()} for row in rows
    ]


def test_consent_and_a_name_come_first(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#consent")).to_be_visible()
    assert page.locator("#agree").evaluate("box => box.validity.valueMissing")
    page.locator("#agree").check()
    page.get_by_role("button", name="Go on").click()
    page.locator("#rater").fill(" \u3000 ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Enter a name or pseudonym to go on.")
    assert focused(page) == "rater"
    assert page.locator("#rater").get_attribute("aria-describedby") == "rater-error rater-hint"
    assert page.evaluate("localStorage.length") == 0


def test_next_waits_for_a_choice(visit: Visit, tmp_path: Path) -> None:
    visit.enter("r1")
    page = visit.page
    page.keyboard.press("Enter")
    assert page.locator("#task-title").inner_text() == "Task 1 of 6"
    assert page.locator("#task-status").inner_text() == "Choose a person, or “Cannot say”, to go on."
    assert page.locator("#options :checked").count() == 0
    assert focused(page) == "answer-A"
    page.locator("#download-part").click()
    assert page.locator("#task-status").inner_text() == "Nothing is rated yet, so there is nothing to download."
    # A task without a choice is not in the file, comment or no comment.
    page.keyboard.press("b")
    page.locator("#next").click()
    page.locator("#comment").fill("thinking")
    rows = read_lines(download(page, "#download-part", tmp_path))
    assert [(row["answer"], row["presented"]) for row in rows] == [("B", 1)]


def test_arrows_change_the_task_or_the_choice_never_both(visit: Visit) -> None:
    visit.enter("r1")
    page = visit.page
    page.locator("#answer-B").check()
    page.keyboard.press("ArrowDown")
    assert page.locator("#options :checked").input_value() == "C"
    page.keyboard.press("ArrowRight")
    assert page.locator("#task-title").inner_text() == "Task 2 of 6"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#options :checked").input_value() == "C"
    # The first task has none before it.
    page.keyboard.press("ArrowLeft")
    assert page.locator("#task-title").inner_text() == "Task 1 of 6"
    expect(page.locator("#back")).to_be_disabled()


def test_a_key_held_down_goes_one_task_on(visit: Visit) -> None:
    visit.enter("r1")
    answer_all(visit.page)
    visit.page.locator("#review").click()
    assert visit.page.locator("#task-title").inner_text() == "Task 6 of 6"
    for _ in range(3):
        visit.page.keyboard.down("ArrowLeft")
    visit.page.keyboard.up("ArrowLeft")
    assert visit.page.locator("#task-title").inner_text() == "Task 5 of 6"


def test_a_click_on_a_card_heading_chooses_and_marks_the_person(visit: Visit) -> None:
    visit.enter("r1")
    page = visit.page
    page.locator(".person h3 label", has_text="Person C").click()
    assert page.locator("#options :checked").input_value() == "C"
    assert page.locator(".person.chosen").get_attribute("data-letter") == "C"
    assert page.locator("#task-status").inner_text() == "Person C chosen, saved."


def test_keys_are_shown_leave_typing_alone_and_can_be_switched_off(visit: Visit) -> None:
    visit.enter("r1")
    page = visit.page
    page.locator("#comment").press_sequentially("abc? 0")
    assert page.locator("#comment").input_value() == "abc? 0"
    assert page.locator("#options :checked").count() == 0
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#keys-dialog")).to_be_visible()
    assert page.locator("#letter-keys").inner_text() == "A B C D"
    page.keyboard.press("b")
    page.keyboard.press("Escape")
    expect(page.locator("#keys-dialog")).to_be_hidden()
    assert page.locator("#options :checked").count() == 0
    page.locator("#open-keys").click()
    page.locator("#use-keys").uncheck()
    page.locator("#keys-dialog [data-close]").click()
    assert focused(page) == "open-keys"
    page.keyboard.press("b")
    page.reload()
    page.keyboard.press("b")
    assert page.locator("#options :checked").count() == 0


def test_instructions_can_be_read_again_at_any_time(visit: Visit) -> None:
    visit.enter("r1")
    page = visit.page
    page.locator("#open-instructions").click()
    assert "Go by manner" in page.locator("#instructions-dialog").inner_text()
    page.keyboard.press("Escape")
    assert focused(page) == "open-instructions"


def test_every_rater_has_an_order_of_his_own_and_keeps_his_answers(visit: Visit, tmp_path: Path) -> None:
    visit.enter("r1")
    first = answer_all(visit.page)
    visit.page.locator("#restart").click()
    expect(visit.page.locator("#agree")).not_to_be_checked()
    visit.enter("r2")
    assert visit.page.locator("#progress-text").inner_text() == "0 of 6 rated"
    second = answer_all(visit.page, "d")
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    visit.page.locator("#restart").click()
    visit.enter("r1")
    rows = read_lines(download(visit.page, "#download-lines", tmp_path))
    assert [(row["task_id"], row["rater_id"], row["answer"]) for row in rows] == [
        (f"t{task}", "r1", "A") for task in first
    ]


def test_every_task_comes_in_every_place_equally_often(visit: Visit) -> None:
    n_raters, n_tasks = 3000, 6
    orders = visit.page.evaluate(
        f"Array.from({{ length: {n_raters} }}, (_, i) => shuffleFor([0, 1, 2, 3, 4, 5], 'set-1', `rater ${{i}}`))"
    )
    counts = [[sum(order[place] == task for order in orders) for task in range(n_tasks)] for place in range(n_tasks)]
    expected = n_raters / n_tasks
    chi_square = sum((count - expected) ** 2 / expected for row in counts for count in row)
    # (6 - 1)² = 25 degrees of freedom; the 99.9th percentile is 52.6.
    assert chi_square < 52.6
    # The order draws on the set too.
    assert visit.page.evaluate("shuffleFor([0, 1, 2, 3, 4, 5], 'set-2', 'rater 0')") != orders[0]


def test_answers_of_a_task_that_has_changed_since_are_left_out(browser: Browser, tmp_path: Path) -> None:
    visit = Visit(browser, write_page(tmp_path, make_tasks()))
    visit.enter("r1")
    order = answer_all(visit.page)
    changed = pl.when(pl.col("task_id") == f"t{order[2]}").then(pl.lit("f" * 64)).otherwise("signature")
    write_page(tmp_path, make_tasks().with_columns(signature=changed))
    visit.page.reload()
    # Five of six still count, and the one that is asked again is on screen.
    assert visit.page.locator("#progress-text").inner_text() == "5 of 6 rated"
    assert visit.page.locator("#task-title").inner_text() == "Task 3 of 6"
    assert visit.page.locator("#options :checked").count() == 0
    visit.close()


def test_what_is_kept_but_not_readable_is_not_taken_for_answers(visit: Visit) -> None:
    visit.enter("r1")
    answer_all(visit.page)
    names = visit.page.evaluate("Object.keys(localStorage)")
    stored = next(name for name in names if "rater" in name)
    for damaged in ('{"started":true,"pl', "[]", '{"started":true,"place":6,"ratings":{"t0":{"answer":"Z"}}}'):
        visit.page.close()
        # A page that is closed saves once more, so the damage is done from a tab that has no rater of its own.
        other = visit.context.new_page()
        other.goto(visit.address.replace("rating.html", ""))
        other.evaluate("([name, value]) => localStorage.setItem(name, value)", [stored, damaged])
        other.close()
        visit.page = visit.open()
        if visit.page.locator("#start").is_visible():
            visit.page.locator("#start").click()
        assert visit.page.locator("#progress-text").inner_text() == "0 of 6 rated"
        assert visit.page.locator("#task-title").inner_text() == "Task 1 of 6"


def test_a_second_tab_of_the_same_rater_takes_up_what_the_first_enters(visit: Visit) -> None:
    visit.enter("r1")
    second = visit.open()
    for _ in range(50):  # a tab is a process of its own, which hears a moment later of what was stored in the first
        if not second.locator("#consent").is_visible():
            break
        second.wait_for_timeout(200)
        second.reload()
    visit.page.keyboard.press("c")
    expect(second.locator("#answer-C")).to_be_checked()
    second.locator("#comment").fill("from the second")
    expect(visit.page.locator("#comment")).to_have_value("from the second")
    expect(visit.page.locator("#answer-C")).to_be_checked()


def test_answers_can_be_erased_from_the_browser(visit: Visit) -> None:
    visit.enter("r1")
    answer_all(visit.page)
    questions = []
    visit.page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    visit.page.locator("#erase").click()
    expect(visit.page.locator("#finish")).to_be_visible()
    visit.page.once("dialog", lambda dialog: dialog.accept())
    visit.page.locator("#erase").click()
    expect(visit.page.locator("#consent")).to_be_visible()
    assert questions == ["Erase all answers of r1 from this browser? Files you downloaded stay."]
    assert visit.page.evaluate("Object.keys(localStorage)") == []


def test_without_storage_the_page_says_so_and_still_gives_a_file(
    browser: Browser, page_file: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, page_file)
    # Of an address of data: the browser keeps nothing.
    visit.page = visit.open("data:text/html;base64," + base64.b64encode(page_file.read_bytes()).decode())
    expect(visit.page.locator("#storage-warning")).to_contain_text("does not keep what you enter")
    visit.enter("r1")
    visit.page.keyboard.press("a")
    assert visit.page.locator("#task-status").inner_text() == "Person A chosen."
    assert len(read_lines(download(visit.page, "#download-part", tmp_path))) == 1
    answer_all(visit.page)
    questions = []
    visit.page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    visit.page.locator("#restart").click()
    assert questions == ["Your ratings are not saved anywhere yet. Leave them behind?"]
    assert len(read_lines(download(visit.page, "#download-lines", tmp_path))) == 6
    visit.close()


def test_seconds_are_those_the_task_was_in_view(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    visit = Visit(browser, page_file)
    page = visit.page
    page.clock.install(time=0)
    page.reload()
    page.clock.pause_at(60)
    visit.enter("r1")
    page.clock.run_for(3000)
    page.locator("#open-instructions").click()
    page.clock.run_for(50_000)
    # The browser reports a dialog's closing some time after the key; our listener comes after the page's own.
    closes = "new Promise(done => document.querySelector('dialog[open]').addEventListener('close', () => done()))"
    page.evaluate(f"() => {{ window.closing = {closes} }}")
    page.keyboard.press("Escape")
    page.evaluate("() => window.closing")
    page.clock.run_for(1000)
    hide = "hidden => { Object.defineProperty(document, 'visibilityState', { value: hidden, configurable: true }); "
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, "hidden")
    page.clock.run_for(70_000)
    page.evaluate(hide, "visible")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.clock.run_for(25_500)
    page.keyboard.press("ArrowLeft")
    page.clock.run_for(2000)
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    # First task: 3 s, then 50 s behind the instructions, 1 s, then 70 s behind another tab, and 2 s on coming back.
    rows = read_lines(download(page, "#download-part", tmp_path))
    assert [row["seconds"] for row in rows] == [6, 25.5]
    visit.close()


def test_texts_of_a_group_stand_with_their_explanations_where_their_numbers_are_clear(
    browser: Browser, tmp_path: Path
) -> None:
    for spice, n_items, first in (
        ("", 3, "Context\nA man in a red coat crosses street"),
        ("\n[2] or so", 4, "[1] A man"),
    ):
        visit = Visit(browser, write_page(tmp_path, make_tasks(1, spice=spice)))
        visit.enter("r1")
        assert visit.page.locator(".item").count() == n_items
        assert first in visit.page.locator(".item").first.inner_text()
        visit.close()


def test_cells_are_neutralised_as_in_the_other_sheets(visit: Visit) -> None:
    texts = [
        "",
        "plain",
        *(
            opening + "1+1"
            for opening in ["=", "+", "-", "@", "'", "\t", "\r", "\n", "＝", "＋", "－", "＠", '"', " ="]
        ),
    ]
    formatted = visit.page.evaluate("texts => texts.map(formatCell)", texts)
    read = [next(csv.reader(io.StringIO(cell, newline="")), [""])[0] for cell in formatted]
    assert read == [neutralise_cell(text) for text in texts]
