"""The LeWiDi-2025 metrics against examples by hand, against scipy, and on the Paraphrase data against plain loops."""

from __future__ import annotations

import json
import statistics

import numpy as np
import polars as pl
import pytest
from evaluation_material import NLI, QUICK, SCORES, corpus_frame, corpus_row, find, generation, generations_frame
from real_data import PARAPHRASE_FILE, paraphrase_corpus, real_file
from scipy.stats import wasserstein_distance

from capo_core.errors import CorpusError
from capo_core.evaluation.scores import Resampling
from capo_core.evaluation.soft_labels import (
    average_error_rate,
    average_manhattan_distance,
    average_normalised_absolute_distance,
    average_wasserstein_distance,
    make_soft_labels,
    score_soft_label_references,
    score_soft_labels,
)
from capo_core.evaluation.tables import metric_rows, tabulate_metrics
from capo_core.evaluation.targets import read_held_out, read_responses
from schemas.config import NominalLabels, TaskSpec

ONE_LABEL = NLI.model_copy(update={"multiple_labels": False})
BINARY = ONE_LABEL.model_copy(update={"labels": NominalLabels(names=("no", "yes"))})
SCALE = range(-5, 6)


def labelled(rows: dict[str, dict[str, str]], split: str = "test") -> list[dict]:
    """Return corpus rows of {item: {annotator: labels, several joined by +}}."""
    return [
        corpus_row(item, name, label, "y", split)
        for item, given in rows.items()
        for name, labels in given.items()
        for label in labels.split("+")
    ]


def decide(corpus: list[dict], rows: list[dict], task: TaskSpec) -> pl.DataFrame:
    generations = generations_frame(rows)
    held_out = read_held_out(corpus_frame(corpus), generations)
    scores = [s for r in read_responses(generations, held_out) for s in score_soft_labels(r, held_out, task)]
    scores += score_soft_label_references(held_out, task)
    resampling = Resampling(len(held_out.items), QUICK)
    return tabulate_metrics(row for one in scores for row in metric_rows(one, held_out.annotators, resampling))


def cells(*rows: tuple) -> np.ndarray:
    """Return labels by annotator and item as an array of objects."""
    array = np.empty((len(rows), len(rows[0])), dtype=object)
    for annotator, item in np.ndindex(*array.shape):
        array[annotator, item] = rows[annotator][item]
    return array


def test_error_rate_of_binary_labels_by_hand() -> None:
    # Item 1: one of two annotators wrong, 1/2. Item 2: none of three. Item 3: the only one, 1. Mean 1/2.
    targets = [np.array([0, 1]), np.array([1, 1, 0]), np.array([1])]
    predictions = [np.array([1, 1]), np.array([1, 1, 0]), np.array([0])]
    assert average_error_rate(targets, predictions) == pytest.approx(0.5)


def test_error_rate_of_several_labels_is_the_hamming_distance() -> None:
    # Entailment for {entailment, neutral}: one of three bits wrong. Contradiction for neutral: two of three.
    targets = [np.array([[1, 1, 0], [0, 1, 0]])]
    predictions = [np.array([[1, 0, 0], [0, 0, 1]])]
    assert average_error_rate(targets, predictions) == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_absolute_distance_by_hand_with_both_divisors() -> None:
    # The first Paraphrase item, -3 -4 0 -4, against -4 for all: (1 + 0 + 4 + 0) / 4 = 1.25. A second item, 5 against
    # -5: 10. Mean 5.625.
    targets = [np.array([-3, -4, 0, -4]), np.array([5])]
    predictions = [np.array([-4, -4, -4, -4]), np.array([-5])]
    assert average_normalised_absolute_distance(targets, predictions, 10) == pytest.approx(0.5625)
    assert average_normalised_absolute_distance(targets, predictions, 11) == pytest.approx(5.625 / 11)


def test_manhattan_distance_by_hand() -> None:
    # |.5 - 1| + |.5 - 0| = 1 and 0: mean .5.
    assert average_manhattan_distance(np.array([[0.5, 0.5], [0, 1]]), np.array([[1, 0], [0, 1]])) == pytest.approx(0.5)


def test_manhattan_distance_of_several_labels_averages_over_them() -> None:
    # Contradiction (.5, .5) against (1, 0): 1. Entailment (.5, .5) against (.5, .5): 0. Neutral (1, 0) against
    # (.25, .75): 1.5. Mean 2.5 / 3.
    target = np.array([[[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]])
    prediction = np.array([[[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]])
    assert average_manhattan_distance(target, prediction) == pytest.approx(2.5 / 3)


def test_wasserstein_distance_by_hand() -> None:
    # Half at 0 and half at 2, all moved to 1: half a unit each way, 1. All at 0 moved to 2: 2. Mean 1.5.
    targets, predictions = np.array([[0.5, 0, 0.5], [1, 0, 0]]), np.array([[0, 1, 0], [0, 0, 1]])
    assert average_wasserstein_distance(targets, predictions) == pytest.approx(1.5)


def test_wasserstein_distance_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.dirichlet(np.ones(11), 20), rng.dirichlet(np.full(11, 0.3), 20)
    expected = [wasserstein_distance(SCALE, SCALE, t, p) for t, p in zip(targets, predictions, strict=True)]
    assert average_wasserstein_distance(targets, predictions) == pytest.approx(np.mean(expected), abs=1e-12)


def test_no_items_is_no_figure() -> None:
    assert np.isnan(average_error_rate([], []))
    assert np.isnan(average_manhattan_distance(np.zeros((0, 3)), np.zeros((0, 3))))
    assert np.isnan(average_wasserstein_distance(np.zeros((0, 3)), np.zeros((0, 3))))


def test_targets_and_predictions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CorpusError, match="2 targets but 1 predictions"):
        average_error_rate([np.ones(1), np.ones(1)], [np.ones(1)])
    with pytest.raises(CorpusError, match=r"item 1: targets of shape \(2,\), predictions of \(1,\)"):
        average_error_rate([np.ones(1), np.ones(2)], [np.ones(1), np.ones(1)])
    with pytest.raises(CorpusError, match=r"\(1, 2\), predicted ones \(1, 3\)"):
        average_manhattan_distance(np.zeros((1, 2)), np.zeros((1, 3)))


def test_soft_label_is_the_share_of_annotators() -> None:
    # Four annotators, one of whom did not answer item 2.
    labels = cells(("entailment", "neutral"), ("neutral", "neutral"), ("neutral", None), ("contradiction", "neutral"))
    assert make_soft_labels(labels, ONE_LABEL).tolist() == [[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]]


def test_soft_label_of_several_labels_has_each_labels_share() -> None:
    # Two annotators, the first gave two labels: entailment 1/2, neutral 2/2, contradiction 0.
    labels = cells((("entailment", "neutral"),), (("neutral",),))
    assert make_soft_labels(labels, NLI).tolist() == [[[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]]
    # Where the task allows one, the two halve the annotator's weight.
    assert make_soft_labels(labels, ONE_LABEL).tolist() == [[0.25, 0.75, 0.0]]


def test_item_without_labels_has_no_soft_label() -> None:
    assert np.isnan(make_soft_labels(cells((None,), ((),)), NLI)).all()


PEOPLE = {
    "t": {"ana": "entailment", "ben": "entailment+neutral"},
    "u": {"ana": "neutral", "ben": "contradiction"},
}
TRAINING = labelled(
    {"r": {"ana": "neutral", "ben": "neutral"}, "q": {"ana": "neutral", "ben": "contradiction"}}, split="train"
)


def sft(answers: dict[tuple[str, str], str | None]) -> list[dict]:
    return [generation("sft", name, item, label) for (name, item), label in answers.items()]


def test_scores_of_several_labels_by_hand() -> None:
    answers: dict[tuple[str, str], str | None] = {
        ("ana", "t"): "neutral",
        ("ben", "t"): "neutral",
        ("ana", "u"): "neutral",
        ("ben", "u"): None,
    }
    metrics = decide([*labelled(PEOPLE), *TRAINING], sft(answers), NLI)
    # ana: neutral for entailment, 2 of 3 bits; right on u: mean 1/3. ben: neutral for {E, N}: 1 of 3; u unreadable.
    assert find(metrics, method="sft", metric="aer", annotator_id="ana")["value"] == pytest.approx(1 / 3)
    ben = find(metrics, method="sft", metric="aer", annotator_id="ben")
    assert (ben["value"], ben["n"]) == (pytest.approx(1 / 3), 1)
    # People t: E 1, N .5, C 0; models: N 1: |1| + |-.5| + 0 = 1.5, twice over (yes and no) and a third: 1.
    # People u: N .5, C .5; models (ana's alone): N 1: (.5 + .5) · 2 / 3 = 2/3. Mean 5/6, for everybody.
    for annotator in ("all", "ana", "ben"):
        row = find(metrics, method="sft", metric="manhattan_distance", annotator_id=annotator)
        assert (row["value"], row["n"]) == (pytest.approx(5 / 6), 2)


def test_floors_and_control_by_hand() -> None:
    metrics = decide([*labelled(PEOPLE), *TRAINING], sft({("ana", "t"): "neutral", ("ana", "u"): "neutral"}), NLI)
    # Commonest training labels: ana neutral; ben neutral and contradiction once each, the first of the task: neutral.
    # ana: 2/3 on t, 0 on u. ben: 1/3 on t, 2/3 on u. Means 1/3 and 1/2, mean 5/12.
    assert find(metrics, method="majority", metric="aer", annotator_id="all")["value"] == pytest.approx(5 / 12)
    # All neutral: t 1, u (.5 + .5) · 2/3 = 2/3: 5/6.
    floor = find(metrics, method="majority", metric="manhattan_distance", annotator_id="all", condition=None)
    assert floor["value"] == pytest.approx(5 / 6)
    # Training: r N 1; q N .5, C .5: mean N .75, C .25. t: (1 + .25 + .25) · 2/3 = 1; u: (.25 + .25) · 2/3 = 1/3.
    row = find(metrics, method="majority", condition="training_distribution", annotator_id="all")
    assert (row["metric"], row["value"]) == ("manhattan_distance", pytest.approx(2 / 3))
    # The other's label: for ana entailment (0) and contradiction (2/3); for ben entailment (1/3) and neutral (2/3).
    control = find(metrics, method="human", condition="other_annotator", metric="aer", annotator_id="all")
    assert control["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_single_nominal_labels_err_wholly_and_soft_labels_are_distributions() -> None:
    people = {"t": {"ana": "entailment", "ben": "neutral"}}
    metrics = decide([*labelled(people), *TRAINING], sft({("ana", "t"): "neutral", ("ben", "t"): "neutral"}), ONE_LABEL)
    assert find(metrics, method="sft", metric="aer", annotator_id="all")["value"] == 0.5
    assert find(metrics, method="sft", metric="manhattan_distance", annotator_id="all")["value"] == 1.0  # |.5| + |.5|


def test_two_labels_score_alike_whether_one_or_several_are_allowed() -> None:
    people = {"t": {"ana": "no", "ben": "yes"}, "u": {"ana": "no", "ben": "no"}}
    train = labelled({"r": {"ana": "no", "ben": "no"}}, "train")
    answers = sft({("ana", "t"): "yes", ("ben", "t"): "yes", ("ana", "u"): "no", ("ben", "u"): "yes"})
    single = decide([*labelled(people), *train], answers, BINARY)
    several = decide([*labelled(people), *train], answers, BINARY.model_copy(update={"multiple_labels": True}))
    assert single["value"].to_list() == pytest.approx(several["value"].to_list())
    assert find(single, method="sft", metric="aer", annotator_id="all")["value"] == 0.5


def test_item_no_model_answered_readably_is_not_measured() -> None:
    answers: dict[tuple[str, str], str | None] = {("ana", "t"): None, ("ben", "t"): None, ("ana", "u"): "neutral"}
    metrics = decide([*labelled(PEOPLE), *TRAINING], sft(answers), NLI)
    assert find(metrics, method="sft", metric="manhattan_distance", annotator_id="all")["n"] == 1


def test_ordinal_scores_by_hand() -> None:
    people = {"t": {"ana": "3", "ben": "-1"}}
    train = labelled({"r": {"ana": "3", "ben": "0"}, "q": {"ana": "5", "ben": "0"}}, split="train")
    answers = sft({("ana", "t"): "1", ("ben", "t"): "1"})
    metrics = decide([*labelled(people), *train], answers, SCORES)
    # Both 2 off. People half at 3 and half at -1, models all at 1: half · 2 + half · 2 = 2.
    assert find(metrics, method="sft", metric="anad_10", annotator_id="all")["value"] == pytest.approx(0.2)
    assert find(metrics, method="sft", metric="anad_11", annotator_id="all")["value"] == pytest.approx(2 / 11)
    assert find(metrics, method="sft", metric="wasserstein_distance", annotator_id="all")["value"] == pytest.approx(2)
    # Medians: ana 3 (the lower of 3 and 5), ben 0. Errors 0 and 1; -1, 3 against 0, 3: half · 1.
    floor = metrics.filter((pl.col("method") == "majority") & pl.col("condition").is_null())
    assert find(floor, metric="anad_10", annotator_id="ben")["value"] == pytest.approx(0.1)
    assert find(floor, metric="wasserstein_distance", annotator_id="all")["value"] == pytest.approx(0.5)


def test_without_training_labels_there_is_no_floor() -> None:
    metrics = decide(labelled(PEOPLE), sft({("ana", "t"): "neutral"}), NLI)
    assert metrics.filter(pl.col("method") == "majority")["value"].null_count() == 9  # 3 figures: all, ana, ben


@pytest.mark.parametrize("kind", ["median", "mode"])
def test_constant_predictor_on_paraphrase_equals_plain_loops(kind: str) -> None:
    records = list(json.loads(real_file(PARAPHRASE_FILE).read_text(encoding="utf-8")).values())
    given = [[int(label) for label in record["annotations"].values()] for record in records]
    everything = [label for labels in given for label in labels]
    constant = statistics.median_low(everything) if kind == "median" else statistics.mode(everything)
    # Plainly: mean over items of the mean distance of its labels to the constant; moving them all there costs the same
    # as moving the soft label, mass by mass.
    absolute = sum(sum(abs(label - constant) for label in labels) / len(labels) for labels in given) / len(given)
    moved = 0.0
    for record in records:
        moved += sum(share * abs(int(score) - constant) for score, share in record["soft_label"].items()) / len(records)

    targets = [np.array(labels) for labels in given]
    predictions = [np.full(len(labels), constant) for labels in given]
    for divisor in (10, 11):
        ours = average_normalised_absolute_distance(targets, predictions, divisor)
        assert ours == pytest.approx(absolute / divisor, abs=1e-9)
    soft = np.array([[record["soft_label"][str(score)] for score in SCALE] for record in records])
    guess = np.tile([float(score == constant) for score in SCALE], (len(soft), 1))
    assert average_wasserstein_distance(soft, guess) == pytest.approx(moved, abs=1e-9)

    # The same by way of capo's own reading of the file, with a model that always says the constant.
    corpus = paraphrase_corpus().with_columns(split=pl.lit("test"))
    rows = [generation("zero_shot", None, item, str(constant)) for item in corpus["item_id"].unique().sort()]
    metrics = decide(corpus.to_dicts(), rows, SCORES).filter(pl.col("annotator_id") == "all")
    for metric, expected in (
        ("anad_10", absolute / 10),
        ("anad_11", absolute / 11),
        ("wasserstein_distance", moved),
    ):
        row = find(metrics, method="zero_shot", metric=metric)
        assert (row["value"], row["n"]) == (pytest.approx(expected, abs=1e-9), len(records))


def test_soft_labels_of_paraphrase_are_the_published_ones() -> None:
    published = {}
    for record in json.loads(real_file(PARAPHRASE_FILE).read_text(encoding="utf-8")).values():
        text = (record["text"]["Question1"].strip(), record["text"]["Question2"].strip())
        published[text] = [record["soft_label"][str(score)] for score in SCALE]
    annotations = paraphrase_corpus()
    items = annotations.unique("item_id").sort("item_id")
    people = annotations.pivot("item_id", index="annotator_id", values="label").sort("annotator_id")
    labels = cells(*people.select(items["item_id"].to_list()).rows())
    texts = [(a.strip(), b.strip()) for a, b in items.select("text_a", "text_b").iter_rows()]
    assert make_soft_labels(labels, SCORES) == pytest.approx(np.array([published[text] for text in texts]), abs=1e-6)
