"""The page is one file, safe whatever the data say, and honest about what is absent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import polars as pl
import pytest
from report_samples import (
    attribution_rows,
    comparison_row,
    empty_data,
    frame,
    make_config,
    make_corpus,
    make_cross_attribution,
    make_data,
    make_generations,
    make_stability_annotators,
    make_style,
    metric_row,
)

from capo_core.report import ReportData, StyleData, render_report
from capo_core.report.comparison_tables import tabulate_comparisons
from capo_core.report.data_tables import check_splits, find_count_faults
from capo_core.report.examples import Examples, collect_examples, list_methods
from capo_core.report.page import dump_configuration
from capo_core.report.result_figures import draw_metric_panels
from capo_core.report.result_tables import tabulate_metrics
from capo_core.report.training_figures import thin_log
from schemas.frames import COMPARISONS, EXCLUSIONS, METRICS, SUBJECTIVITY, VALUE_PROFILES

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&\u2028"


class Reader(HTMLParser):
    """Collects what a browser would see: tags, attributes, the text of each script, and all other text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "style":
            self.styles[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(make_data())


def examples_of(data: ReportData, **limits: int) -> Examples:
    """Return the examples of a report's data."""
    return collect_examples(data.corpus, data.generations, data.config.task, list_methods(data.generations), **limits)


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    loading = {"src", "srcset", "data", "action", "poster", "xlink:href", "background"}
    for tag, attributes in Reader(page).tags:
        assert not loading & attributes.keys(), tag
        href = attributes.get("href")
        assert href is None or href.startswith("#") or href == "data:,", tag
    assert "url(" not in "".join(Reader(page).styles)
    assert "@import" not in page


def test_policy_allows_exactly_the_style_and_script_inside(page: str) -> None:
    reader = Reader(page)
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    executable = [script for script in reader.scripts if not script.lstrip().startswith("{")]
    assert len(executable) == len(reader.styles) == 1
    for kind, text in (("style-src", reader.styles[0]), ("script-src", executable[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy


def test_no_element_carries_a_style_or_event_attribute(page: str) -> None:
    for tag, attributes in Reader(page).tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    people = (HOSTILE, "ben")
    metrics = [row for who in ("all", HOSTILE) for row in attribution_rows(who)]
    metrics.append(metric_row(HOSTILE, HOSTILE, 0.5, decision=HOSTILE, condition=HOSTILE))
    page = render_report(
        make_data(
            config=make_config(corpus={"name": "c", "format": "table", "paths": [HOSTILE]}),
            corpus=make_corpus(people, HOSTILE),
            generations=make_generations(people, HOSTILE),
            metrics=frame(metrics, METRICS),
            comparisons=frame([comparison_row(HOSTILE, "sft", HOSTILE, 1.0, 0.5, 1.5)], COMPARISONS),
            training_logs=[("sft", HOSTILE, 13, make_data().training_logs[0][3])],
            annotations_counts={HOSTILE: 3},
            pair_counts={HOSTILE: {HOSTILE: 1}},
            stability_annotators=make_stability_annotators(people),
            style=make_style(people, HOSTILE),
            cross_attribution=make_cross_attribution(people),
            subjectivity=frame([(HOSTILE, "manifest", HOSTILE)], SUBJECTIVITY),
            exclusions=frame([(HOSTILE, "sampled", HOSTILE, HOSTILE, 1.0, 0.5)], EXCLUSIONS),
            value_profiles=frame([(HOSTILE, 13, HOSTILE, 50, 900, 20, False)], VALUE_PROFILES),
            provenance={"command": HOSTILE, "artifacts": {HOSTILE: HOSTILE}, "created_at": HOSTILE},
        )
    )
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 3  # examples, full tables, the page's own
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]
    examples = json.loads(next(script for script in reader.scripts if '"items"' in script))
    assert examples["items"][0]["human"][HOSTILE] == [["yes", HOSTILE]]
    assert reader.text.count("<script>alert(1)</script>") > 10


def test_absent_figures_are_never_written_as_nan_or_zero() -> None:
    rows = [
        metric_row("capo", "rouge_l", None),
        metric_row("sft", "rouge_l", float("nan")),
        metric_row("capo", "unheard_of", None),
    ]
    page = render_report(make_data(metrics=frame(rows, METRICS)))
    text = Reader(page).text
    assert "nan" not in re.findall(r"\w+", text.lower())
    cells = [
        cell for cell in re.findall(r'<td class="absent[^"]*">(.*?)</td>', page) if cell.startswith("not measured")
    ]
    assert len(cells) == 3


def test_page_with_nothing_measured_says_so_in_every_section() -> None:
    text = Reader(render_report(empty_data())).text
    assert "nan" not in re.findall(r"\w+", text.lower())
    assert "Not yet rated." in text
    assert "Nothing was generated." in text
    assert "No two methods were compared." in text
    assert text.count("not measured") >= 8


def test_unknown_metric_and_method_appear_under_their_own_names() -> None:
    table = tabulate_metrics(frame([metric_row("new_method", "new_metric", 3.25)], METRICS), "all", "Figures")
    assert [head.text for head in table.columns] == ["Figure", "new_method"]
    assert table.groups[0].title == "new_metric"
    assert table.groups[0].rows[0][1].text == "3.25"


def test_ceiling_stands_in_the_row_of_every_decision() -> None:
    table = tabulate_metrics(frame(attribution_rows(), METRICS), "all", "Figures")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.groups[0].rows}
    # Columns: human, SFT, CAPO.
    assert rows == {
        "k = 5, sampled, as written": [".93", ".71", ".87"],
        "k = 5, sampled, surface removed": [".86", ".62", ".78"],
        "k = 5, authors shuffled (floor)": [".27", "–", "–"],
        "k = 5, surface removed, authors shuffled (floor)": [".26", "–", "–"],
    }


def test_control_by_another_annotator_is_a_row_beside_the_methods() -> None:
    rows = [
        metric_row("human", "label_agreement", 0.5, decision=None, condition="other_annotator"),
        metric_row("majority", "label_agreement", 0.6, decision=None),
        metric_row("sft", "label_agreement", 0.7),
    ]
    (panel,) = draw_metric_panels(frame(rows, METRICS), "Figures", ["label_agreement"]).panels
    labels = re.findall(r"<text[^>]*>([A-Z][^<]*)</text>", panel.svg)
    assert labels == ["Another annotator", "Majority (floor)", "SFT"]


def test_two_values_for_one_figure_are_called_a_contradiction() -> None:
    twice = [metric_row("sft", "rouge_l", 0.2), metric_row("sft", "rouge_l", 0.3)]
    table = tabulate_metrics(frame(twice, METRICS), "all", "Figures")
    assert table.groups[0].rows[0][1].text == "2 rows contradict each other"
    once = [metric_row("sft", "rouge_l", 0.2), metric_row("sft", "rouge_l", None)]
    table = tabulate_metrics(frame(once, METRICS), "all", "Figures")
    assert table.groups[0].rows[0][1].text == ".20"


@pytest.mark.parametrize(
    ("metric", "row", "reading"),
    [
        ("rouge_l", (0.1, 0.05, 0.15), "CAPO closer"),
        ("rouge_l", (-0.1, -0.15, -0.05), "SFT closer"),
        # Distance: lower is closer, so a positive difference favours SFT.
        ("ordinal_distance", (0.1, 0.05, 0.15), "SFT closer"),
        ("length_ratio", (0.1, 0.05, 0.15), "CAPO higher"),
        ("rouge_l", (0.1, -0.05, 0.15), "no difference shown"),
        ("rouge_l", (None, None, None), "–"),
    ],
)
def test_comparison_is_read_by_the_metric_s_own_direction(metric: str, row: tuple, reading: str) -> None:
    data = make_data(comparisons=frame([comparison_row("capo", "sft", metric, *row)], COMPARISONS))
    (table,) = tabulate_comparisons(data.comparisons, data.alpha)
    assert table.groups[0].rows[0][-1].text == reading


def test_comparison_of_capo_and_sft_comes_first() -> None:
    rows = [comparison_row(a, b, "rouge_l", 0.1, 0.0, 0.2) for a, b in (("capo", "history"), ("capo", "sft"))]
    tables = tabulate_comparisons(frame(rows, COMPARISONS), 0.05)
    assert [table.caption for table in tables] == ["CAPO minus SFT", "CAPO minus In-context history"]


def test_counts_that_do_not_add_up_are_reported() -> None:
    assert find_count_faults(make_data()) == []
    data = make_data(annotations_counts={"rows_in": 10, "rows_accepted": 8, "rows_quarantined": 1})
    assert find_count_faults(data) == ["10 rows were read, but 8 accepted and 1 quarantined do not add up."]
    data = make_data(annotations_counts={"rows_in": 9, "rows_accepted": 7, "rows_quarantined": 2})
    assert find_count_faults(data) == ["The counts name 2 quarantined rows; the quarantine table holds 1."]


def test_context_in_two_splits_is_reported() -> None:
    corpus = make_corpus()
    assert check_splits(corpus)[0] is True
    # Every context is c0 now, and c0 stands in train, validation and test.
    holds, sentence = check_splits(corpus.with_columns(pl.lit("c0").alias("context_id")))
    assert (holds, sentence) == (False, "1 context of 1 stand in more than one split: figures leak.")


def test_configuration_hides_credentials_in_addresses() -> None:
    corpus = {"name": "sample", "format": "table", "paths": ["http://user:secret@host.example/rows.csv"]}
    text = dump_configuration(make_data(config=make_config(corpus=corpus)))
    assert "secret" not in text
    assert "http://…@host.example/rows.csv" in text


def test_equal_data_give_equal_pages_whatever_the_order_of_rows(page: str) -> None:
    data = make_data()
    assert render_report(data) == page
    names = [field.name for field in fields(data) if isinstance(getattr(data, field.name), pl.DataFrame)]
    turned = replace(data, style=_turn(data.style), **{name: _turn_table(getattr(data, name)) for name in names})
    assert render_report(turned) == page


def _turn_table(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with its rows in another order."""
    return table.sample(fraction=1, shuffle=True, seed=5)


def _turn(style: StyleData) -> StyleData:
    """Return the tables of style with their rows in another order."""
    return replace(style, **{field.name: _turn_table(getattr(style, field.name)) for field in fields(style)})


def test_frame_with_wrong_columns_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="table corpus: missing column 'split'"):
        make_data(corpus=make_corpus().drop("split"))
    with pytest.raises(ValueError, match="training log of sft, ada, seed 13"):
        make_data(training_logs=[("sft", "ada", 13, make_corpus())])


def test_unreadable_response_keeps_its_raw_text_and_reason() -> None:
    examples = json.loads(examples_of(make_data()).json)
    unread = [made for item in examples["items"] for made in item["made"] if "status" in made]
    assert unread == [
        {
            "m": "zero_shot",
            "p": None,
            "s": 13,
            "d": "sampled",
            "l": None,
            "e": None,
            "status": "no_label",
            "text": "I cannot say",
            "cut": True,
        }
    ]


def test_items_beyond_the_limit_are_left_out_whole_and_counted() -> None:
    # The first item is always shown, and no second fits into one character.
    examples = examples_of(make_data(), max_characters=1)
    assert (examples.n_items, examples.n_items_left_out) == (1, 1)
    assert len(json.loads(examples.json)["items"]) == 1


def test_long_training_log_is_thinned_to_means_of_equal_runs() -> None:
    log = pl.DataFrame({"step": [1, 2, 3, 4], "value": [1.0, 3.0, 5.0, 9.0]})
    # Two points: steps 1 and 2, then 3 and 4.
    assert thin_log(log, n_points=2).to_dict(as_series=False) == {"step": [1.5, 3.5], "value": [2.0, 7.0]}
    assert thin_log(log, n_points=4)["value"].to_list() == [1.0, 3.0, 5.0, 9.0]


def test_tables_have_captions_and_scoped_headings(page: str) -> None:
    tables = re.findall(r"<table>.*?</table>", page, re.DOTALL)
    assert len(tables) > 8
    for table in tables:
        assert "<caption>" in table
        assert 'scope="col"' in table
        assert 'scope="row"' in table


def test_section_links_lead_to_sections(page: str) -> None:
    tags = Reader(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for _, a in tags if (a.get("href") or "").startswith("#")} <= {f"#{name}" for name in ids}
