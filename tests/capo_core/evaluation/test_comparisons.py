"""Which methods are compared, how the p-value is put together, its families, and effect sizes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from evaluation_material import find

from capo_core.evaluation.scores import ItemScores, Resampling, ScoreName, Scores
from capo_core.evaluation.tables import compared_pairs, comparison_row, tabulate_comparisons
from schemas.config import EvaluationConfig
from schemas.frames import COMPARISONS

CONFIG = EvaluationConfig(n_bootstrap=400, seed=2)


def averages(
    values: np.ndarray, method: str = "sft", metric: str = "label_agreement", decision: str | None = "sampled", **more
) -> ItemScores:
    """Return scores of [S, A, I] values, seeds 0, 1, …; without a decision no seed enters."""
    seeds = () if decision is None else tuple(range(len(values)))
    return ItemScores(ScoreName(method, decision, metric, **more), seeds, values, np.ones_like(values))


def compare(first: Scores, second: Scores) -> dict:
    resampling = Resampling(first.present().shape[2], CONFIG)
    row = comparison_row(first, second, resampling)
    return dict(zip(COMPARISONS, row, strict=True))


def named(method: str, metric: str, decision: str | None = "sampled") -> ItemScores:
    return averages(np.ones((1, 1, 2)), method, metric, decision)


def test_each_method_is_compared_with_the_one_before_it_and_capo_with_history() -> None:
    scores = [named(m, "rouge_l") for m in ("capo", "history", "profile", "sft", "zero_shot")]
    pairs = [(a.name.method, b.name.method) for a, b in compared_pairs(scores)]
    assert pairs == [
        ("capo", "sft"), ("sft", "profile"), ("profile", "history"), ("history", "zero_shot"), ("capo", "history"),
    ]  # fmt: skip


def test_absent_methods_are_stepped_over_and_no_pair_is_compared_twice() -> None:
    scores = [named(m, "rouge_l") for m in ("capo", "history")]
    assert [(a.name.method, b.name.method) for a, b in compared_pairs(scores)] == [("capo", "history")]


def test_decisions_are_compared_with_the_majority_where_they_are_the_most_probable() -> None:
    scores = [named("majority", m, None) for m in ("label_agreement", "macro_f1", "aer")]
    scores += [
        named(method, metric, decision)
        for method in ("history", "sft")
        for metric in ("label_agreement", "macro_f1", "aer")
        for decision in ("sampled", "greedy", "constrained")
    ]
    found = [a.name[:3] for a, b in compared_pairs(scores) if b.name.method == "majority"]
    assert sorted(found) == [
        ("sft", "constrained", "label_agreement"), ("sft", "constrained", "macro_f1"),
        ("sft", "greedy", "label_agreement"), ("sft", "greedy", "macro_f1"),
    ]  # fmt: skip


def test_agreement_of_classifiers_is_not_a_comparison_of_methods() -> None:
    assert compared_pairs([named(m, "classifier_agreement") for m in ("sft", "capo")]) == []


def test_majority_stands_at_every_seed() -> None:
    # Seeds right on 3 and 1 of 4 items, majority on 2: mean (3 + 1) / 8 - 2/4 = 0.
    values = np.array([[[1.0, 1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]]])
    row = compare(
        averages(values, decision="greedy"), averages(np.array([[[1.0, 1.0, 0.0, 0.0]]]), "majority", decision=None)
    )
    assert (row["difference"], row["decision"], row["n"], row["n_seeds"]) == (0.0, "greedy", 4, 2)


def test_effect_size_is_the_mean_item_difference_in_its_standard_deviations() -> None:
    # Differences 1 (30 times) and 0 (10 times): mean .75, SD √(.75 · .25) = .433, d_z = 1.732; ± 400 resamples' 3.5%.
    differences = np.repeat([1.0, 0.0], [30, 10])[None, None, :]
    row = compare(averages(differences, "capo"), averages(np.zeros((1, 1, 40))))
    assert row["effect_size"] == pytest.approx(1.732, rel=0.11)
    assert row["difference"] == 0.75


def test_differences_without_spread_have_no_effect_size() -> None:
    row = compare(averages(np.ones((1, 2, 9)), "capo"), averages(np.ones((1, 2, 9))))
    assert (row["difference"], row["effect_size"], row["p_value"]) == (0.0, None, 1.0)


def test_effect_size_is_of_items_whatever_the_seeds_do() -> None:
    # The same items' differences, seeds shifted by ± 1 around them: the spread between items stays.
    items = np.random.default_rng(0).normal(0.5, 1.0, 60)
    one = compare(averages(items[None, None], "capo"), averages(np.zeros((1, 1, 60))))
    shifted = np.stack([items - 1, items + 1])[:, None]
    two = compare(averages(shifted, "capo"), averages(np.zeros((2, 1, 60))))
    assert two["effect_size"] == pytest.approx(one["effect_size"])
    assert two["p_value"] > one["p_value"]


def test_seeds_that_agree_in_sign_only_are_not_enough() -> None:
    # Seed differences .02, .1, .3, the same on every item: every resample is above 0, as is every swap's opposite.
    values = np.broadcast_to(np.array([0.02, 0.1, 0.3])[:, None, None], (3, 2, 50)) + 0.0
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 2, 50))
    row = compare(averages(values + noise, "capo"), averages(np.zeros((3, 2, 50))))
    assert row["ci_low"] > 0
    # t = .14 / (.1442 / √3) = 1.68 on 2 degrees of freedom: p = .235.
    assert row["p_value"] == pytest.approx(0.235, abs=0.02)


def test_families_are_all_pairs_and_decisions_of_one_figure() -> None:
    def row(pair: tuple[str, str], decision: str, p_value: float | None, size: int, metric: str = "rouge_l") -> tuple:
        return (*pair, decision, metric, "raw", "ngrams", size, 0.1, 0.0, 0.2, 1.0, p_value, None, 10, 1)

    rows = [
        row(("capo", "sft"), "sampled", 0.01, 1),
        row(("sft", "history"), "sampled", 0.04, 1),
        row(("capo", "sft"), "greedy", 0.02, 1),
        row(("sft", "history"), "greedy", None, 1),
        row(("capo", "sft"), "sampled", 0.04, 5),
        row(("capo", "sft"), "sampled", 0.03, 1, "chrf"),
    ]
    frame = tabulate_comparisons(rows)
    assert frame.schema == pl.Schema(COMPARISONS)
    # Of three: .01 · 3 = .03, .02 · 2 = .04, .04 · 1 = .04. Another size or metric is another family, of one.
    assert frame["p_holm"].to_list() == pytest.approx([0.03, 0.04, 0.04, None, 0.04, 0.03])
    assert frame["method_a"].to_list() == [r[0] for r in rows]


def test_no_comparisons_make_an_empty_table() -> None:
    assert tabulate_comparisons([]).schema == pl.Schema(COMPARISONS)


def test_methods_without_a_common_seed_have_no_difference() -> None:
    values = np.ones((1, 1, 4))
    other = ItemScores(ScoreName("sft", "sampled", "label_agreement"), (7,), values, values)
    row = compare(averages(values, "capo"), other)
    assert (row["difference"], row["p_value"], row["n"]) == (None, None, 0)
    frame = tabulate_comparisons([tuple(row.values())])
    assert find(frame, method_a="capo")["p_holm"] is None
