"""The summary claims what the data show and nothing else."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from report_samples import (
    apart_comparison,
    attribution_comparison,
    attribution_rows,
    comparison_row,
    empty_data,
    frame,
    make_data,
    metric_row,
)

from capo_core.report.comparison_tables import list_verdicts
from capo_core.report.data import ReportData, find_difference
from capo_core.report.findings import say_labels, say_length, weigh_gain
from capo_core.report.formats import NO_BREAK
from capo_core.report.key_figures import choose_key_figures
from capo_core.report.opinions import weigh_judge
from capo_core.report.summary import summarise
from schemas.frames import COMPARISONS, METRICS


def plain(text: str) -> str:
    """Return text with ordinary spaces."""
    return text.replace(NO_BREAK, " ")


def with_comparison(*row: float | None) -> ReportData:
    """Return data with one comparison of CAPO and SFT: difference, low, high, p."""
    return make_data(comparisons=frame([attribution_comparison(*row)], COMPARISONS))


def test_headline_names_both_figures_and_a_difference_that_excludes_zero() -> None:
    assert plain(summarise(make_data()).headline) == (
        "Attribution of groups of 5 (surface removed) to the person imitated: SFT .62 [.57, .67], CAPO .78 [.73, .83]; "
        "CAPO is higher than SFT (+.16 [.08, .24], p = .003). Its distance from the person's own text was not measured."
    )


def test_as_written_leads_where_the_surface_was_not_removed() -> None:
    data = make_data()
    data = replace(data, metrics=data.metrics.filter(pl.col("condition") != "surface_normalised"))
    headline = plain(summarise(data).headline)
    assert headline.startswith("Attribution of groups of 5 to the person imitated: SFT .71 [.66, .76]")


def test_correction_for_many_comparisons_decides_where_it_was_made() -> None:
    # p alone would show the difference; Holm's p does not.
    data = make_data(comparisons=frame([attribution_comparison(0.16, 0.08, 0.24, 0.003, holm=0.09)], COMPARISONS))
    headline = plain(summarise(data).headline)
    assert "no difference between CAPO and SFT is shown (+.16 [.08, .24], p = .090, Holm)" in headline
    verdicts = list_verdicts(data, choose_key_figures(data.metrics))
    assert verdicts.shown == ()
    assert verdicts.not_shown[0].endswith("(it would be, were it the only comparison)")


@pytest.mark.parametrize(
    ("apart", "kind"),
    [
        (None, "unmeasured"),
        ((0.1, 0.05, 0.15), "caricature"),  # told from the person more surely
        ((-0.1, -0.15, -0.05), "closer"),
        ((0.1, -0.05, 0.15), "undecided"),
    ],
)
def test_gain_is_weighed_by_its_distance(apart: tuple | None, kind: str) -> None:
    rows = [attribution_comparison(0.16, 0.08, 0.24, 0.003), *([apart_comparison(*apart)] if apart else [])]
    data = make_data(comparisons=frame(rows, COMPARISONS))
    keys = choose_key_figures(data.metrics)
    assert keys is not None
    gain = weigh_gain(data, keys)
    assert gain.kind == kind
    # Whatever the verdict, distance and length stand beside the gain.
    text = plain(gain.text)
    assert "told from the person, surface removed SFT .80 [.75, .85], CAPO .90 [.85, .95]" in text
    assert "style distance SFT 0.50 [0.45, 0.55], CAPO 0.70 [0.65, 0.75]" in text
    assert "length ratio SFT 1.00 [0.95, 1.05], CAPO 1.50 [1.45, 1.55]" in text


def test_without_a_gain_no_imitation_is_claimed() -> None:
    # A loss that is shown is no gain either.
    for row in ((0.16, -0.01, 0.33, 0.06), (-0.16, -0.24, -0.08, 0.003)):
        data = with_comparison(*row)
        keys = choose_key_figures(data.metrics)
        assert keys is not None
        assert weigh_gain(data, keys).kind == "none"


@pytest.mark.parametrize(
    "row",
    [
        pytest.param((0.16, -0.01, 0.33, 0.06), id="interval includes 0"),
        pytest.param((0.16, 0.0, 0.33, 0.04), id="interval ends at 0"),
        pytest.param((0.16, 0.01, 0.33, 0.07), id="test does not agree"),
        pytest.param((0.16, None, None, 0.001), id="no interval"),
        pytest.param((0.16, float("nan"), float("nan"), 0.001), id="interval is NaN"),
        pytest.param((-0.16, -0.33, 0.01, 0.06), id="negative, includes 0"),
    ],
)
def test_no_difference_is_claimed_that_interval_and_test_do_not_both_show(row: tuple) -> None:
    summary = summarise(with_comparison(*row))
    assert "no difference between CAPO and SFT is shown" in summary.headline
    assert "higher than" not in summary.headline
    assert "lower than" not in summary.headline
    tile = next(tile for tile in summary.tiles if tile.title == "CAPO − SFT")
    assert (tile.note, tile.style) == ("no difference shown", "quiet")


def test_lower_figure_is_called_lower() -> None:
    summary = summarise(with_comparison(-0.16, -0.24, -0.08, 0.003))
    assert "CAPO is lower than SFT (−.16 [−.24, −.08], p = .003)." in plain(summary.headline)


def test_comparison_stored_the_other_way_round_is_turned() -> None:
    # SFT minus CAPO = −.16 in [−.24, −.08] is CAPO minus SFT = +.16 in [.08, .24].
    row = comparison_row(
        "sft", "capo", "attribution_accuracy", -0.16, -0.24, -0.08, condition="raw", size=5, effect=-0.5
    )
    found = find_difference(
        frame([row], COMPARISONS),
        "capo",
        "sft",
        metric="attribution_accuracy",
        decision="sampled",
        condition="raw",
        group_size=5,
    )
    assert found is not None
    assert (found.value, found.low, found.high, found.effect_size) == (0.16, 0.08, 0.24, 0.5)


def test_untested_difference_is_called_untested() -> None:
    data = make_data(comparisons=frame([], COMPARISONS))
    assert "the difference between CAPO and SFT was not tested" in summarise(data).headline


def test_missing_method_leaves_no_comparison() -> None:
    data = make_data()
    data = replace(data, metrics=data.metrics.filter(pl.col("method") != "capo"))
    headline = summarise(data).headline
    assert headline.endswith("CAPO: not measured, so CAPO and SFT are not compared.")


def test_summary_of_nothing_says_not_measured() -> None:
    summary = summarise(empty_data())
    assert summary.headline == "How well the imitations can be attributed to the people imitated was not measured."
    assert summary.tiles == ()
    assert {finding.topic: finding.text for finding in summary.findings} == {
        "Labels": "Agreement with the person's label: not measured.",
        "LLM judge": "Not measured.",
        "Human raters": "Not yet rated.",
    }
    assert summary.cautions[0].startswith("Not measured: Attribution accuracy; Told from the person; Style distance;")
    # Scores have a distance; the sample's labels are names.
    assert "Error of scores" not in summary.cautions[0]


def test_null_and_nan_values_count_as_not_measured() -> None:
    rows = [*attribution_rows(), metric_row("capo", "rouge_l", None), metric_row("capo", "novel_figure", float("nan"))]
    caution = summarise(make_data(metrics=frame(rows, METRICS))).cautions[0]
    assert "ROUGE-L;" in caution
    assert caution.endswith("novel_figure.")
    assert "Attribution accuracy" not in caution


def test_tiles_show_interval_n_and_seeds() -> None:
    tiles = {tile.title: tile for tile in summarise(make_data()).tiles}
    assert [plain(part) for part in (tiles["SFT"].value, tiles["SFT"].interval, tiles["SFT"].note)] == [
        ".62",
        "[.57, .67]",
        "told apart .80 · n 100 · 1 seed",
    ]
    assert tiles["Human text (ceiling)"].value == ".86"
    assert tiles["Authors shuffled (floor)"].value == ".26"


def test_group_size_nearest_five_is_quoted() -> None:
    rows = [
        metric_row("sft", "attribution_accuracy", 0.4, condition="raw", classifier="ngrams", size=size)
        for size in (1, 4, 10)
    ]
    assert "groups of 4 " in summarise(make_data(metrics=frame(rows, METRICS))).headline


def test_figure_above_the_ceiling_is_called_exaggeration_only_where_intervals_part() -> None:
    def text_with(value: float) -> str:
        rows = [row for row in attribution_rows() if row[0] != "capo"]
        keys = {"condition": "surface_normalised", "classifier": "ngrams", "size": 5, "width": 0.01}
        rows.append(metric_row("capo", "attribution_accuracy", value, **keys))
        findings = summarise(make_data(metrics=frame(rows, METRICS))).findings
        return next(finding.text for finding in findings if finding.topic == "The imitations")

    # The ceiling is .86 in [.81, .91].
    assert "exaggerates" in text_with(0.93)  # from .92
    assert "exaggerates" not in text_with(0.915)  # from .905


def test_labels_are_quoted_beside_the_floor() -> None:
    rows = [
        metric_row("sft", "label_agreement", 0.6, decision="constrained"),
        metric_row("capo", "label_agreement", 0.58, decision="constrained"),
        metric_row("capo", "label_agreement", 0.4, decision="sampled"),
        metric_row("majority", "label_agreement", 0.63, decision=None),
        metric_row("human", "label_agreement", 0.5, decision=None, condition="other_annotator"),
    ]
    comparison = comparison_row("capo", "majority", "label_agreement", -0.05, -0.1, 0.02, decision="constrained", p=0.2)
    data = make_data(metrics=frame(rows, METRICS), comparisons=frame([comparison], COMPARISONS))
    assert plain(say_labels(data)) == (
        "The label equals the person's (constrained SFT .60 [.55, .65], CAPO .58 [.53, .63]; sampled SFT not measured, "
        "CAPO .40 [.35, .45]). Controls: always giving the person's commonest training label: .63 [.58, .68]; another "
        "annotator's label: .50 [.45, .55]. Constrained: no difference between CAPO and always the commonest label is "
        "shown (−.05 [−.10, .02], p = .200); the difference between CAPO and SFT was not tested."
    )


@pytest.mark.parametrize(
    ("value", "width", "said"),
    [(1.5, 0.2, "longer"), (0.5, 0.2, "shorter"), (1.1, 0.2, None), (1.5, float("nan"), None)],
)
def test_length_is_remarked_on_only_where_the_interval_excludes_one(
    value: float, width: float, said: str | None
) -> None:
    rows = [metric_row("capo", "length_ratio", value, width=width)]
    text = say_length(make_data(metrics=frame(rows, METRICS)), "sampled")
    assert (text is None) if said is None else (said in (text or ""))


def judged(human: float | None, informative: float | None, *, flagged: bool = True) -> ReportData:
    """Return data with a judge that names real authors in `human` of the groups."""
    rows = [metric_row("human", "judge_accuracy", human, decision=None, condition="raw", size=3)]
    rows.append(metric_row("capo", "judge_accuracy", 0.9, condition="raw", size=3))
    if flagged:
        row = metric_row("human", "judge_informative", informative, decision=None, condition="raw", size=3, width=0)
        rows.append(row)
    return make_data(judge_metrics=frame(rows, METRICS))


def test_judge_at_chance_is_not_informative_and_its_verdicts_are_not_quoted() -> None:
    data = judged(0.52, 0.0)
    informative, sentence = weigh_judge(data)
    assert informative is False
    assert sentence.startswith("Not informative.")
    text = next(finding.text for finding in summarise(data).findings if finding.topic == "LLM judge")
    assert ".90" not in text


def test_informative_judge_is_quoted_on_the_models() -> None:
    text = next(finding.text for finding in summarise(judged(0.8, 1.0)).findings if finding.topic == "LLM judge")
    assert "names the person imitated for SFT not measured and CAPO .90" in plain(text)


def test_judge_with_too_few_groups_is_of_unknown_worth() -> None:
    # The judge's own figure says null: too few groups to tell, however high its accuracy looks.
    informative, sentence = weigh_judge(judged(1.0, None))
    assert informative is None
    assert "not known" in sentence


@pytest.mark.parametrize(("human", "informative"), [(0.54, False), (0.56, True)])
def test_judge_without_a_flag_is_weighed_by_its_ceiling(human: float, informative: bool) -> None:
    # Two annotators, so chance is .50; the interval is .05 to either side: [.49, .59] and [.51, .61].
    assert weigh_judge(judged(human, None, flagged=False))[0] is informative


def test_cautions_count_seeds_unread_and_cut_responses() -> None:
    # The sample holds 2 items × (2 methods × 2 people + 1 zero-shot) = 10 responses; 1 is unreadable and cut.
    text = " ".join(summarise(make_data()).cautions)
    assert "One seed:" in text
    assert "1 of 10 responses could not be read" in text
    assert "1 of 10 responses were cut" in text
    assert "2 annotators only" in text
    generations = make_data().generations
    second = generations.with_columns(pl.lit(14, pl.Int64).alias("seed"))
    two = make_data(generations=pl.concat([generations, second]))
    assert "One seed:" not in " ".join(summarise(two).cautions)
