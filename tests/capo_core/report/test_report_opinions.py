"""A judge is weighed on people's own text first, and what an uninformative one says of models is kept apart."""

from __future__ import annotations

import re

import pytest
from report_samples import (
    JUDGES,
    comparison_row,
    frame,
    judge_rows,
    make_config,
    make_data,
    make_judge_comparisons,
    make_judge_metrics,
    make_raters,
    make_timings,
    make_usage,
    metric_row,
)

from capo_core.report import render_report
from capo_core.report.cost_tables import format_time, say_cost, tabulate_judge_usage, tabulate_timings
from capo_core.report.formats import NO_BREAK
from capo_core.report.judge_tables import collect_judge, tabulate_judge_agreement, tabulate_pairs_judged
from capo_core.report.opinions import list_worths, say_judge, say_raters, weigh_judge
from capo_core.report.rater_tables import collect_raters, tabulate_raters
from capo_core.report.tables import Table
from schemas.frames import COMPARISONS, JUDGE_AGREEMENT, JUDGE_PAIRS, METRICS


def plain(text: str) -> str:
    """Return text with ordinary spaces."""
    return text.replace(NO_BREAK, " ")


def texts(table: Table) -> list[list[str]]:
    """Return the texts of a table's cells, row by row."""
    return [[cell.text for cell in row] for group in table.groups for row in group.rows]


JUDGED = {"judge_metrics": make_judge_metrics(), "judge_comparisons": make_judge_comparisons()}


def test_every_judge_and_protocol_is_weighed_by_itself() -> None:
    worths = list_worths(make_data(**JUDGED))
    assert [(worth.judge, worth.protocol.title, worth.informative) for worth in worths] == [
        (JUDGES[0], "Attribution", False),
        (JUDGES[1], "Attribution", True),
        (JUDGES[1], "Pairwise", False),
    ]


def test_sentence_says_how_many_ways_of_asking_tell_people_apart() -> None:
    informative, sentence = weigh_judge(make_data(**JUDGED))
    assert informative is True
    assert sentence.startswith("Informative in 1 of 3 ways of asking: local:tiny: it names the right author")
    assert sentence.endswith("What the others say of models says nothing.")


def test_judge_that_fails_one_way_and_is_unknown_in_another_is_not_informative() -> None:
    known = {"judge": 0.0, "judge_pairwise": None}
    rows = judge_rows(JUDGES[0], {"judge": 0.25, "judge_pairwise": 0.5}, informative=known)
    informative, sentence = weigh_judge(make_data(judge_metrics=frame(rows, METRICS)))
    assert informative is False
    assert sentence.startswith("Not informative.")
    assert "For 1 of 2 ways of asking there were too few groups" in sentence


def test_only_informative_verdicts_are_quoted_on_the_models() -> None:
    text = plain(say_judge(make_data(**JUDGED)))
    # The judge at chance also has figures of SFT and CAPO; they are quoted once, from the other judge.
    assert text.count("It names the person imitated for SFT .40 [.35, .45] and CAPO .60 [.55, .65].") == 1
    # Pairwise the larger judge does not tell people apart, so that its preference is not quoted.
    assert "prefers either" not in text


def test_preference_of_an_informative_pairwise_judge_is_quoted_with_its_test() -> None:
    rows = judge_rows(JUDGES[1], {"judge_pairwise": 0.9}, informative={"judge_pairwise": 1.0})
    keys = {"condition": "raw", "size": 3, "classifier": JUDGES[1], "p": 0.004}
    compared = frame([comparison_row("capo", "sft", "judge_win_rate", 0.2, 0.1, 0.3, **keys)], COMPARISONS)
    text = plain(say_judge(make_data(judge_metrics=frame(rows, METRICS), judge_comparisons=compared)))
    assert "CAPO is higher than SFT (+.20 [.10, .30], p = .004)" in text


def test_calibration_shows_ceiling_floor_chance_and_reading() -> None:
    rows = texts(collect_judge(make_data(**JUDGED)).calibration)
    # Asked, ceiling, floor, chance, same answer, ties, position, readable, groups, reading.
    unmeasured = ["not measured"] * 3
    assert rows == [
        ["Attribution", ".52", ".48", ".50", ".75", *unmeasured, "100", "not informative"],
        ["Attribution", ".80", ".48", ".50", ".75", *unmeasured, "100", "tells people apart"],
        ["Pairwise", ".51", "–", ".50", ".75", *unmeasured, "100", "not informative"],
    ]


def test_comparisons_by_uninformative_judges_stand_apart() -> None:
    section = collect_judge(make_data(**JUDGED))
    assert [table.caption for table in section.comparisons] == ["By the judge: CAPO minus SFT"]
    assert len(texts(section.comparisons[0])) == 1
    (silent,) = section.silent
    assert silent.caption.endswith("not informative: CAPO minus SFT")
    # By attribution of the judge at chance, and pairwise of the other.
    assert len(texts(silent)) == 2


def test_each_judge_has_a_figure_that_names_its_worth() -> None:
    captions = [figure.caption for figure in collect_judge(make_data(**JUDGED)).figures]
    assert captions == [
        "local:tiny: groups attributed to the person imitated, with 95% intervals; not informative",
        "openai:large: groups attributed to the person imitated, with 95% intervals",
    ]


def test_page_says_plainly_that_a_judge_at_chance_is_not_informative() -> None:
    rows = judge_rows(JUDGES[0], {"judge": 0.52}, informative={"judge": 0.0})
    page = render_report(make_data(judge_metrics=frame(rows, METRICS)))
    section = page[page.index('id="judge"') : page.index('id="examples"')]
    assert '<p class="alarm">Not informative. The judge does not tell the real annotators apart' in section


def test_pairs_and_agreement_name_who_is_who() -> None:
    pairs = frame([(JUDGES[1], "raw", "human", "human_other", "all", 9, 2, 1, 0, True)], JUDGE_PAIRS)
    agreed = [
        ("attribution", "raw", "human", "cohen_kappa", JUDGES[0], "stylometry", 0.4, 0.2, 0.6, 24, 48),
        ("attribution", "raw", "human", "krippendorff_alpha_nominal", None, None, None, None, None, 24, 48),
    ]
    data = make_data(judge_pairs=pairs, judge_agreement=frame(agreed, JUDGE_AGREEMENT))
    assert texts(tabulate_pairs_judged(data)) == [
        ["Human text against another annotator", "9", "2", "1", "0", "tells people apart"]
    ]
    assert texts(tabulate_judge_agreement(data)) == [
        ["local:tiny and stylometry", "Attribution", "Cohen's κ", ".40", "24"],
        ["all judges", "Attribution", "Krippendorff's α, nominal", "not measured", "24"],
    ]


def test_ratings_are_quoted_with_the_paired_test() -> None:
    rates = [
        metric_row(name, "human_attribution_accuracy", v, decision=None) for name, v in (("sft", 0.4), ("capo", 0.7))
    ]
    # With the raters whom the rule leaves out there is another row; the sentence goes by those who count.
    compared = [
        comparison_row("capo", "sft", "human_attribution_accuracy", 0.3, 0.1, 0.5, condition="raw", p=0.01),
        comparison_row("capo", "sft", "human_attribution_accuracy", 0.2, 0.0, 0.4, condition="all_raters", p=0.05),
    ]
    data = make_data(ratings_metrics=frame(rates, METRICS), ratings_comparisons=frame(compared, COMPARISONS))
    text = plain(say_raters(data))
    assert "SFT .40 [.35, .45] and CAPO .70 [.65, .75] (chance .50)" in text
    assert text.endswith("CAPO is higher than SFT (+.30 [.10, .50], p = .010).")
    section = collect_raters(data)
    assert [table.caption for table in section.comparisons] == ["By the raters: CAPO minus SFT"]


def test_raters_left_out_are_named_with_the_reason() -> None:
    table = tabulate_raters(make_data(raters=make_raters()))
    assert texts(table) == [
        ["rater 1", "24", "1.00", ".75", "21.50", ".60", "counted"],
        ["rater 2", "24", ".25", ".50", "3.00", ".45", "left out"],
    ]
    assert table.groups[0].rows[1][-1].notes == ("1 of 4 attention checks passed, 3 needed",)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, ".4 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7440, "2 h 4 min"), (3599.6, "1 h 0 min")],
)
def test_times_are_written_in_two_units(seconds: float, text: str) -> None:
    assert plain(format_time(seconds)) == text


def test_timings_are_summed_by_step_longest_first() -> None:
    # 90 + 30 = 120 s of SFT; 3,700 s = 1 h 2 min; together 3,820 s = 1 h 4 min.
    data = make_data(timings=make_timings())
    assert [[plain(cell) for cell in row] for row in texts(tabulate_timings(data))] == [
        ["evaluate", "1", "1 h 2 min", "1 h 2 min"],
        ["train-sft", "2", "2 min 0 s", "1 min 30 s"],
        ["All steps", "3", "1 h 4 min", ""],
    ]
    # 10 responses: 9 of 9 tokens and one of 96.
    assert plain(say_cost(data)) == "3 steps took 1 h 4 min together; the models under test wrote 177 tokens."


def test_judges_cost_tokens_times_prices_and_unknown_tokens_are_no_zero() -> None:
    backend = {
        "type": "openai",
        "base_url": "http://127.0.0.1:1/v1",
        "model": "large",
        "price_per_million_prompt_tokens": 2.0,
        "price_per_million_answer_tokens": 8.0,
    }
    data = make_data(judge_usage=make_usage(), config=make_config(judge={"backends": [backend]}))
    # A million tokens at 2 and half a million at 8: 2 + 4 = 6.
    assert texts(tabulate_judge_usage(data)) == [
        ["local:tiny", "40", "0", "0", "0", "4,000", "not measured", "no price stated"],
        ["openai:large", "30", "0", "2", "8", "1,000,000", "500,000", "6.00"],
    ]


def test_page_with_everything_judged_and_rated_renders_whole() -> None:
    rates = frame([metric_row("capo", "human_attribution_accuracy", 0.7, decision=None)], METRICS)
    page = render_report(
        make_data(
            **JUDGED, ratings_metrics=rates, raters=make_raters(), timings=make_timings(), judge_usage=make_usage()
        )
    )
    assert len(re.findall(r"<section id=", page)) == 11
    assert "Not yet rated" not in page
