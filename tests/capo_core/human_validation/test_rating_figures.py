from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from judging_material import ANNOTATORS
from validation_material import make_key, rate

from capo_core.human_validation.rating_figures import pair_differences, summarise_ratings
from schemas.frames import COMPARISONS, METRICS
from schemas.human_validation import HumanValidationConfig

ADA, BO, _ = ANNOTATORS
CONFIG = HumanValidationConfig(methods=("human", "sft"), group_size=1, n_references=1, seed=5)
KEY = make_key(
    ("t1", "rating", "human", ADA),
    ("t2", "rating", "human", BO),
    ("t3", "rating", "sft", ADA),
    ("t4", "rating", "sft", BO),
    ("t5", "attention", "human", ADA),
    ("t6", "t3", "sft", ADA),
)


def figure(
    metrics: pl.DataFrame, metric: str, method: str = "all", who: str = "all", condition: str = "raw"
) -> dict[str, Any]:
    rows = metrics.filter(metric=metric, method=method, annotator_id=who, condition=condition).to_dicts()
    assert len(rows) == 1, f"{len(rows)} rows of {metric} {method} {who} {condition}"
    return rows[0]


def test_figures_by_method_follow_from_the_ratings() -> None:
    # human: t1 A, A of Ada: 2 of 2; t2 B, A of Bo: 1 of 2. sft: t3 A, B of Ada: 1 of 2; t4 A of Bo: 0 of 1.
    ratings = rate(KEY, {"t1": "AA", "t2": "BA", "t3": "AB", "t4": "A.", "t5": "AA", "t6": "BB"})
    found = summarise_ratings(ratings, KEY, CONFIG)
    metrics = found.metrics
    assert (dict(metrics.schema), dict(found.comparisons.schema)) == (METRICS, COMPARISONS)
    human = figure(metrics, "human_attribution_accuracy", "human")
    assert (human["value"], human["n"], human["decision"], human["group_size"]) == (0.75, 2, None, 1)
    assert figure(metrics, "human_attribution_accuracy", "human", ADA)["value"] == 1.0
    sft = figure(metrics, "human_attribution_accuracy", "sft")
    # The attention check and the repeat count for nothing here.
    assert (sft["value"], sft["n"], sft["decision"], sft["n_seeds"]) == (0.25, 2, "sampled", 1)
    assert 0.0 <= sft["ci_low"] <= 0.25 <= sft["ci_high"] <= 1.0
    assert figure(metrics, "human_attribution_accuracy", "sft", BO)["value"] == 0.0
    answered = figure(metrics, "human_answer_rate", "sft")
    assert (answered["value"], answered["n"]) == (0.75, 4)
    assert figure(metrics, "human_chance", "sft")["value"] == pytest.approx(1 / 3)


def test_agreement_of_raters_follows_from_the_ratings() -> None:
    ratings = rate(KEY, {"t1": "AA", "t2": "BA", "t3": "AB", "t4": "A.", "t5": "AA", "t6": "BB"})
    metrics = summarise_ratings(ratings, KEY, CONFIG).metrics
    # Coincidences of t1 to t3 (t4 has one answer): Ada-Ada 2, Ada-Bo 2, Bo-Ada 2; n = 6, n_Ada = 4, n_Bo = 2.
    # D_o = 4/6; D_e = 2 * 4 * 2 / (6 * 5) = 16/30; alpha = 1 - (2/3) / (8/15) = -1/4.
    alpha = figure(metrics, "rater_alpha")
    assert (alpha["value"], alpha["n"]) == (pytest.approx(-0.25), 3)
    # p_o = 1/3; both name Ada in 2 of 3 and Bo in 1: p_e = 4/9 + 1/9 = 5/9; kappa = (1/3 - 5/9) / (4/9) = -1/2.
    assert figure(metrics, "rater_kappa")["value"] == pytest.approx(-0.5)
    # Each passed the one check. r1 called t3 Ada and t6 Bo, r2 called both Bo.
    assert figure(metrics, "rater_attention")["value"] == 1.0
    assert figure(metrics, "rater_self_consistency")["value"] == 0.5
    assert figure(metrics, "rater_median_seconds")["value"] is None


def test_kappa_is_the_mean_over_pairs_of_raters() -> None:
    # r1 and r2 always agree (kappa 1); r3 says A, B, B, A to their A, B, A, B: agreement 1/2 = chance, kappa 0.
    ratings = rate(KEY, {"t1": "AAA", "t2": "BBB", "t3": "AAB", "t4": "BBA"})
    assert figure(summarise_ratings(ratings, KEY, CONFIG).metrics, "rater_kappa")["value"] == pytest.approx(1 / 3)


def test_what_was_not_rated_is_not_measured() -> None:
    metrics = summarise_ratings(rate(KEY, {"t1": "A", "t2": "B"}), KEY, CONFIG).metrics
    alpha = figure(metrics, "rater_alpha")
    assert (alpha["value"], alpha["n"]) == (None, 0)
    unrated = figure(metrics, "human_attribution_accuracy", "sft")
    assert (unrated["value"], unrated["ci_low"], unrated["n"]) == (None, None, 0)
    assert figure(metrics, "human_answer_rate", "sft")["value"] is None


def test_raters_who_always_name_the_same_person_have_no_defined_agreement() -> None:
    metrics = summarise_ratings(rate(KEY, {"t1": "AA", "t2": "AA"}), KEY, CONFIG).metrics
    for metric in ("rater_alpha", "rater_kappa"):
        found = figure(metrics, metric)
        assert (found["value"], found["n"]) == (None, 2)


def test_raters_who_fail_the_rule_are_left_out_and_both_figures_given() -> None:
    # r2 fails the attention check and is wrong everywhere.
    ratings = rate(KEY, {"t1": "AB", "t2": "BA", "t3": "AB", "t4": "BA", "t5": "AB"})
    found = summarise_ratings(ratings, KEY, CONFIG)
    assert found.raters["excluded"].to_list() == [False, True]
    for method in ("human", "sft"):
        assert figure(found.metrics, "human_attribution_accuracy", method)["value"] == 1.0
        assert figure(found.metrics, "human_attribution_accuracy", method, condition="all_raters")["value"] == 0.5
    excluded = figure(found.metrics, "raters_excluded", condition="all_raters")
    assert (excluded["value"], excluded["n"]) == (1.0, 2)
    assert found.comparisons["condition"].to_list() == ["raw", "all_raters"]


def test_where_every_rater_fails_the_rule_nothing_is_measured_without_them() -> None:
    found = summarise_ratings(rate(KEY, {"t1": "A", "t3": "A", "t5": "B"}), KEY, CONFIG)
    without = figure(found.metrics, "human_attribution_accuracy", "sft")
    assert (without["value"], without["n"]) == (None, 0)
    everybody = figure(found.metrics, "human_attribution_accuracy", "sft", condition="all_raters")
    assert (everybody["value"], everybody["n"]) == (1.0, 1)


def test_the_first_row_of_a_figure_is_that_without_excluded_raters() -> None:
    metrics = summarise_ratings(rate(KEY, {"t1": "AB", "t3": "AB"}), KEY, CONFIG).metrics
    rows = metrics.filter(metric="human_attribution_accuracy", method="sft", annotator_id="all")
    assert rows["condition"].to_list() == ["raw", "all_raters"]


def test_figures_do_not_depend_on_the_order_of_rows() -> None:
    ratings = rate(KEY, {"t1": "AAB", "t2": "BAB", "t3": "ABA", "t4": "A.C", "t5": "AAA"})
    shuffled = ratings.sample(fraction=1.0, shuffle=True, seed=1)
    first, second = (summarise_ratings(rows, key, CONFIG) for rows, key in ((ratings, KEY), (shuffled, KEY.reverse())))
    assert first.metrics.equals(second.metrics)
    assert first.comparisons.equals(second.comparisons)


PAIRED = make_key(
    ("t1-sft", "rating", "sft", ADA),
    ("t1-capo", "rating", "capo", ADA),
    ("t2-sft", "rating", "sft", BO),
    ("t2-capo", "rating", "capo", BO),
    ("t3-sft", "rating", "sft", ADA),
    ("t4-capo", "rating", "capo", ADA),
)


def test_methods_are_paired_on_the_same_items_and_raters() -> None:
    # Of items t1 and t2 there are both; t3 and t4 are of one method each. r2 has not answered t2-capo.
    answers = {"t1-sft": "BA", "t1-capo": "AA", "t2-sft": "BB", "t2-capo": "A.", "t3-sft": "AA", "t4-capo": "BB"}
    differences = pair_differences(rate(PAIRED, answers), "capo", "sft")
    # t1 (Ada): r1 right - wrong = 1, r2 0. t2 (Bo): r1 wrong - right = -1.
    assert np.array_equal(differences, [[1.0, -1.0], [0.0, np.nan]], equal_nan=True)


def test_capo_against_sft_stands_first_and_holm_counts_the_pairs() -> None:
    config = CONFIG.model_copy(update={"methods": ("human", "sft", "capo")})
    key = make_key(
        *((f"t{i}-{m}", "rating", m, who) for i, who in enumerate((ADA, BO, ADA, BO)) for m in ("human", "sft", "capo"))
    )
    right = {ADA: "A", BO: "B"}
    answers = {
        task["task_id"]: right[task["annotator_id"]] + ("C" if task["method"] == "sft" else "A")
        for task in key.iter_rows(named=True)
    }
    compared = summarise_ratings(rate(key, answers), key, config).comparisons.filter(condition="raw")
    assert compared.select("method_a", "method_b").rows() == [("capo", "sft"), ("capo", "human"), ("sft", "human")]
    first = compared.row(0, named=True)
    # r1 is always right, r2 right for capo and human where it is Ada (A), never for sft: differences 0 and, for r2,
    # 1, 0, 1, 0; mean 1/4.
    assert (first["difference"], first["n"], first["metric"]) == (0.25, 4, "human_attribution_accuracy")
    assert first["ci_low"] < 0.25 < first["ci_high"]
    assert first["p_holm"] >= first["p_value"]
    # capo and human were answered alike: no difference, certain.
    assert compared.row(1, named=True)["p_value"] == 1.0


def test_simulated_raters_with_a_preference_are_seen_through_the_whole_analysis() -> None:
    rng = np.random.default_rng(11)
    key = make_key(
        *((f"t{i:02d}-{m}", "rating", m, ANNOTATORS[i % 3]) for i in range(30) for m in ("sft", "capo")),
        *((f"u{i}", "attention", "human", ANNOTATORS[i % 3]) for i in range(4)),
    )
    letters = dict(zip(ANNOTATORS, "ABC", strict=True))
    hit = {"sft": 0.4, "capo": 0.75, "human": 1.0}
    answers = {
        task["task_id"]: "".join(
            letters[task["annotator_id"]]
            if rng.random() < hit[task["method"]]
            else next(letter for letter in "ABC" if letter != letters[task["annotator_id"]])
            for _ in range(5)
        )
        for task in key.iter_rows(named=True)
    }
    config = CONFIG.model_copy(update={"methods": ("sft", "capo")})
    found = summarise_ratings(rate(key, answers), key, config)
    assert found.raters["attention_passed"].to_list() == [1.0] * 5
    for method in ("sft", "capo"):
        estimate = figure(found.metrics, "human_attribution_accuracy", method)
        assert estimate["ci_low"] <= hit[method] <= estimate["ci_high"]
    first = found.comparisons.row(0, named=True)
    assert (first["method_a"], first["method_b"], first["n"]) == ("capo", "sft", 30)
    # The planted difference is .35; 150 pairs of answers with variance of at most .5 have an error of about .06.
    assert first["ci_low"] <= 0.35 <= first["ci_high"]
    assert first["p_holm"] < 0.01
