"""The evaluation as a whole: tables, pairing, refusals, and independence of what must not matter."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
import polars as pl
import pytest
from evaluation_material import (
    HABITS,
    NLI,
    QUICK,
    embed_by_letters,
    explain,
    find,
    generation,
    generations_frame,
    persona_corpus,
)

from capo_core.errors import CorpusError
from capo_core.evaluation import Evaluation, evaluate_generations
from capo_core.evaluation.exclusions import UNREADABLE
from schemas.frames import TABLES

NAMES = list(HABITS)
PLAIN = QUICK.model_copy(update={"reductions": ("none",), "classifiers": ("ngrams",)})
"""Other reductions and classifiers are the business of the tests of imitation."""

CORPUS = persona_corpus(n_train=12, n_test=8)
ITEMS = CORPUS.filter(pl.col("split") == "test")["item_id"].unique().sort().to_list()


def answers(method: str, *, skill: float = 1.0, seed: int = 1, decision: str = "sampled") -> list[dict]:
    """Return one method's generations: in the person's own manner and label with probability `skill`."""
    rng = np.random.default_rng([seed, int(skill * 100)])
    truth = {(r["item_id"], r["annotator_id"]): r["label"] for r in CORPUS.iter_rows(named=True)}
    rows = []
    for name in [None] if method == "zero_shot" else NAMES:
        for k, item in enumerate(ITEMS):
            good = name is not None and rng.random() < skill
            manner = name if good and name else str(rng.choice(NAMES))
            label = truth[item, name] if good else "neutral"
            rows.append(generation(method, name, item, label, explain(manner, 50 + k), seed=seed, decision=decision))
    return rows


def evaluate(rows: list[dict], corpus: pl.DataFrame = CORPUS, **more) -> Evaluation:
    return evaluate_generations(corpus, generations_frame(rows), NLI, PLAIN, embed_by_letters, **more)


@cache
def of_four_methods() -> Evaluation:
    """Return the evaluation that several tests look at."""
    return evaluate(four_methods())


def four_methods() -> list[dict]:
    return answers("zero_shot") + answers("history", skill=0.3) + answers("sft", skill=0.6) + answers("capo")


def test_tables_have_the_columns_of_their_schemas_and_no_row_twice() -> None:
    found = of_four_methods()
    tables = TABLES["evaluation"]
    assert found.metrics.schema == pl.Schema(tables["data.parquet"])
    for name in ("comparisons", "style_distances", "cross_attribution", "exclusions"):
        assert getattr(found, name).schema == pl.Schema(tables[f"{name}.parquet"])
    reading = ["decision", "metric", "condition", "classifier", "group_size"]
    assert not found.metrics.select("method", "annotator_id", *reading).is_duplicated().any()
    assert not found.comparisons.select("method_a", "method_b", *reading).is_duplicated().any()
    assert found.metrics["method"].unique(maintain_order=True).to_list() == [
        "human", "majority", "zero_shot", "history", "sft", "capo",
    ]  # fmt: skip


def test_every_part_of_the_evaluation_is_there() -> None:
    found = of_four_methods()
    of_sft = set(found.metrics.filter(pl.col("method") == "sft")["metric"])
    assert of_sft >= {
        "parse_rate", "label_agreement", "macro_f1", "aer", "manhattan_distance", "rouge_l", "rouge_l_specificity",
        "chrf", "embedding_similarity", "bertscore_f1", "length_ratio", "style_distance", "distinguishability",
        "longest_copied_run", "empty_rate", "attribution_accuracy", "attribution_probability",
    }  # fmt: skip
    assert set(found.style_distances["method"]) >= {"sft", "capo"}
    assert set(found.cross_attribution["method"]) == {"human", "zero_shot", "history", "sft", "capo"}
    assert found.exclusions.is_empty()


def test_every_measured_value_has_an_interval_around_it_and_its_n() -> None:
    metrics = of_four_methods().metrics
    measured = metrics.filter(pl.col("value").is_not_null())
    assert measured["ci_low"].null_count() == 0
    # Groups drawn anew per resample need not surround the accuracy of the groups drawn first; nearly all do.
    outside = measured.filter(
        (pl.col("value") < pl.col("ci_low") - 1e-6) | (pl.col("value") > pl.col("ci_high") + 1e-6)
    )
    assert outside.height <= 0.03 * measured.height
    assert (measured["n"] > 0).all()
    unmeasured = metrics.filter(pl.col("value").is_null())
    nominal = {"ordinal_distance", "ordinal_error"}
    assert set(unmeasured["metric"]) == nominal | {
        "bertscore_f1", "bertscore_specificity",  # no token encoder
        "distinguishability",  # too few items
    }  # fmt: skip
    assert (unmeasured["n"] == 0).all()


def test_unreadable_text_is_excluded_from_figures_of_text_but_not_of_decisions() -> None:
    rows = answers("sft") + answers("capo")
    for row in rows:
        if row["method"] == "sft" and row["annotator_id"] == "ben" and row["item_id"] not in ITEMS[:3]:
            row |= {"explanation": None, "parse_status": "no_explanation"}
    found = evaluate(rows)
    assert found.exclusions.filter(pl.col("rule") == UNREADABLE).rows() == [
        ("sft", "sampled", "ben", UNREADABLE, 0.375, 0.5)
    ]
    of_ben = found.metrics.filter((pl.col("method") == "sft") & (pl.col("annotator_id") == "ben"))
    values = dict(
        of_ben.filter(pl.col("group_size").is_null() | (pl.col("group_size") == 1)).select("metric", "value").rows()
    )
    for metric in ("rouge_l", "length_ratio", "style_distance", "attribution_accuracy"):
        assert values[metric] is None
    assert values["label_agreement"] == 1.0
    assert values["parse_rate"] == 0.375
    assert values["empty_rate"] == pytest.approx(0.625)
    row = find(found.comparisons, metric="rouge_l", method_a="capo", method_b="sft")
    capo = found.metrics.filter((pl.col("method") == "capo") & (pl.col("metric") == "rouge_l"))
    others = capo.filter(~pl.col("annotator_id").is_in(["all", "ben"]))["value"].mean()
    sft = find(found.metrics, method="sft", metric="rouge_l", annotator_id="all")["value"]
    assert row["difference"] == pytest.approx(others - sft)  # of the annotators both have


def test_difference_is_that_of_the_two_figures() -> None:
    found = of_four_methods()
    metrics, comparisons = found.metrics, found.comparisons
    for metric, more in (
        ("label_agreement", {}),
        ("rouge_l", {}),
        ("embedding_similarity", {}),
        ("attribution_accuracy", {"condition": "raw", "group_size": 3}),
    ):
        row = find(comparisons, method_a="capo", method_b="sft", metric=metric, **more)
        values = [find(metrics, method=m, metric=metric, annotator_id="all", **more)["value"] for m in ("capo", "sft")]
        assert row["difference"] == pytest.approx(values[0] - values[1])
        assert (row["n"], row["n_seeds"]) == (8, 1)


def test_clear_difference_is_found_and_none_is_not() -> None:
    rows = answers("history", skill=0.0) + answers("sft") + [r | {"method": "capo"} for r in answers("sft")]
    comparisons = evaluate(rows).comparisons
    for metric, more in (("label_agreement", {}), ("attribution_accuracy", {"condition": "raw", "group_size": 1})):
        better = find(comparisons, method_a="sft", method_b="history", metric=metric, **more)
        assert better["difference"] > 0.3
        assert better["ci_low"] > 0
        assert better["p_value"] < 0.05
        same = find(comparisons, method_a="capo", method_b="sft", metric=metric, **more)
        assert (same["difference"], same["ci_low"], same["ci_high"], same["p_value"]) == (0.0, 0.0, 0.0, 1.0)


def test_p_below_five_per_cent_never_goes_with_an_interval_that_holds_zero() -> None:
    rows = []
    for seed in (1, 2):
        rows += answers("history", skill=0.1, seed=seed) + answers("sft", skill=0.5, seed=seed)
        rows += answers("capo", skill=0.95, seed=seed)
    comparisons = evaluate(rows).comparisons
    judged = comparisons.drop_nulls("p_value").filter(pl.col("p_value") < 0.05)
    assert judged.height > 0
    assert ((judged["ci_low"] >= 0) | (judged["ci_high"] <= 0)).all()


def test_pairs_are_of_common_items_and_seeds() -> None:
    rows = answers("sft", seed=1) + answers("sft", seed=2) + answers("capo", seed=2) + answers("capo", seed=3)
    rows = [r for r in rows if not (r["method"] == "capo" and r["item_id"] == ITEMS[0])]
    comparisons = evaluate(rows).comparisons
    row = find(comparisons, metric="rouge_l")
    assert (row["n"], row["n_seeds"]) == (7, 1)


def test_methods_without_a_common_seed_are_not_compared() -> None:
    comparisons = evaluate(answers("sft", seed=1) + answers("capo", seed=2)).comparisons
    assert comparisons["difference"].null_count() == comparisons.height > 0
    assert (comparisons["n"] == 0).all()


def test_sampled_and_constrained_are_never_compared_with_each_other() -> None:
    comparisons = evaluate(answers("sft") + answers("capo", decision="constrained")).comparisons
    assert comparisons["method_b"].unique().to_list() == ["majority"]


def test_one_methods_figures_do_not_depend_on_the_others_present() -> None:
    alone = evaluate(answers("sft", skill=0.6)).metrics
    together = of_four_methods().metrics
    for method in ("human", "majority", "sft"):
        assert alone.filter(pl.col("method") == method).equals(together.filter(pl.col("method") == method))


def test_order_of_rows_does_not_matter() -> None:
    corpus = CORPUS.sample(fraction=1.0, shuffle=True, seed=5)
    rows = four_methods()
    shuffled = [rows[k] for k in np.random.default_rng(1).permutation(len(rows))]
    first, second = of_four_methods(), evaluate(shuffled, corpus)
    for field in fields(Evaluation):
        assert getattr(first, field.name).equals(getattr(second, field.name))


def test_progress_ends_at_the_total() -> None:
    told: list[tuple[int, int]] = []
    evaluate(answers("sft") + answers("capo"), progress=lambda n_done, n_total: told.append((n_done, n_total)))
    assert [n for n, _ in told] == list(range(1, told[-1][1] + 1))


def test_no_generations_are_refused() -> None:
    with pytest.raises(CorpusError, match="no generations"):
        evaluate([])


def test_items_of_another_corpus_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"1 items that are not in the corpus, e.g. 'elsewhere'"):
        evaluate([generation("sft", "ana", "elsewhere")])


def test_training_items_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"items of split \['train'\]"):
        evaluate([generation("sft", "ana", "i000")])


def test_items_of_two_splits_are_refused() -> None:
    corpus = persona_corpus(n_train=6, n_validation=2, n_test=2)
    with pytest.raises(CorpusError, match=r"\['test', 'validation'\]"):
        evaluate([generation("sft", "ana", item) for item in ("i006", "i008")], corpus)


def test_unknown_annotators_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"imitate \['zoe'\]"):
        evaluate([generation("sft", "zoe", ITEMS[0])])


def test_cell_answered_twice_is_refused() -> None:
    rows = [generation("sft", "ana", ITEMS[0]), generation("sft", None, ITEMS[0])]
    with pytest.raises(CorpusError, match=r"2 cells more than once.*'sft'"):
        evaluate(rows)


def test_frame_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="table generations: missing column 'label'"):
        evaluate_generations(CORPUS, generations_frame(answers("sft")).drop("label"), NLI, PLAIN, None)
