"""The risk of re-identification: which figures are stated, in which words, and what is said where there are none."""

from __future__ import annotations

import polars as pl

from capo_core.release.risk import describe_risk, tabulate_risk
from schemas.frames import STABILITY, STABILITY_BY_ANNOTATOR, empty

DEFAULTS = {
    "reduction": "none", "normalisation": "none", "classifier": "ngrams", "condition": "human", "stratum": None,
    "group_size": 1, "p_value": 0.001, "p_value_retrained": None, "n_groups": 40, "n_items": 40, "n_repeats": 1,
    "chance": 0.25,
}  # fmt: skip
NOBODY = empty(STABILITY_BY_ANNOTATOR)


def row(accuracy: float | None, low: float | None, high: float | None, **other: object) -> dict:
    return DEFAULTS | {"accuracy": accuracy, "ci_low": low, "ci_high": high} | other


def stability(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=STABILITY)


def test_the_strongest_variant_is_chosen_for_each_number_of_explanations() -> None:
    table = tabulate_risk(
        stability(
            row(0.6, 0.5, 0.7),
            row(0.4, 0.3, 0.5, classifier="embeddings"),
            row(0.8, 0.7, 0.9, reduction="shared_words_masked"),
            row(0.9, 0.8, 1.0, group_size=5),
            row(0.85, 0.75, 0.95, group_size=5, reduction="shared_words_masked"),
            row(0.95, 0.9, 1.0, stratum="neutral", condition="label_fixed"),  # no figure over all labels
            row(0.5, 0.4, 0.6, normalisation="surface"),
            row(0.27, 0.2, 0.33, condition="shuffled"),
        )
    )
    cells = {first: rest for first, *rest in table}
    no_break = "\u00a0"
    assert cells["as written, by n-grams"] == [
        f".60 [.50,{no_break}.70]", f".90 [.80,{no_break}1.00]", "not measured"
    ]  # fmt: skip
    assert cells["as written, by embeddings"][0] == f".40 [.30,{no_break}.50]"
    assert cells["as written, strongest of 3 variants"][:2] == [f".80 [.70,{no_break}.90]", f".90 [.80,{no_break}1.00]"]
    assert cells["surface removed, strongest of 1 variants"][0] == f".50 [.40,{no_break}.60]"
    assert cells["floor: annotators shuffled within items"] == [
        f".27 [.20,{no_break}.33]", "not measured", "not measured"
    ]  # fmt: skip


def test_it_is_said_in_words_from_how_many_explanations_people_are_told() -> None:
    own = pl.DataFrame(
        [
            {"annotator_id": who, "accuracy": accuracy, "group_size": 1, "reduction": "none", "normalisation": "none",
             "classifier": "ngrams"}
            for who, accuracy in (("a", 0.2), ("b", 0.4))
        ]
    )  # fmt: skip
    table = stability(
        row(0.3, 0.2, 0.4), row(0.9, 0.8, 0.95, group_size=5), row(0.45, 0.2, 0.6, normalisation="surface")
    )
    first, second, last = describe_risk(table, own, 4)
    assert "which of 4 annotators wrote them. Guessing would be right 25% of the time" in first
    assert "right 30% of the time (95% interval 20% to 40%) from one explanation, 90% of the time" in first
    assert "and (not measured) from 10" in first
    assert (
        "removed it was right 45% of the time (95% interval 20% to 60%) from one explanation, (not measured)" in first
    )
    assert "hardest to tell was named rightly 20% of the time, the one who is easiest 40%" in second
    # Of a single explanation the interval holds .25, of five it does not.
    assert "told apart, from 5 explanations on" in last


def test_no_figure_above_guessing_is_no_proof_of_safety() -> None:
    *_, last = describe_risk(stability(row(0.3, 0.2, 0.4), row(0.6, None, None, group_size=5)), NOBODY, 4)
    assert last.startswith("None of these figures lies above guessing with 95% confidence. That is no proof")


def test_what_was_not_measured_is_said_to_be_so() -> None:
    (only,) = describe_risk(stability(row(None, None, None)), NOBODY, 4)
    assert "was not measured. It has to be assumed that they can" in only
    assert all(cell == "not measured" for _, *cells in tabulate_risk(empty(STABILITY)) for cell in cells)
