"""Label agreement, ordinal distance and parse rates, against arithmetic."""

from __future__ import annotations

import polars as pl
import pytest
from evaluation_material import NLI, QUICK, SCORES, corpus_frame, corpus_row, find, generation, generations_frame

from capo_core.evaluation.decision import (
    median_label,
    modal_label,
    score_decisions,
    score_majority,
    score_other_annotators,
)
from capo_core.evaluation.scores import Resampling, Scores
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from schemas.config import TaskSpec

# (item, annotator): label of the test items
NLI_LABELS = {
    ("t1", "ana"): "entailment",
    ("t2", "ana"): "neutral",
    ("t1", "ben"): "contradiction",
    ("t2", "ben"): "neutral",
}


def nli_corpus(*extra: dict) -> pl.DataFrame:
    train = [
        corpus_row(f"r{n}", name, label, "x")
        for name, labels in {"ana": "ENN", "ben": "CEC"}.items()
        for n, label in enumerate({"E": "entailment", "N": "neutral", "C": "contradiction"}[k] for k in labels)
    ]
    test = [corpus_row(item, name, label, "y", "test") for (item, name), label in NLI_LABELS.items()]
    return corpus_frame([*train, *test, *extra])


def figures(scores: list[Scores], n_items: int, annotators: tuple[str, ...] = ("ana", "ben")) -> pl.DataFrame:
    resampling = Resampling(n_items, QUICK)
    return tabulate_metrics(row for one in scores for row in metric_rows(one, annotators, resampling))


def decide(corpus: pl.DataFrame, rows: list[dict], task: TaskSpec) -> pl.DataFrame:
    generations = generations_frame(rows)
    held_out = read_held_out(corpus, generations)
    scores = [s for r in read_responses(generations, held_out) for s in score_decisions(r, held_out, task)]
    return figures(
        [*scores, *score_majority(held_out, task), *score_other_annotators(held_out, task)], len(held_out.items)
    )


def sft(labels: dict[tuple[str, str], str | None]) -> list[dict]:
    return [generation("sft", name, item, label) for (item, name), label in labels.items()]


def test_agreement_is_the_mean_over_annotators_of_their_shares() -> None:
    # ana: t1 right, t2 wrong: 1/2. ben: both right: 1. Mean 3/4.
    answers: dict[tuple[str, str], str | None] = {**NLI_LABELS, ("t2", "ana"): "entailment"}
    metrics = decide(nli_corpus(), sft(answers), NLI)
    row = find(metrics, method="sft", metric="label_agreement", annotator_id="all")
    assert (row["value"], row["n"], row["n_seeds"], row["decision"]) == (0.75, 2, 1, "sampled")
    assert find(metrics, method="sft", metric="label_agreement", annotator_id="ana")["value"] == 0.5
    assert find(metrics, method="sft", metric="label_agreement", annotator_id="ben")["value"] == 1.0


def test_unreadable_label_does_not_agree_and_is_counted_beside_it() -> None:
    answers: dict[tuple[str, str], str | None] = {**NLI_LABELS, ("t2", "ana"): None}
    metrics = decide(nli_corpus(), sft(answers), NLI)
    values = {m: find(metrics, method="sft", metric=m, annotator_id="ana")["value"] for m in metrics["metric"].unique()}
    assert values["label_agreement"] == 0.5
    assert values["label_parse_rate"] == values["parse_rate"] == 0.5


def test_label_without_explanation_is_a_readable_label_but_no_readable_response() -> None:
    rows = sft(dict(NLI_LABELS))
    rows[0] |= {"explanation": None, "parse_status": "no_explanation"}  # ana, t1
    metrics = decide(nli_corpus(), rows, NLI)
    assert find(metrics, method="sft", metric="parse_rate", annotator_id="ana")["value"] == 0.5
    assert find(metrics, method="sft", metric="label_parse_rate", annotator_id="ana")["value"] == 1.0
    assert find(metrics, method="sft", metric="label_agreement", annotator_id="ana")["value"] == 1.0


def test_any_of_several_labels_of_the_person_agrees() -> None:
    corpus = nli_corpus(corpus_row("t1", "ana", "neutral", "also", "test"))  # ana: entailment and neutral on t1
    for answer, expected in (("neutral", 1.0), ("entailment", 1.0), ("contradiction", 0.5)):
        metrics = decide(corpus, sft({**NLI_LABELS, ("t1", "ana"): answer}), NLI)
        assert find(metrics, method="sft", metric="label_agreement", annotator_id="ana")["value"] == expected


def test_item_the_person_did_not_annotate_is_no_target() -> None:
    corpus = nli_corpus().filter(~((pl.col("item_id") == "t2") & (pl.col("annotator_id") == "ana")))
    metrics = decide(corpus, sft({**NLI_LABELS, ("t2", "ana"): None}), NLI)
    row = find(metrics, method="sft", metric="label_agreement", annotator_id="ana")
    assert (row["value"], row["n"]) == (1.0, 1)
    assert find(metrics, method="sft", metric="label_parse_rate", annotator_id="ana")["value"] == 0.5


def test_zero_shot_is_held_against_each_annotator() -> None:
    # Says neutral twice: ana 1/2, ben 1/2.
    rows = [generation("zero_shot", None, item, "neutral") for item in ("t1", "t2")]
    metrics = decide(nli_corpus(), rows, NLI)
    for annotator in ("ana", "ben", "all"):
        assert find(metrics, method="zero_shot", metric="label_agreement", annotator_id=annotator)["value"] == 0.5


def test_decisions_are_kept_apart() -> None:
    rows = sft(dict(NLI_LABELS)) + [r | {"decision": "constrained", "label": "neutral"} for r in sft(dict(NLI_LABELS))]
    metrics = decide(nli_corpus(), rows, NLI).filter(pl.col("metric") == "label_agreement")
    assert find(metrics, method="sft", decision="sampled", annotator_id="all")["value"] == 1.0
    assert find(metrics, method="sft", decision="constrained", annotator_id="all")["value"] == 0.5


def test_seeds_are_averaged() -> None:
    # Seed 1 all right; seed 2 always neutral: ana 1/2, ben 1/2. Mean of 1 and 1/2.
    rows = sft(dict(NLI_LABELS)) + [r | {"seed": 2, "label": "neutral"} for r in sft(dict(NLI_LABELS))]
    row = find(decide(nli_corpus(), rows, NLI), method="sft", metric="label_agreement", annotator_id="all")
    assert (row["value"], row["n"], row["n_seeds"]) == (0.75, 2, 2)


def test_majority_floor_gives_everybody_his_commonest_training_label() -> None:
    # ana's is neutral: right on t2 only. ben's is contradiction: right on t1 only.
    metrics = decide(nli_corpus(), sft(dict(NLI_LABELS)), NLI)
    row = find(metrics, method="majority", metric="label_agreement", annotator_id="all")
    assert (row["value"], row["decision"], row["n"], row["n_seeds"]) == (0.5, None, 2, 1)


def test_ties_of_the_mode_go_to_the_first_of_the_task_and_medians_to_the_lower() -> None:
    assert modal_label(["contradiction", "neutral"], NLI) == "neutral"
    assert modal_label(["5", "-3", "5", "0"], SCORES) == "5"
    assert median_label(["-3", "5", "0", "1"], SCORES) == "0"  # -3 0 1 5: the middle two are 0 and 1
    assert median_label(["-3", "5", "5"], SCORES) == "5"
    assert modal_label([], NLI) is None
    assert median_label([], SCORES) is None


def test_nominal_labels_have_no_median() -> None:
    assert median_label(["neutral", "neutral"], NLI) is None


def test_annotator_without_training_labels_has_no_floor() -> None:
    corpus = nli_corpus().filter(~((pl.col("split") == "train") & (pl.col("annotator_id") == "ben")))
    metrics = decide(corpus, sft(dict(NLI_LABELS)), NLI)
    row = find(metrics, method="majority", metric="label_agreement", annotator_id="ben")
    assert (row["value"], row["ci_low"], row["n"], row["n_seeds"]) == (None, None, 0, 0)
    assert find(metrics, method="majority", metric="label_agreement", annotator_id="all")["value"] == 0.5


def test_other_annotators_are_the_measure_of_another_honest_answer() -> None:
    # t1: entailment against contradiction; t2: neutral twice. Each other agrees on one of two.
    metrics = decide(nli_corpus(), sft(dict(NLI_LABELS)), NLI)
    row = find(metrics, method="human", condition="other_annotator", metric="label_agreement", annotator_id="all")
    assert (row["value"], row["n"]) == (0.5, 2)


def test_ordinal_distance_is_a_share_of_the_scale_over_readable_labels() -> None:
    # Scale -5 … 5, width 10. ana: |3 - 1| / 10 = .2 on t1, unreadable on t2. ben: 0 and |-5 - 5| / 10 = 1: mean .5.
    truth = {("t1", "ana"): "1", ("t2", "ana"): "0", ("t1", "ben"): "4", ("t2", "ben"): "5"}
    rows = [corpus_row(item, name, label, "y", "test") for (item, name), label in truth.items()]
    rows += [corpus_row("r1", name, "2", "x") for name in ("ana", "ben")]
    answers = {("t1", "ana"): "3", ("t2", "ana"): None, ("t1", "ben"): "4", ("t2", "ben"): "-5"}
    metrics = decide(corpus_frame(rows), sft(answers), SCORES)
    ana = find(metrics, method="sft", metric="ordinal_distance", annotator_id="ana")
    assert (ana["value"], ana["n"]) == (pytest.approx(0.2), 1)
    assert find(metrics, method="sft", metric="ordinal_distance", annotator_id="all")["value"] == pytest.approx(0.35)
    # Floor: 2 for everybody. ana: (.1 + .2) / 2 = .15; ben: (.2 + .3) / 2 = .25; mean .2.
    floor = find(metrics, method="majority", metric="ordinal_distance", annotator_id="all")
    assert floor["value"] == pytest.approx(0.2)


def test_ordinal_distance_of_nominal_labels_is_not_measured() -> None:
    row = find(
        decide(nli_corpus(), sft(dict(NLI_LABELS)), NLI), method="sft", metric="ordinal_distance", annotator_id="all"
    )
    assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == (None, None, None, 0)


def test_ordinal_floor_is_the_mode_for_agreement_and_the_median_for_distance() -> None:
    # Both trained on 5, 5, -5, -4, -3 (sorted -5 -4 -3 5 5): mode 5, median -3. Test labels: 5 and -3 for everybody.
    train = [
        corpus_row(f"r{n}", name, k, "x") for name in ("ana", "ben") for n, k in enumerate(["5", "5", "-5", "-4", "-3"])
    ]
    test = [corpus_row(item, name, k, "y", "test") for item, k in (("t", "5"), ("u", "-3")) for name in ("ana", "ben")]
    rows = [generation("sft", "ana", "t", "0"), generation("sft", "ana", "u", "0")]
    metrics = decide(corpus_frame([*train, *test]), rows, SCORES).filter(pl.col("method") == "majority")
    # 5 is right on t. The median is 8 off on t and right on u: 4 of 10 (5 would be as far on u: 8, also 4).
    assert find(metrics, metric="label_agreement", annotator_id="all")["value"] == 0.5
    assert find(metrics, metric="ordinal_error", annotator_id="all")["value"] == 4.0
    assert find(metrics, metric="ordinal_distance", annotator_id="all")["value"] == pytest.approx(0.4)
    # Classes given: 5 (F1 = 2·1 / (2·1 + 1) = 2/3) and -3 (never answered: 0). Mean 1/3.
    assert find(metrics, metric="macro_f1", annotator_id="all")["value"] == pytest.approx(1 / 3)


def test_ordinal_floor_by_the_median_is_no_farther_than_by_the_mode() -> None:
    # Trained on 5, 5, -5, -4, -3; the test labels are the same again: mean |.| to -3 is (8+8+2+1+0)/5 = 3.8, to 5 it
    # would be (0+0+10+9+8)/5 = 5.4.
    given = ["5", "5", "-5", "-4", "-3"]
    train = [corpus_row(f"r{n}", name, k, "x") for name in ("ana", "ben") for n, k in enumerate(given)]
    test = [corpus_row(f"t{n}", name, k, "y", "test") for name in ("ana", "ben") for n, k in enumerate(given)]
    rows = [generation("sft", "ana", f"t{n}", "0") for n in range(5)]
    metrics = decide(corpus_frame([*train, *test]), rows, SCORES)
    assert find(metrics, method="majority", metric="ordinal_error", annotator_id="all")["value"] == pytest.approx(3.8)


def test_ordinal_error_is_in_label_units() -> None:
    truth = [corpus_row("t", name, "1", "y", "test") for name in ("ana", "ben")]
    train = [corpus_row("r", name, "2", "x") for name in ("ana", "ben")]
    metrics = decide(corpus_frame([*truth, *train]), [generation("sft", "ana", "t", "-3")], SCORES)
    assert find(metrics, method="sft", metric="ordinal_error", annotator_id="ana")["value"] == 4.0
    assert find(metrics, method="sft", metric="ordinal_error", annotator_id="ben")["value"] is None


def test_macro_f1_of_others_leaves_the_person_out() -> None:
    # ana E, N; ben C, N. For ana, ben's C misses E and his N is right: F1 0 and 1 over {E, N}. So for ben. Mean 1/2.
    metrics = decide(nli_corpus(), sft(dict(NLI_LABELS)), NLI)
    row = find(metrics, method="human", condition="other_annotator", metric="macro_f1", annotator_id="all")
    assert (row["value"], row["n"], row["n_seeds"]) == (0.5, 2, 1)


@pytest.mark.parametrize("decision", ["sampled", "greedy", "constrained"])
def test_every_way_of_deciding_has_every_figure(decision: str) -> None:
    rows = [row | {"decision": decision} for row in sft(dict(NLI_LABELS))]
    metrics = decide(nli_corpus(), rows, NLI).filter((pl.col("method") == "sft") & (pl.col("annotator_id") == "all"))
    values = dict(metrics.filter(pl.col("decision") == decision).select("metric", "value").iter_rows())
    assert values == {
        "parse_rate": 1.0,
        "label_parse_rate": 1.0,
        "label_agreement": 1.0,
        "macro_f1": 1.0,
        "ordinal_distance": None,
        "ordinal_error": None,
    }
