"""The results table of an experiment: rows, lines and columns, the bars, and both written forms."""

from __future__ import annotations

import polars as pl
import pytest

from capo_core.evaluation.transfer import CONDITION, FLOOR_CONDITION
from capo_core.results import ArmResult, check_bars, name_transfer, results_frame, split_arms
from capo_core.results_text import render_latex, render_markdown
from schemas.frames import COMPARISONS, METRICS, RESULTS

CEILING, SFT, CAPO, FLOOR = 0.96, 0.70, 0.83, 0.25


def _metric(method: str, metric: str, value: float | None, decision: str | None = "sampled", **more: object) -> dict:
    row = {
        "method": method, "annotator_id": "all", "decision": decision, "metric": metric, "condition": None,
        "classifier": None, "group_size": None, "value": value, "ci_low": None if value is None else value - 0.05,
        "ci_high": None if value is None else value + 0.05, "n": 40, "n_seeds": 3,
    }  # fmt: skip
    return row | more


def _comparison(metric: str, difference: float | None, decision: str = "sampled", **more: object) -> dict:
    row = {
        "method_a": "capo", "method_b": "sft", "decision": decision, "metric": metric, "condition": None,
        "classifier": None, "group_size": None, "difference": difference,
        "ci_low": None if difference is None else difference - 0.04,
        "ci_high": None if difference is None else difference + 0.04, "effect_size": 0.5, "p_value": 0.002,
        "p_holm": 0.012, "n": 40, "n_seeds": 3,
    }  # fmt: skip
    return row | more


SURFACE = {"condition": "surface_normalised", "classifier": "ngrams", "group_size": 5}


def _metrics() -> list[dict]:
    """Return figures with which every bar is met."""
    accuracy = "attribution_accuracy"
    rows = [
        _metric("human", accuracy, CEILING, None, **SURFACE),
        _metric("human", accuracy, FLOOR, None, **{**SURFACE, "condition": "shuffled:surface_normalised"}),
        _metric("sft", accuracy, SFT, **SURFACE),
        _metric("capo", accuracy, CAPO, **SURFACE),
        _metric("majority", "label_agreement", 0.49, None),
        _metric("human", "style_distance", 0.22, None, condition="split_half"),
        _metric("human", "style_distance", 0.61, None, condition="other_annotator"),
        _metric("human", "near_duplicate_rate", 0.07, None),
        _metric("sft", "style_distance", 0.40),
        _metric("capo", "style_distance", 0.38),
        _metric("sft", "length_ratio", 1.0),
        _metric("capo", "length_ratio", 1.0),
        _metric("capo", "length_ratio", 0.90, annotator_id="ada"),
        _metric("capo", "length_ratio", 1.10, annotator_id="ben"),
    ]
    for decision, sft, capo in (("constrained", 0.55, 0.56), ("greedy", 0.5, 0.49), ("sampled", 0.41, 0.40)):
        rows += [_metric("sft", "label_agreement", sft, decision), _metric("capo", "label_agreement", capo, decision)]
    return rows


def _comparisons() -> list[dict]:
    return [
        _comparison("attribution_accuracy", CAPO - SFT, **SURFACE),
        _comparison("label_agreement", 0.01, "constrained"),
        _comparison("label_agreement", -0.01, "greedy"),
        _comparison("label_agreement", -0.01, "sampled"),
    ]


IDENTITY = {"corpus": "varierr", "model": "bundled:tiny_m", "layout": "per_annotator", "pair_strategy": "all"}


def _arm(metrics: list[dict] | None = None, comparisons: list[dict] | None = None, **identity: str) -> ArmResult:
    return ArmResult(
        IDENTITY | identity,
        pl.DataFrame(_metrics() if metrics is None else metrics, schema=METRICS),
        pl.DataFrame(_comparisons() if comparisons is None else comparisons, schema=COMPARISONS),
        "capo:evaluation/abc",
    )


def test_rows_are_the_figures_over_all_annotators_and_the_comparisons() -> None:
    results = results_frame([_arm(), _arm(layout="shared")])

    assert dict(results.schema) == RESULTS
    # 18 figures over all, the least and the greatest length ratio of CAPO (SFT has no annotators' own), 4 comparisons.
    assert results.group_by("layout", "kind", maintain_order=True).len().rows() == [
        ("per_annotator", "metric", 20),
        ("per_annotator", "comparison", 4),
        ("shared", "metric", 20),
        ("shared", "comparison", 4),
    ]
    gain = results.row(by_predicate=(pl.col("kind") == "comparison") & (pl.col("metric") == "attribution_accuracy")
                       & (pl.col("layout") == "shared"), named=True)  # fmt: skip
    assert (gain["method"], gain["compared_with"], gain["p_holm"]) == ("capo", "sft", 0.012)
    assert gain["value"] == pytest.approx(0.13)
    assert set(results["evaluation"]) == {"capo:evaluation/abc"}


def test_the_annotators_farthest_from_the_right_length_are_kept_beside_the_mean() -> None:
    results = results_frame([_arm()]).filter(pl.col("metric").str.starts_with("length_ratio_"))
    assert results.select("method", "metric", "value").rows() == [
        ("capo", "length_ratio_highest", 1.10),
        ("capo", "length_ratio_lowest", 0.90),
    ]


def test_no_arms_give_an_empty_table() -> None:
    assert dict(results_frame([]).schema) == RESULTS


def _verdicts(arm: ArmResult) -> list[bool | None]:
    return [check.met for check in check_bars(split_arms(results_frame([arm]))[0])]


def test_every_bar_is_met_by_figures_that_meet_it() -> None:
    # gain .13 ≥ .10 with interval [.09, .17]; label agreement +.01, -.01, -.01; .56 > .49; .90 and 1.10 within .15;
    # .38 ≤ .40
    assert _verdicts(_arm()) == [True] * 7


def _replace(rows: list[dict], method: str, metric: str, value: float | None, decision: str = "sampled") -> list[dict]:
    chosen = [row for row in rows if row.get("method") == method and row["metric"] == metric]
    found = [row for row in chosen if row["decision"] == decision and row["annotator_id"] == "all"]
    assert len(found) == 1
    return [row | {"value": value} if row is found[0] else row for row in rows]


@pytest.mark.parametrize(
    ("sft", "difference", "half_width", "met"),
    [
        (0.70, 0.09, 0.04, False),  # below .10, and half of what is left is .13
        (0.90, 0.03, 0.02, True),  # half of .96 - .90
        (0.90, 0.02, 0.01, False),
        (0.70, 0.12, 0.12, False),  # the interval reaches 0
        (0.98, -0.01, 0.005, False),  # above the ceiling already: half of what is left is negative, a loss is no gain
        (0.98, 0.005, 0.002, True),
    ],
)
def test_a_gain_is_held_against_a_tenth_or_half_of_what_is_left(
    sft: float, difference: float, half_width: float, met: bool
) -> None:
    metrics = _replace(_metrics(), "sft", "attribution_accuracy", sft)
    bounds = {"ci_low": difference - half_width, "ci_high": difference + half_width}
    gain = _comparison("attribution_accuracy", difference, **SURFACE) | bounds
    assert _verdicts(_arm(metrics, [gain, *_comparisons()[1:]]))[0] is met


@pytest.mark.parametrize(
    ("place", "metrics"),
    [
        (4, _replace(_metrics(), "capo", "label_agreement", 0.49, "constrained")),  # the floor itself is not above it
        (5, [*_metrics(), _metric("capo", "length_ratio", 1.16, annotator_id="cai")]),
        (5, [*_metrics(), _metric("capo", "length_ratio", 0.84, annotator_id="cai")]),
        (6, _replace(_metrics(), "capo", "style_distance", 0.41)),
    ],
)
def test_a_bar_that_is_missed_is_said_to_be_missed(place: int, metrics: list[dict]) -> None:
    verdicts = _verdicts(_arm(metrics))
    assert verdicts[place] is False
    assert verdicts.count(True) == 6


def test_a_label_agreement_lower_by_more_than_a_hundredth_is_missed_in_its_decision_alone() -> None:
    comparisons = [*_comparisons()[:2], _comparison("label_agreement", -0.011, "greedy"), _comparisons()[3]]
    assert _verdicts(_arm(comparisons=comparisons)) == [True, True, False, True, True, True, True]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    metrics = _replace(_replace(_metrics(), "capo", "style_distance", None), "majority", "label_agreement", None, None)  # type: ignore[arg-type]
    metrics = [row for row in metrics if row["annotator_id"] == "all"]
    assert _verdicts(_arm(metrics, [])) == [None, True, True, True, None, None, None]
    text = render_markdown(results_frame([_arm(metrics, [])]))
    assert text.count("– not measured") == 4
    assert "Style distance no greater than SFT's: not measured, SFT 0.40 – not measured" in text


def test_without_capo_there_are_no_bars_and_no_differences() -> None:
    metrics = [row for row in _metrics() if row["method"] != "capo"]
    results = results_frame([_arm(metrics, [])])
    assert check_bars(split_arms(results)[0]) == []
    for text in (render_markdown(results), render_latex(results)):
        assert "Bars" not in text
        assert "paragraph" not in text
        assert "Paired by item" not in text


def _cells(text: str, method: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[4] == method]


def test_markdown_has_one_line_per_method_with_intervals() -> None:
    text = render_markdown(results_frame([_arm()]))
    header = next(line for line in text.splitlines() if line.startswith("| Corpus"))
    column = [cell.strip() for cell in header.strip("|").split("|")].index("Attributed k=5, surface-normalised")

    (capo,) = _cells(text, "CAPO")
    assert capo[:5] == ["varierr", "bundled:tiny\\_m", "per\\_annotator", "all", "CAPO"]
    assert capo[column] == ".83 \\[.78, .88\\]"
    assert capo[column - 1] == "not measured"  # raw
    (ceiling,), (floor,) = _cells(text, "human text (ceiling)"), _cells(text, "annotators shuffled (floor)")
    assert (ceiling[column], floor[column]) == (".96 \\[.91, 1.01\\]", ".25 \\[.20, .30\\]")
    (majority,) = _cells(text, "commonest label (floor)")
    assert majority[column] == "–"
    assert not _cells(text, "zero-shot")
    widths = {line.count(" | ") for line in text.split("## ")[0].splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_peoples_own_text_is_the_mark_for_every_figure_of_text() -> None:
    text = render_markdown(results_frame([_arm()]))
    (own,), (others,) = _cells(text, "human text (ceiling)"), _cells(text, "another annotator")
    assert [own[-4], others[-4]] == ["0.22 \\[0.17, 0.27\\]", "0.61 \\[0.56, 0.66\\]"]  # style distance
    assert [own[-2], others[-2]] == [".07 \\[.02, .12\\]", "–"]  # near duplicates


def test_differences_stand_with_interval_tests_and_counts() -> None:
    text = render_markdown(results_frame([_arm()]))
    (gain,) = _cells(text, "Attributed k=5, surface-normalised")
    assert gain[5:] == ["+.13", "\\[.09, .17\\]", ".002", ".012", "0.50", "40", "3"]


def test_lines_that_are_the_same_in_several_arms_stand_once() -> None:
    other = _replace(_metrics(), "capo", "attribution_accuracy", 0.80)
    arms = [_arm(), _arm(other, pair_strategy="nearest"), _arm(other, corpus="paraphrase")]
    text = render_markdown(results_frame(arms))

    assert [line[:4] for line in _cells(text, "SFT")] == [
        ["varierr", "bundled:tiny\\_m", "per\\_annotator", "any"],
        ["paraphrase", "bundled:tiny\\_m", "per\\_annotator", "all"],
    ]
    assert [line[3] for line in _cells(text, "CAPO")] == ["all", "nearest", "all"]
    assert text.count("**varierr") == 2
    assert text.count("**paraphrase") == 1


def test_transfer_to_another_corpus_has_a_table_of_its_own() -> None:
    accuracy = {"classifier": "ngrams", "group_size": 5}
    rows = [
        _metric("capo", "parse_rate", 0.93),
        _metric("capo", "attribution_accuracy", 0.61, condition=CONDITION, **accuracy),
        _metric("capo", "attribution_accuracy", 0.27, condition=FLOOR_CONDITION, **accuracy),
    ]
    moved = name_transfer(pl.DataFrame(rows, schema=METRICS), "paraphrase")
    assert moved["condition"].to_list()[:2] == ["transfer:paraphrase", f"transfer:paraphrase:{CONDITION}"]
    arm = _arm()
    results = results_frame([arm, ArmResult(IDENTITY, moved, pl.DataFrame(schema=COMPARISONS), "capo:evaluation/def")])

    assert len(split_arms(results)) == 1
    text = render_markdown(results).split("## Transfer")[1].split("## ")[0]
    (line,) = [line for line in text.splitlines() if "| CAPO |" in line]
    cells = [cell.strip() for cell in line.strip("|").split(" | ")]
    assert cells[4:] == [
        "paraphrase", "CAPO", ".93 \\[.88, .98\\]", "not measured", "not measured", ".61 \\[.56, .66\\]",
        ".27 \\[.22, .32\\]",
    ]  # fmt: skip
    assert "Transfer" in render_latex(results)
    assert "Transfer" not in render_markdown(results_frame([arm]))


def test_latex_is_balanced_and_no_character_of_the_data_is_a_command() -> None:
    text = render_latex(results_frame([_arm(model="org/50%_&{x}#$~^\\|<>")]))
    name = (
        r"org/50\%\_\&\{x\}\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{}\textless{}\textgreater{}"
    )
    assert name in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 5  # two tables with a tabular each, one list
    assert "−" not in text
    assert "\u00a0" not in text
    bare = text.replace("\\{", "").replace("\\}", "")
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = {line.replace(r"\&", "").count(" & ") for line in rows}
    assert columns == {17, 11}  # between 5 + 13 columns of methods, and between 12 of differences
    assert "{[}.78,~.88{]}" in text


def test_no_row_of_latex_is_read_as_an_argument_of_the_row_before() -> None:
    text = render_latex(results_frame([_arm(corpus="[brackets]")]))
    assert not any(line.lstrip().startswith("[") for line in text.splitlines())
