"""How explanations are divided by label and by genre."""

from __future__ import annotations

import polars as pl

from capo_core.stylometry.strata import genre_strata, label_strata


def named(strata) -> list[str | None]:
    return [strata.names[i] if i >= 0 else None for i in strata.of_row]


def test_categories_are_strata_of_their_own() -> None:
    strata = label_strata(pl.Series(["neutral", "entailment", "neutral"]))
    assert strata.names == ("entailment", "neutral")
    assert named(strata) == ["neutral", "entailment", "neutral"]


def test_many_scores_of_both_signs_are_banded_by_sign() -> None:
    strata = label_strata(pl.Series(["-5", "0", "3", "-1", "1"]))
    assert strata.names == ("negative", "zero", "positive")
    assert named(strata) == ["negative", "zero", "positive", "negative", "positive"]


def test_a_sign_nobody_gave_is_no_stratum() -> None:
    assert label_strata(pl.Series(["-5", "-4", "3", "-1", "1"])).names == ("negative", "positive")


def test_many_scores_of_one_sign_are_cut_at_the_terciles() -> None:
    # 1 … 6: terciles 1 + 5/3 = 2.67 and 1 + 10/3 = 4.33
    strata = label_strata(pl.Series(["1", "2", "3", "4", "5", "6"]))
    assert named(strata) == ["1 to 2", "1 to 2", "3 to 4", "3 to 4", "5 to 6", "5 to 6"]


def test_few_scores_stand_for_themselves_in_order_of_value() -> None:
    assert label_strata(pl.Series(["10", "9", "8"])).names == ("8", "9", "10")


def test_missing_labels_are_in_no_stratum() -> None:
    assert named(label_strata(pl.Series(["neutral", None]))) == ["neutral", None]
    assert named(label_strata(pl.Series(["-2", None, "1", "2", "3", "-1"])))[1] is None


def test_genre_is_read_from_the_metadata() -> None:
    metadata = pl.Series(['{"genre": "travel"}', "{}", '{"genre": "fiction", "x": 1}', '{"genre": null}', None])
    strata = genre_strata(metadata, "genre")
    assert strata.names == ("fiction", "travel")
    assert named(strata) == ["travel", None, "fiction", None, None]
