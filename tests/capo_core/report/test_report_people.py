"""What the report says of the people: agreement, stability beside its floor, features beside tests, a card each."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
from report_samples import frame, make_data, make_stability, make_style

from capo_core.report.agreement_tables import describe_subjectivity, tabulate_agreement, tabulate_contested
from capo_core.report.convergence_figures import draw_convergence, list_advice
from capo_core.report.formats import NO_BREAK
from capo_core.report.stability_tables import tabulate_stability, tabulate_strata
from capo_core.report.style_cards import build_cards, caution_permutations, draw_features, tabulate_reliability
from capo_core.report.tables import Cell
from schemas.frames import AGREEMENT, ITEM_LABELS, SUBJECTIVITY


def notes_of(cell: Cell) -> list[str]:
    """Return a cell's notes with ordinary spaces."""
    return [note.replace(NO_BREAK, " ") for note in cell.notes]


def test_divergence_stands_beside_its_floor_and_unknown_figures_last() -> None:
    names = ("strange", "label_jsd_shuffled", "label_jsd", "krippendorff_alpha_masi")
    rows = [(name, None, None, 0.3, 0.2, 0.4, 10, 40) for name in names]
    groups = [group for group in tabulate_agreement(frame(rows, AGREEMENT)).groups if group.rows]
    assert [[row[0].text for row in group.rows] for group in groups] == [
        ["Krippendorff's α, MASI (sets of labels)"],
        ["Divergence of label distributions, bits", "the same, annotators shuffled (floor)"],
        ["strange"],
    ]


def test_class_set_by_hand_is_told_from_the_proposed_one() -> None:
    text, rule = describe_subjectivity(make_data().subjectivity)
    assert text.startswith("Latent pattern:")
    assert "Set in the configuration; the rule proposes manifest" in text
    assert rule == "α is .41."
    text, _ = describe_subjectivity(frame([("manifest", "manifest", "…")], SUBJECTIVITY))
    assert "Set in the configuration" not in text


def test_items_without_disagreement_are_not_contested() -> None:
    rows = [
        (f"{0:016x}", 2, [{"label": "yes", "n": 1}, {"label": "no", "n": 1}], 1.0),
        (f"{1:016x}", 2, [{"label": "yes", "n": 2}], 0.0),
    ]
    (row,) = tabulate_contested(make_data(item_labels=frame(rows, ITEM_LABELS))).groups[0].rows
    assert [cell.text for cell in row] == ["Statement 0", "yes 1, no 1", "1.00"]


def test_accuracy_stands_beside_interval_and_shuffled_floor() -> None:
    table = tabulate_stability(make_data())
    (row,) = table.groups[0].rows
    # k = 1: .7 in [.6, .75], shuffled .5; k = 5: .9 in [.8, .95], shuffled .52.
    assert [cell.text for cell in row] == ["surface removed", ".70", ".90", ".004", ".020"]
    assert [notes_of(cell) for cell in row[1:3]] == [["[.60, .75]", "floor .50"], ["[.80, .95]", "floor .52"]]


def test_both_tests_stand_side_by_side_with_a_line_each_on_how_they_differ() -> None:
    table = tabulate_stability(make_data())
    assert [cell.text for cell in table.columns[-2:]] == ["p, verdicts kept", "p, retrained"]
    kept, retrained = table.notes[-2:]
    assert kept.startswith("p, verdicts kept: ")
    assert "anew under each permutation" in retrained


def test_retrained_test_that_was_not_made_is_said_to_be_not_computed() -> None:
    stability = make_stability().with_columns(pl.lit(None, pl.Float64).alias("p_value_retrained"))
    (row,) = tabulate_stability(make_data(stability=stability)).groups[0].rows
    assert [cell.text for cell in row[-2:]] == [".004", "not computed"]


def test_missing_floor_is_said_to_be_missing() -> None:
    human = make_stability().filter(pl.col("condition") == "human")
    (row,) = tabulate_stability(make_data(stability=human)).groups[0].rows
    assert notes_of(row[1])[1] == "floor not measured"


def test_style_with_the_label_never_seen_stands_below_style_with_any() -> None:
    (group,) = tabulate_strata(make_data()).groups
    # Measured for k = 5 only: that is the one column.
    assert [(row[0].text, row[1].text) for row in group.rows] == [
        ("any labels", ".90"),
        ("label never seen by the classifier", ".80"),
        ("label never seen by the classifier: yes", ".75"),
    ]


def test_reliability_stands_beside_its_shuffled_control() -> None:
    row = tabulate_reliability(make_data()).groups[0].rows[0]
    assert [cell.text for cell in row] == ["ada", ".90", ".90", "4"]
    assert notes_of(row[1]) == ["[.80, .95]", "shuffled .01"]


def test_card_names_only_features_that_a_corrected_test_shows() -> None:
    card = build_cards(make_data())[0]
    # Words differ (p .001), commas do not (p 1).
    assert [trait.name for trait in card.traits] == ["words"]
    assert card.traits[0].difference.replace(NO_BREAK, " ") == "+1.20 SD [0.90, 1.50]"
    assert card.traits[0].means == "12.00, others 6.00 (words)"
    assert [(term.text, term.counts) for term in card.words] == [("Because. word", "20 : 1")]
    assert card.examples == (("yes", "Because."),)
    assert "Groups of 5 attributed to this person: .90 [.80, .95] surface removed" in card.facts[0].replace(
        NO_BREAK, " "
    )


def test_features_are_ordered_by_what_they_tell_and_solid_where_shown() -> None:
    bars = draw_features(make_data()).panels[0].svg
    assert bars.index(">words<") < bars.index(">comma<")
    assert 'fill="var(--accent)"' in bars
    assert 'fill="var(--panel)"' in bars


def test_too_few_permutations_for_the_correction_are_said_to_be_too_few() -> None:
    # Two features and 10,000 permutations: the least corrected p is 2 / 10,001. With 30: 2 / 31 = .065.
    assert caution_permutations(make_data()) == ""
    style = make_style()
    few = replace(style, features=style.features.with_columns(pl.lit(30, pl.Int64).alias("n_permutations")))
    assert "More permutations are needed" in caution_permutations(make_data(style=few))


def test_convergence_has_a_panel_per_figure_and_the_advice_in_words() -> None:
    data = make_data()
    assert [panel.title for panel in draw_convergence(data).panels] == ["Krippendorff's α, nominal, by items"]
    assert list_advice(data) == ["About 120 more annotations per annotator would bring the interval under .10."]
