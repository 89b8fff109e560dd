"""The page on two runs: the same methods side by side, differences claimed only where shown, nothing of other seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest
from report_samples import (
    attribution_rows,
    comparison_row,
    distance_rows,
    frame,
    make_config,
    make_corpus,
    make_generations,
)

from capo_core.evaluation.run_comparison import RunComparison
from capo_core.report import ComparisonData, RunRecord, render_comparison
from capo_core.report.comparison_page import (
    collect_run_examples,
    list_cautions,
    list_differences,
    say_headline,
    tabulate_key_figures,
    tabulate_settings,
)
from capo_core.report.formats import NO_BREAK
from capo_core.report.key_figures import choose_key_figures
from schemas.frames import COMPARISONS, METRICS

HOSTILE = "<script>alert(1)</script>"


def make_runs(difference: tuple[float, float, float, float] = (0.16, 0.08, 0.24, 0.003)) -> ComparisonData:
    """Return two runs of equal figures, with the difference of CAPO's attribution as given: value, low, high, p."""
    value, low, high, p = difference
    keys = {"condition": "surface_normalised", "classifier": "ngrams", "size": 5, "p": p, "holm": p}
    metrics = frame([*attribution_rows(), *distance_rows()], METRICS)
    compared = frame([comparison_row("capo", "capo", "attribution_accuracy", value, low, high, **keys)], COMPARISONS)
    settings = {"train-capo · capo.beta": "0.1", "train-sft · sft.n_epochs": "3"}
    return ComparisonData(
        runs=(
            RunRecord("run small", "capo:evaluation/a", settings),
            RunRecord("run large", "capo:evaluation/b", {**settings, "train-capo · capo.beta": "0.5"}),
        ),
        task=make_config().task,
        evaluation=make_config().evaluation,
        corpus=make_corpus(),
        generations=(make_generations(), make_generations()),
        found=RunComparison(metrics, metrics, compared, n_items=2, n_left_out=1),
        command="capo compare a b",
    )


def test_headline_names_both_runs_and_a_difference_that_is_shown() -> None:
    data = make_runs()
    said = say_headline(data, choose_key_figures(data.found.first)).replace(NO_BREAK, " ")
    assert said == (
        "CAPO, groups of 5 attributed to the person imitated: run A .78 [.73, .83], run B .78 [.73, .83]; run A is "
        "higher than run B (+.16 [.08, .24], p = .003, Holm)."
    )


@pytest.mark.parametrize("row", [(0.16, -0.01, 0.33, 0.06), (0.16, 0.01, 0.33, 0.07)])
def test_no_difference_is_claimed_that_interval_and_test_do_not_both_show(row: tuple) -> None:
    data = make_runs(row)
    keys = choose_key_figures(data.found.first)
    assert "no difference between run A and run B is shown" in say_headline(data, keys)
    shown, not_shown = list_differences(data, keys)
    assert shown == []
    assert len(not_shown) == 1


def test_key_table_reads_the_difference_by_run() -> None:
    data = make_runs()
    table = tabulate_key_figures(data, choose_key_figures(data.found.first))
    rows = {group.title: [cell.text for cell in group.rows[-1]] for group in table.groups}
    title = "Attribution accuracy, k = 5, surface removed, sampled"
    assert rows[title] == ["CAPO", ".78", ".78", "+.16", ".003", ".003", "100", "1", "Run A closer"]
    # Nothing was tested of the other figures.
    assert rows["Style distance, sampled"][3] == "not compared"


def test_only_settings_that_differ_are_listed() -> None:
    table = tabulate_settings(make_runs())
    assert [[cell.text for cell in row] for row in table.groups[0].rows] == [["train-capo · capo.beta", "0.1", "0.5"]]
    assert table.notes == ("1 setting are equal in both runs.",)


def test_cautions_name_items_left_out_methods_of_one_run_and_other_seeds() -> None:
    data = make_runs()
    first, second = data.generations
    second = second.filter(pl.col("method") != "zero_shot").with_columns(
        seed=pl.when(pl.col("method") == "sft").then(14).otherwise(pl.col("seed")).cast(pl.Int64)
    )
    cautions = list_cautions(replace(data, generations=(first, second)))
    assert "1 item answered in one run only: left out." in cautions
    assert "Zero-shot: in run A only, not compared." in cautions
    assert "SFT: no seed in common (run A 13, run B 14), not compared." in cautions
    assert any(caution.startswith("CAPO: one seed in common") for caution in cautions)


def test_examples_show_both_runs_one_above_the_other() -> None:
    examples = json.loads(collect_run_examples(make_runs()).json)
    titles = [method["title"] for method in examples["methods"]]
    assert titles == ["SFT, run A", "SFT, run B", "CAPO, run A", "CAPO, run B"]
    made = {response["m"] for item in examples["items"] for response in item["made"]}
    assert made == {"A:sft", "B:sft", "A:capo", "B:capo"}


class Tags(HTMLParser):
    """Collects the tags and ids of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_page_is_whole_safe_and_the_same_every_time() -> None:
    data = make_runs()
    runs = (replace(data.runs[0], title=HOSTILE, settings={HOSTILE: HOSTILE}), data.runs[1])
    hostile = replace(data, runs=runs, corpus=make_corpus(explanation=HOSTILE))
    page = render_comparison(hostile)
    assert page == render_comparison(hostile)
    found = Tags(page)
    assert found.tags.count("script") == 2  # examples, the page's own
    assert {"summary", "results", "comparisons", "examples", "provenance"} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert "default-src &#39;none&#39;" in page
