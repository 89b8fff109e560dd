"""Whether a method decides as the person does: label agreement, ordinal distance, and how much could be read.

Where the person gave an item several labels, a label agrees if it is one of them, and its distance is that to the
nearest. A response whose label cannot be read does not agree; it is counted in `parse_rate` and `label_parse_rate`,
which stand beside every agreement, and it has no ordinal distance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from capo_core.evaluation.scores import ItemScores, ScoreName
from capo_core.evaluation.targets import HeldOut, Responses
from schemas.config import OrdinalLabels, TaskSpec

OTHER_ANNOTATOR = "other_annotator"
"""Condition of the control: the other annotators' own annotations of the item, as if they had been the responses."""

LabelScore = Callable[[str, Sequence[str]], float]
"""Score of one label against the labels the person gave, NaN where there is none."""


def score_decisions(responses: Responses, held_out: HeldOut, task: TaskSpec) -> list[ItemScores]:
    """Return parse_rate, label_parse_rate, label_agreement and ordinal_distance of one method.

    parse_rate: share of responses in which label and explanation could be read. label_parse_rate: share in which the
    label could. label_agreement: share of the person's items on which the label is his; unreadable labels do not agree.
    ordinal_distance: mean |difference| / (maximum - minimum) over readable labels; not measured for nominal labels.
    """
    cell = (responses.method, responses.decision)
    readable = np.array([label is not None for label in responses.labels.flat]).reshape(responses.labels.shape)
    agreement = _score_labels(responses.labels, held_out, _agrees)
    answered = responses.present & _has_target(held_out)
    agreement = np.where(answered & ~readable, 0.0, agreement)
    distance = _score_labels(responses.labels, held_out, _distance_for(task))
    by_metric = {
        "parse_rate": np.where(responses.present, responses.parsed, np.nan),
        "label_parse_rate": np.where(responses.present, readable, np.nan),
        "label_agreement": agreement,
        "ordinal_distance": distance,
    }
    return [mean_scores(ScoreName(*cell, name), responses.seeds, values) for name, values in by_metric.items()]


def score_majority(held_out: HeldOut, task: TaskSpec) -> list[ItemScores]:
    """Return label_agreement and ordinal_distance of always giving the person's commonest (ordinal: median) label."""
    labels = np.empty((1, len(held_out.annotators), len(held_out.items)), dtype=object)
    given = held_out.train.select("annotator_id", "label").drop_nulls().partition_by("annotator_id", as_dict=True)
    for row, annotator in enumerate(held_out.annotators):
        own = given[(annotator,)]["label"].to_list() if (annotator,) in given else []
        labels[0, row, :] = majority_label(own, task)
    return _score_references(labels, held_out, task, "majority", None)


def majority_label(labels: Sequence[str], task: TaskSpec) -> str | None:
    """Return the commonest of `labels` (nominal; ties: first in the task's order), or their median (ordinal).

    The median of an even number is the lower of the two in the middle, so that it is a score somebody gave. None
    without labels.
    """
    if not labels:
        return None
    if isinstance(task.labels, OrdinalLabels):
        return str(sorted(int(label) for label in labels)[(len(labels) - 1) // 2])
    counts = Counter(labels)
    return max(task.labels.names, key=lambda name: counts[name])


def score_other_annotators(held_out: HeldOut, task: TaskSpec) -> list[ItemScores]:
    """Return label_agreement and ordinal_distance of the other annotators' labels, averaged over them per item.

    What another person's honest answer scores: to decide as *this* person does is to do better.
    """
    shape = (len(held_out.annotators), *held_out.labels.shape)
    labels = np.empty(shape, dtype=object)  # axis 0: whose labels are taken as responses
    for other in range(shape[0]):
        for target, item in np.ndindex(*shape[1:]):
            given = held_out.labels[other, item]
            labels[other, target, item] = given[0] if given and other != target else None
    return _score_references(labels, held_out, task, "human", OTHER_ANNOTATOR)


def mean_scores(name: ScoreName, seeds: tuple[int, ...], values: np.ndarray) -> ItemScores:
    """Return scores that are averaged over cells, [S, A, I], NaN where not measured."""
    measured = ~np.isnan(values)
    return ItemScores(name, seeds, np.where(measured, values, 0.0), measured.astype(float))


def mean_over_first_axis(values: np.ndarray) -> np.ndarray:
    """Return the mean of what is not NaN along axis 0, keeping that axis with one slice; NaN where nothing is."""
    present = ~np.isnan(values)
    n = present.sum(axis=0, keepdims=True)
    total = np.where(present, values, 0.0).sum(axis=0, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, total / n, np.nan)


def _score_references(
    labels: np.ndarray, held_out: HeldOut, task: TaskSpec, method: str, condition: str | None
) -> list[ItemScores]:
    """Return label_agreement and ordinal_distance of labels that no seed enters, averaged over axis 0."""
    by_metric = {"label_agreement": _agrees, "ordinal_distance": _distance_for(task)}
    return [
        mean_scores(
            ScoreName(method, None, metric, condition),
            (),
            mean_over_first_axis(_score_labels(labels, held_out, score)),
        )
        for metric, score in by_metric.items()
    ]


def _score_labels(labels: np.ndarray, held_out: HeldOut, score: LabelScore) -> np.ndarray:
    """Return the score of every label against its target, [S, A, I]; NaN where there is no label or no target."""
    scores = np.full(labels.shape, np.nan)
    for slice_, annotator, item in np.ndindex(*labels.shape):
        label, target = labels.item(slice_, annotator, item), held_out.labels.item(annotator, item)
        if label is not None and target:
            scores[slice_, annotator, item] = score(label, target)
    return scores


def _has_target(held_out: HeldOut) -> np.ndarray:
    """Return whether the annotator labelled the item, [A, I]."""
    return np.array([len(labels) > 0 for labels in held_out.labels.flat]).reshape(held_out.labels.shape)


def _agrees(label: str, target: Sequence[str]) -> float:
    return float(label in target)


def _distance_for(task: TaskSpec) -> LabelScore:
    """Return the distance to the nearest target label as a share of the scale; NaN for nominal labels."""
    if not isinstance(task.labels, OrdinalLabels):
        return lambda label, target: float("nan")
    width = task.labels.maximum - task.labels.minimum
    return lambda label, target: min(abs(int(label) - int(given)) for given in target) / width
