"""The metrics of LeWiDi-2025: does a method decide as each person, and do all its persons together disagree alike.

Learning with Disagreements, third edition (Leonardelli et al. 2025, arXiv 2510.08460), with the definitions of the
task's evaluation script. Two tasks:

- *perspectivist*: each annotator's label. Average error rate (AER) for nominal labels, average normalised absolute
  distance (ANAD) for ordinal ones;
- *soft label*: the distribution of labels over an item's annotators. Average Manhattan distance for nominal labels,
  average Wasserstein distance for ordinal ones.

All are distances: 0 is best. The functions on arrays are the published ones; the scores put them on our targets.

ANAD's divisor: the script's own comment says the range of the scale (Paraphrase, -5 to 5: 10), its code divides by
the number of scores (11). Both are given, named by divisor: `anad_10`, `anad_11`.

Deviation: the script averages over an item's annotators, then over items; the scores here average over an annotator's
items, then over annotators, as every figure of capo. The two are one where everybody annotated every item. A method
predicts one label; where the person gave several, the distance of ordinal labels is that to the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capo_core.errors import CorpusError
from capo_core.evaluation.class_scores import indicate_labels
from capo_core.evaluation.decision import (
    OTHER_ANNOTATOR,
    constant_labels,
    median_label,
    modal_label,
    other_annotators_labels,
    score_errors,
)
from capo_core.evaluation.scores import ItemScores, ScoreName, mean_over_first_axis, mean_scores
from capo_core.evaluation.targets import HeldOut, Responses
from schemas.config import OrdinalLabels, TaskSpec

TRAINING_DISTRIBUTION = "training_distribution"
"""Condition of the second floor of soft labels: the mean soft label of the training items, given to every item."""


def average_error_rate(targets: Sequence[np.ndarray], predictions: Sequence[np.ndarray]) -> float:
    """Return AER, the mean over items of the mean |target - prediction| over the item's annotators and labels.

    Hamming distance of vectors of zeros and ones (`error_rate` and, per item, `multilabel_error_rate` of the script)::

        AER = 1/I Σ_i 1/(A_i L) Σ_al |t_ial - p_ial|

    Args:
        targets: per item an array of zeros and ones, [A_i] for two labels coded 0 and 1, [A_i, L] for indicators of
            L labels; A_i may differ.
        predictions: the same shapes.

    Returns:
        AER in [0, 1]; NaN without items.

    Raises:
        CorpusError: if the shapes differ, or an item has no annotator.
    """
    return _mean_absolute_difference(targets, predictions)


def average_normalised_absolute_distance(
    targets: Sequence[np.ndarray], predictions: Sequence[np.ndarray], divisor: float
) -> float:
    """Return ANAD, the mean over items of the mean |target - prediction| over the item's annotators, over `divisor`.

    `mean_absolute_distance` of the script::

        ANAD = 1/I Σ_i 1/A_i Σ_a |t_ia - p_ia| / divisor

    Args:
        targets: per item an array [A_i] of scores.
        predictions: the same shapes.
        divisor: range of the scale, or number of scores; positive.

    Raises:
        CorpusError: if the shapes differ, or an item has no annotator.
    """
    return _mean_absolute_difference(targets, predictions) / divisor


def average_manhattan_distance(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean over items of the Manhattan distance Σ_k |t_ik - p_ik| of soft labels.

    Args:
        targets: [I, K] distributions over K labels (`average_MD` of the script), or [I, L, 2] with each label's
            (not given, given), averaged over the L labels of an item (`multilabel_average_MD`).
        predictions: the same shape.

    Returns:
        In [0, 2]; NaN without items.

    Raises:
        CorpusError: if the shapes differ.
    """
    return _mean_over_items(manhattan_distances(*_same_shape(targets, predictions)))


def average_wasserstein_distance(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean over items of the Wasserstein-1 distance of distributions over neighbouring scores.

    Optimal transport with cost |j - k| between the j-th and the k-th score (`average_WS` of the script); in one
    dimension that is the area between the cumulative distributions (Vallender 1974): Σ_k |T_ik - P_ik|.

    Args:
        targets: [I, K] distributions over K ascending scores one apart.
        predictions: the same shape.

    Returns:
        In score units, [0, K - 1]; NaN without items.

    Raises:
        CorpusError: if the shapes differ.
    """
    return _mean_over_items(wasserstein_distances(*_same_shape(targets, predictions)))


def manhattan_distances(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return each item's Manhattan distance, [I]: of distributions [I, K], or [I, L, 2] averaged over labels."""
    distances = np.abs(targets - predictions).sum(axis=-1)
    return distances if distances.ndim == 1 else distances.mean(axis=tuple(range(1, distances.ndim)))


def wasserstein_distances(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return each item's Wasserstein-1 distance of distributions [I, K] over scores one apart, [I]."""
    return np.abs(np.cumsum(targets - predictions, axis=-1)).sum(axis=-1)


def make_soft_labels(cells: np.ndarray, task: TaskSpec) -> np.ndarray:
    """Return the soft label of every item, made from the labels of its annotators.

    One label per annotator: the share of annotators who gave each label, a distribution. Several allowed
    (`multiple_labels`): for each label the shares (of those who did not give it, of those who did), as in LeWiDi's
    VariErr NLI. Where an annotator gave several labels to a task that allows one, each takes an equal part of his
    weight.

    Args:
        cells: [A, I] of a label, a sequence of labels, or None; annotators without a label do not enter.
        task: which labels there are.

    Returns:
        [I, L], or [I, L, 2] with multiple labels; NaN for items without a label.
    """
    given = indicate_labels(cells, task.labels.names).astype(float)
    n_given = given.sum(axis=2, keepdims=True)
    if not task.multiple_labels:
        given = given / np.maximum(n_given, 1)
    n_annotators = (n_given > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(n_annotators > 0, given.sum(axis=0) / n_annotators, np.nan)
    return np.stack([1.0 - shares, shares], axis=-1) if task.multiple_labels else shares


def score_soft_labels(responses: Responses, held_out: HeldOut, task: TaskSpec) -> list[ItemScores]:
    """Return the LeWiDi metrics of one method: aer and manhattan_distance, or anad_… and wasserstein_distance.

    Perspectivist, per annotator, over readable labels. aer: with `multiple_labels` the Hamming distance of the
    indicators of all labels, else the share of wrong labels; for two labels the two are one. anad_<divisor>: for the
    range of the scale and the number of its scores.

    Soft label, per item: the predicted one is made from the labels of *all* annotators' models, held against the
    people's. It is one figure of the method, not of an annotator: every annotator carries it, so that the mean over
    annotators is it. Labels that cannot be read are left out of it (label_parse_rate counts them), an item without a
    readable label is not measured. Responses that imitate nobody give every annotator one label: no disagreement.
    """
    cell = (responses.method, responses.decision)
    scores = _score_perspectives(cell, None, responses.seeds, responses.labels, held_out, task)
    predicted = np.stack([make_soft_labels(labels, task) for labels in responses.labels])
    return [*scores, _score_distributions(cell, None, responses.seeds, predicted, held_out, task)]


def score_soft_label_references(held_out: HeldOut, task: TaskSpec) -> list[ItemScores]:
    """Return the LeWiDi metrics of what needs no model.

    Method majority: everybody's own commonest (ordinal: median) training label on every item, and the soft label these
    make. Its condition training_distribution: the mean soft label of the training items, given to every item: what is
    known without reading. Method human, condition other_annotator: the other annotators' labels, averaged over them.
    """
    chosen = constant_labels(held_out, task, median_label if _is_ordinal(task) else modal_label)
    majority, training = ("majority", None), _training_distribution(held_out, task)
    others = other_annotators_labels(held_out)
    constant = np.broadcast_to(training, (1, len(held_out.items), *training.shape))
    return [
        *_score_perspectives(majority, None, (), chosen, held_out, task),
        *_score_perspectives(("human", None), OTHER_ANNOTATOR, (), others, held_out, task),
        _score_distributions(majority, None, (), make_soft_labels(chosen[0], task)[None], held_out, task),
        _score_distributions(majority, TRAINING_DISTRIBUTION, (), constant, held_out, task),
    ]


def _score_perspectives(
    cell: tuple[str, str | None],
    condition: str | None,
    seeds: tuple[int, ...],
    labels: np.ndarray,
    held_out: HeldOut,
    task: TaskSpec,
) -> list[ItemScores]:
    """Return AER or both ANAD of labels [S, A, I]; slices no seed stands for are averaged."""
    if isinstance(task.labels, OrdinalLabels):
        width = task.labels.maximum - task.labels.minimum
        distances = score_errors(labels, held_out, task)
        by_metric = {f"anad_{divisor}": distances / divisor for divisor in (width, width + 1)}
    else:
        by_metric = {"aer": _error_rates(labels, held_out, task)}
    return [
        mean_scores(ScoreName(*cell, metric, condition), seeds, values if seeds else mean_over_first_axis(values))
        for metric, values in by_metric.items()
    ]


def _score_distributions(
    cell: tuple[str, str | None],
    condition: str | None,
    seeds: tuple[int, ...],
    predicted: np.ndarray,
    held_out: HeldOut,
    task: TaskSpec,
) -> ItemScores:
    """Return the distance of soft labels [S, I, …] to the people's, the same for every annotator."""
    people = make_soft_labels(held_out.labels, task)
    distances_of = wasserstein_distances if _is_ordinal(task) else manhattan_distances
    distances = np.stack([distances_of(people, one) for one in predicted])
    shape = (len(distances), len(held_out.annotators), len(held_out.items))
    metric = "wasserstein_distance" if _is_ordinal(task) else "manhattan_distance"
    return mean_scores(ScoreName(*cell, metric, condition), seeds, np.broadcast_to(distances[:, None], shape))


def _error_rates(labels: np.ndarray, held_out: HeldOut, task: TaskSpec) -> np.ndarray:
    """Return the error of every label, [S, A, I]; NaN where there is no label or no target."""
    answers, targets = (indicate_labels(cells, task.labels.names) for cells in (labels, held_out.labels))
    given = answers.any(axis=-1) & targets.any(axis=-1)
    hamming, wrong = (answers != targets).mean(axis=-1), ~(answers & targets).any(axis=-1)
    return np.where(given, hamming if task.multiple_labels else wrong, np.nan)


def _training_distribution(held_out: HeldOut, task: TaskSpec) -> np.ndarray:
    """Return the mean soft label of the training items, [L] or [L, 2]; NaN without labels."""
    given = held_out.train.select("annotator_id", "item_id", "label").drop_nulls().unique().sort("item_id")
    items = {item: i for i, item in enumerate(given["item_id"].unique(maintain_order=True))}
    rows = {name: i for i, name in enumerate(held_out.annotators)}
    cells = np.empty((len(rows), len(items)), dtype=object)
    for annotator, item, label in given.iter_rows():
        cell = rows[annotator], items[item]
        cells[cell] = (*(cells[cell] or ()), label)
    if not items:
        return np.full_like(make_soft_labels(np.empty((1, 1), dtype=object), task)[0], np.nan)
    return make_soft_labels(cells, task).mean(axis=0)


def _is_ordinal(task: TaskSpec) -> bool:
    return isinstance(task.labels, OrdinalLabels)


def _mean_absolute_difference(targets: Sequence[np.ndarray], predictions: Sequence[np.ndarray]) -> float:
    """Return the mean over items of the mean |target - prediction| within the item."""
    if len(targets) != len(predictions):
        raise CorpusError(f"{len(targets)} targets but {len(predictions)} predictions; give one per item")
    differences = []
    for number, pair in enumerate(zip(targets, predictions, strict=True)):
        target, prediction = (np.asarray(values, dtype=float) for values in pair)
        if target.shape != prediction.shape or target.size == 0:
            raise CorpusError(
                f"item {number}: targets of shape {target.shape}, predictions of {prediction.shape}; give each of the "
                "item's annotators, of whom there is at least one, a target and a prediction"
            )
        differences.append(np.abs(target - prediction).mean())
    return float(np.mean(differences)) if differences else float("nan")


def _same_shape(targets: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays of numbers, checked to be soft labels of the same items."""
    pair = np.asarray(targets, dtype=float), np.asarray(predictions, dtype=float)
    if pair[0].shape != pair[1].shape:
        raise CorpusError(f"target soft labels have shape {pair[0].shape}, predicted ones {pair[1].shape}")
    return pair


def _mean_over_items(distances: np.ndarray) -> float:
    return float(distances.mean()) if distances.size else float("nan")
