"""What the report says of the methods: attribution beside distance, decisions beside floors, exclusions and costs."""

from __future__ import annotations

import polars as pl
from report_samples import attribution_comparison, distance_rows, frame, make_data, metric_row

from capo_core.report.comparison_tables import list_verdicts, tabulate_key_comparison
from capo_core.report.formats import NO_BREAK
from capo_core.report.headline_tables import (
    tabulate_decisions,
    tabulate_headline,
    tabulate_soft_labels,
    tabulate_variants,
)
from capo_core.report.key_figures import choose_key_figures
from capo_core.report.method_tables import (
    list_profiles,
    tabulate_cross_attribution,
    tabulate_exclusions,
    tabulate_retention,
    tabulate_retention_means,
)
from capo_core.report.result_figures import draw_attribution, draw_distances
from capo_core.report.result_tables import narrow_to_leading
from capo_core.report.tables import Table
from schemas.frames import COMPARISONS, METRICS, RETENTION


def texts(table: Table) -> dict[str, list[str]]:
    """Return every row's cells by the row's name."""
    return {row[0].text: [cell.text for cell in row[1:]] for group in table.groups for row in group.rows}


def test_every_row_of_the_headline_has_attribution_beside_distance() -> None:
    data = make_data()
    rows = texts(tabulate_headline(data, choose_key_figures(data.metrics)))
    # Attributed raw and surface, told apart raw (not in the sample) and surface, distance, length, near duplicates.
    gone = "not measured"
    assert rows == {
        "Human text (ceiling)": [".93", ".86", gone, ".50", "0.20", "–", gone],
        "Another annotator": ["–", "–", "–", "–", "0.90", "–", "–"],
        "Authors shuffled (floor)": [".27", ".26", "–", "–", "–", "–", "–"],
        "SFT": [".71", ".62", gone, ".80", "0.50", "1.00", gone],
        "CAPO": [".87", ".78", gone, ".90", "0.70", "1.50", gone],
    }


def test_lengths_that_cancel_out_in_the_mean_are_seen() -> None:
    rows = [r for r in distance_rows() if r[3] != "length_ratio"] + [
        metric_row("capo", "attribution_accuracy", 0.8, condition="raw", classifier="ngrams", size=5),
        metric_row("capo", "length_ratio", 1.0),
        metric_row("capo", "length_ratio", 0.5, annotator="ada"),
        metric_row("capo", "length_ratio", 1.5, annotator="ben"),
    ]
    data = make_data(metrics=frame(rows, METRICS))
    table = tabulate_headline(data, choose_key_figures(data.metrics))
    (row,) = [row for row in table.groups[0].rows if row[0].text == "CAPO"]
    assert row[6].notes[-1] == "0.50 to 1.50 by person"


def test_figures_of_another_classifier_do_not_lead() -> None:
    data = make_data()
    other = data.metrics.filter(pl.col("metric") == "attribution_accuracy").with_columns(
        pl.lit("embeddings").alias("classifier"), pl.lit(0.11).alias("value")
    )
    both = make_data(metrics=pl.concat([data.metrics, other]))
    keys = choose_key_figures(both.metrics)
    assert texts(tabulate_headline(both, keys))["CAPO"][:2] == [".87", ".78"]
    variants = tabulate_variants(both, keys).groups[0].rows
    # Text, classifier, floor, SFT, CAPO, human.
    assert [[cell.text for cell in row] for row in variants] == [
        ["as written", "n-grams", ".27", ".71", ".87", ".93"],
        ["as written", "embeddings", ".11", ".11", ".11", ".11"],
        ["surface removed", "n-grams", ".26", ".62", ".78", ".86"],
        ["surface removed", "embeddings", ".11", ".11", ".11", ".11"],
    ]


def test_controls_of_decisions_stand_in_every_column() -> None:
    rows = [
        metric_row("majority", "label_agreement", 0.63, decision=None),
        metric_row("human", "label_agreement", 0.5, decision=None, condition="other_annotator"),
        metric_row("capo", "label_agreement", 0.4, decision="sampled"),
        metric_row("capo", "label_agreement", 0.6, decision="constrained"),
    ]
    table = tabulate_decisions(make_data(metrics=frame(rows, METRICS)))
    assert [head.text for head in table.columns] == ["Method", "sampled", "constrained"]
    assert texts(table) == {
        "Always the commonest label": [".63", ".63"],
        "Another annotator": [".50", ".50"],
        "CAPO": [".40", ".60"],
    }


def test_soft_labels_have_both_floors() -> None:
    rows = [
        metric_row("majority", "manhattan_distance", 0.9, decision=None),
        metric_row("majority", "manhattan_distance", 0.7, decision=None, condition="training_distribution"),
        metric_row("capo", "manhattan_distance", 0.8),
        metric_row("capo", "anad_10", 0.2),
    ]
    table = tabulate_soft_labels(make_data(metrics=frame(rows, METRICS)))
    assert [group.title for group in table.groups] == ["ANAD, divided by 10", "Manhattan distance"]
    assert [row[0].text for row in table.groups[1].rows] == [
        "Always the commonest or median label",
        "Distribution of training labels",
        "CAPO",
    ]


def test_matrix_has_whom_the_text_imitates_in_its_rows() -> None:
    data = make_data()
    described, (table,) = tabulate_cross_attribution(data, choose_key_figures(data.metrics))
    assert described == "Groups of 5, surface removed, sampled text."
    # The sample's diagonal is .9.
    assert texts(table) == {"ada": [".90", ".10"], "ben": [".10", ".90"]}


def test_exclusions_are_listed_with_their_rule_and_value() -> None:
    (row,) = tabulate_exclusions(make_data()).groups[0].rows
    assert [cell.text for cell in row] == ["Zero-shot", "sampled", "ada", "too few readable", "0.25", "0.5"]


def test_retention_is_a_ratio_of_perplexities_and_a_difference_of_shares() -> None:
    rows = [
        ("sft", "ada", 13, "neutral_perplexity", 20.0, 22.0, 1.1, 1.05, 1.15, 24),
        ("sft", "ben", 13, "neutral_perplexity", 20.0, 26.0, 1.3, 1.2, 1.4, 24),
        ("capo", "ada", 13, "zero_shot_label_agreement", 0.5, 0.4, -0.1, -0.2, 0.0, 24),
    ]
    data = make_data(retention=frame(rows, RETENTION))
    by_adapter = texts(tabulate_retention(data))
    assert by_adapter["SFT, ada"] == ["20.00", "22.00", "1.10", "24"]
    assert by_adapter["CAPO, ada"] == [".50", ".40", "−.10", "24"]
    means = tabulate_retention_means(data).groups[0].rows
    # (1.1 + 1.3) / 2
    assert [cell.text for cell in means[0]] == ["Perplexity of neutral text", "SFT", "1.20", "2"]
    assert means[0][2].notes == ("1.10 to 1.30",)


def test_profile_that_was_cut_says_so() -> None:
    (profile,) = list_profiles(make_data())
    assert (profile.title, profile.text) == ("ada", "Short and plain.")
    assert profile.facts == "from 50 training annotations, cut at the token limit"


def test_verdicts_name_what_is_shown_what_is_not_and_what_was_not_tested() -> None:
    data = make_data(comparisons=frame([attribution_comparison(0.16, 0.08, 0.24, 0.003, holm=0.01)], COMPARISONS))
    keys = choose_key_figures(data.metrics)
    verdicts = list_verdicts(data, keys)
    assert [text.replace(NO_BREAK, " ") for text in verdicts.shown] == [
        "Attribution accuracy, k = 5, surface removed: higher under CAPO, +.16 [.08, .24], p = .010, Holm "
        "(.62 [.57, .67] → .78 [.73, .83])"
    ]
    assert verdicts.not_shown == ()
    assert "Style distance" in verdicts.untested
    (row,) = tabulate_key_comparison(data, keys).groups[0].rows
    assert [cell.text for cell in row][3:5] == [".003", ".010"]


def test_tables_by_annotator_leave_out_other_variants_of_attribution_only() -> None:
    rows = [
        metric_row("capo", "attribution_accuracy", 0.1, condition="raw", classifier="ngrams", size=5),
        metric_row("capo", "attribution_accuracy", 0.2, condition="raw", classifier="ngrams", size=10),
        metric_row("capo", "attribution_accuracy", 0.3, condition="raw", classifier="embeddings", size=5),
        metric_row("capo", "attribution_accuracy", 0.4, condition="shared_words_masked", classifier="ngrams", size=5),
        metric_row("capo", "rouge_l", 0.5),
    ]
    assert sorted(narrow_to_leading(frame(rows, METRICS), 5)["value"].to_list()) == [0.1, 0.5]


def test_absent_method_has_one_row_without_a_dot() -> None:
    data = make_data()
    rows = [
        metric_row("history", "attribution_accuracy", None, condition=c, classifier="ngrams", size=5)
        for c in ("raw", "surface_normalised")
    ]
    data = make_data(metrics=pl.concat([data.metrics, frame(rows, METRICS)]))
    (panel,) = draw_attribution(data, choose_key_figures(data.metrics)).panels
    assert panel.svg.count("not measured") == 1
    # In the report's order, not where the renderer puts rows without a value.
    assert panel.svg.index(">In-context history<") < panel.svg.index(">SFT<")


def test_controls_of_style_distance_are_rows_of_their_own() -> None:
    data = make_data()
    panel = draw_distances(data, choose_key_figures(data.metrics)).panels[1]
    assert all(f">{name}<" in panel.svg for name in ("Person's own text", "Another annotator", "SFT", "CAPO"))
