"""Drift of an annotator between batches: found where planted, and no oftener than stated where there is none."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest

from capo_core.batches.drift import ANY_FEATURE, LABELS, compare_means, drift_table
from capo_core.quality import add_context_ids
from capo_core.stylometry.features import FEATURES
from schemas.frames import CORPUS, DRIFT

SHORT = ("No.", "Not so.", "It is not.", "Hardly so.", "I doubt it.")
LONG = (
    "The statement follows from what the context says about it.",
    "Because the context mentions this, the statement must be true.",
    "One can read from the context that the statement holds as well.",
)


def corpus(said: dict[tuple[str, int], tuple[str, str]]) -> pl.DataFrame:
    """Return training rows: (annotator, item) to (label, explanation)."""
    rows = [
        {
            "item_id": f"{item:03}", "text_a": f"a context about number {item}", "text_b": f"statement {item}",
            "annotator_id": annotator, "label": label, "explanation": explanation, "source_file": "f",
            "source_line": item, "source_id": str(item), "metadata": "{}", "split": "train",
        }
        for (annotator, item), (label, explanation) in said.items()
    ]  # fmt: skip
    return add_context_ids(pl.DataFrame(rows)).select(list(CORPUS))


def speak(rng: np.random.Generator, sentences: tuple[str, ...]) -> tuple[str, str]:
    return str(
        rng.choice(["neutral", "entailment"])
    ), f"{rng.choice(sentences)} {'Indeed. ' * rng.integers(0, 3)}".strip()


def two_versions(
    rng: np.random.Generator, later: tuple[str, ...], *, alone: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a corpus of 40 items by three people, and the same with 20 later items of which `ann` writes `later`."""
    said = {(who, item): speak(rng, LONG) for who in ("ann", "bob", "cyd") for item in range(40)}
    news = {("ann", item): speak(rng, later) for item in range(40, 60)}
    if not alone:
        news |= {(who, item): speak(rng, LONG) for who in ("bob", "cyd") for item in range(40, 60)}
    return corpus(said), corpus(said | news)


def p_values(table: pl.DataFrame, annotator: str) -> dict[str, float]:
    return dict(table.filter(annotator_id=annotator).select("feature", "p_value").iter_rows())


def test_a_planted_change_of_style_is_found_in_its_author_alone() -> None:
    table = drift_table(*two_versions(np.random.default_rng(1), SHORT), n_permutations=999, seed=13)

    assert dict(table.schema) == DRIFT
    assert table["annotator_id"].unique().sort().to_list() == ["ann", "bob", "cyd"]
    ann = p_values(table, "ann")
    assert ann[ANY_FEATURE] == pytest.approx(1 / 1000)
    assert ann["words"] == pytest.approx(1 / 1000)
    words = table.filter(annotator_id="ann", feature="words").row(0, named=True)
    assert words["difference"] < -1
    assert words["difference"] == pytest.approx(words["mean_after"] - words["mean_before"])
    assert (words["n_before"], words["n_after"], words["is_item_controlled"]) == (40, 20, True)
    # Beside ann's short texts the others' are long: whose change it is shows in the size.
    bob = table.filter(annotator_id="bob", feature="words").row(0, named=True)
    assert abs(bob["difference"]) < abs(words["difference"])
    assert table.filter(annotator_id="ann").height == len(FEATURES) + 2


def test_a_change_of_labels_is_found() -> None:
    rng = np.random.default_rng(2)
    before, after = two_versions(rng, LONG)
    is_later = (pl.col("annotator_id") == "ann") & (pl.col("item_id") >= "040")
    after = after.with_columns(pl.when(is_later).then(pl.lit("contradiction")).otherwise("label").alias("label"))
    table = drift_table(before, after, n_permutations=999, seed=13)
    assert p_values(table, "ann")[LABELS] == pytest.approx(1 / 1000)
    assert p_values(table, "bob")[LABELS] > 0.05
    divergence = table.filter(annotator_id="ann", feature=LABELS)["difference"].item()
    assert divergence == pytest.approx(1.0)  # no label in common: one bit


def test_items_that_nobody_else_annotated_are_compared_as_they_are_and_marked() -> None:
    table = drift_table(*two_versions(np.random.default_rng(3), SHORT, alone=True), n_permutations=199, seed=13)
    assert table["annotator_id"].unique().to_list() == ["ann"]
    assert not table["is_item_controlled"].any()
    assert p_values(table, "ann")[ANY_FEATURE] == pytest.approx(1 / 200)


def test_too_few_items_are_not_compared() -> None:
    before, after = two_versions(np.random.default_rng(4), SHORT)
    few = after.filter(pl.col("item_id") < "043")
    assert drift_table(before, few, n_permutations=99, seed=13).is_empty()


def test_differences_and_p_values_are_those_of_all_divisions() -> None:
    values = np.array([[1.0], [2.0], [4.0], [8.0], [16.0], [np.nan]])
    marks = np.array([False, False, False, True, True, True])
    difference, p_value, _, _ = compare_means(values, marks, 20_000, np.random.default_rng(5))
    # (8 + 16) / 2 - (1 + 2 + 4) / 3
    assert difference[0] == pytest.approx(12 - 7 / 3)
    exact = []
    for chosen in combinations(range(6), 3):
        side = np.isin(np.arange(6), chosen)
        exact.append(np.nanmean(values[side]) - np.nanmean(values[~side]))
    share = np.mean(np.abs(exact) >= abs(12 - 7 / 3) - 1e-9)
    assert p_value[0] == pytest.approx(share, abs=0.01)


def test_without_drift_p_is_below_05_in_a_twentieth_of_the_simulations() -> None:
    rng = np.random.default_rng(6)
    found = [compare_means(rng.standard_normal((40, 12)), np.arange(40) < 12, 199, rng)[3] <= 0.05 for _ in range(1000)]
    # 1,000 draws at .05: two standard errors are .014
    assert 0.03 <= np.mean(found) <= 0.07


def test_features_that_never_vary_are_not_measured() -> None:
    difference, p_value, greatest, p_any = compare_means(
        np.ones((10, 2)), np.arange(10) < 5, 99, np.random.default_rng(7)
    )
    assert difference.tolist() == [0.0, 0.0]
    assert np.isnan(p_value).all()
    assert np.isnan([greatest, p_any]).all()
