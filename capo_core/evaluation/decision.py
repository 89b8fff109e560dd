"""Whether a method decides as the person does: label agreement, macro-F1, ordinal distance, and how much was readable.

Where the person gave an item several labels, a label agrees if it is one of them, and its distance is that to the
nearest. A response whose label cannot be read does not agree; it is counted in `parse_rate` and `label_parse_rate`,
which stand beside every agreement, and it has no ordinal distance.

The floor (method `majority`) is what knowing the person's training labels alone gives, and for every figure it is the
constant that does best by that figure: the person's commonest label (mode) for label_agreement and macro_f1, the
median for the distances of ordinal labels (the median minimises the mean absolute difference, the mode the share of
misses).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from capo_core.evaluation.class_scores import MacroF1Scores, indicate_labels
from capo_core.evaluation.scores import ScoreName, Scores, mean_over_first_axis, mean_scores
from capo_core.evaluation.targets import HeldOut, Responses
from schemas.config import OrdinalLabels, TaskSpec

OTHER_ANNOTATOR = "other_annotator"
"""Condition of the control: the other annotators' own annotations of the item, as if they had been the responses."""

LabelScore = Callable[[str, Sequence[str]], float]
"""Score of one label against the labels the person gave, NaN where there is none."""


def score_decisions(responses: Responses, held_out: HeldOut, task: TaskSpec) -> list[Scores]:
    """Return parse_rate, label_parse_rate, label_agreement, macro_f1 and the ordinal distances of one method.

    parse_rate: share of responses in which label and explanation could be read. label_parse_rate: share in which the
    label could. label_agreement: share of the person's items on which the label is his; unreadable labels do not agree.
    macro_f1: `class_scores`. ordinal_error: mean |difference| in label units over readable labels; ordinal_distance:
    the same as a share of the scale, / (maximum - minimum); neither is measured for nominal labels.
    """
    cell = (responses.method, responses.decision)
    readable = np.array([label is not None for label in responses.labels.flat]).reshape(responses.labels.shape)
    agreement = _score_labels(responses.labels, held_out, _agrees)
    answered = responses.present & _has_target(held_out)
    agreement = np.where(answered & ~readable, 0.0, agreement)
    error = score_errors(responses.labels, held_out, task)
    by_metric = {
        "parse_rate": np.where(responses.present, responses.parsed, np.nan),
        "label_parse_rate": np.where(responses.present, readable, np.nan),
        "label_agreement": agreement,
        "ordinal_distance": error / _scale_width(task),
        "ordinal_error": error,
    }
    means = [mean_scores(ScoreName(*cell, name), responses.seeds, values) for name, values in by_metric.items()]
    name = ScoreName(*cell, "macro_f1")
    return [*means, _score_classes(name, responses.seeds, responses.labels, answered, held_out, task)]


def score_majority(held_out: HeldOut, task: TaskSpec) -> list[Scores]:
    """Return label_agreement, macro_f1 and the ordinal distances of the person's commonest or median training label."""
    modes, medians = (constant_labels(held_out, task, choose) for choose in (modal_label, median_label))
    return _score_references(modes, medians, held_out, task, "majority", None)


def constant_labels(
    held_out: HeldOut, task: TaskSpec, choose: Callable[[Sequence[str], TaskSpec], str | None]
) -> np.ndarray:
    """Return for every item the label `choose` makes of the annotator's training labels, [1, A, I]."""
    labels = np.empty((1, len(held_out.annotators), len(held_out.items)), dtype=object)
    given = held_out.train.select("annotator_id", "label").drop_nulls().partition_by("annotator_id", as_dict=True)
    for row, annotator in enumerate(held_out.annotators):
        own = given[(annotator,)]["label"].to_list() if (annotator,) in given else []
        labels[0, row, :] = choose(own, task)
    return labels


def modal_label(labels: Sequence[str], task: TaskSpec) -> str | None:
    """Return the commonest of `labels`; ties go to the first in the task's order. None without labels."""
    if not labels:
        return None
    counts = Counter(labels)
    return max(task.labels.names, key=lambda name: counts[name])


def median_label(labels: Sequence[str], task: TaskSpec) -> str | None:
    """Return the median of ordinal `labels`; None without labels and for nominal ones, which have no median.

    The median of an even number is the lower of the two in the middle, so that it is a score somebody gave.
    """
    if not labels or not isinstance(task.labels, OrdinalLabels):
        return None
    return str(sorted(int(label) for label in labels)[(len(labels) - 1) // 2])


def score_other_annotators(held_out: HeldOut, task: TaskSpec) -> list[Scores]:
    """Return label_agreement, macro_f1 and ordinal distances of the other annotators' labels, averaged over them.

    What another person's honest answer scores: to decide as *this* person does is to do better. Of several labels of
    the other person the first (in the order of their names) is taken, as a model gives one.
    """
    labels = other_annotators_labels(held_out)
    return _score_references(labels, labels, held_out, task, "human", OTHER_ANNOTATOR)


def other_annotators_labels(held_out: HeldOut) -> np.ndarray:
    """Return one label by every annotator (axis 0) for every other as target, [A, A, I], None where there is none."""
    shape = (len(held_out.annotators), *held_out.labels.shape)
    labels = np.empty(shape, dtype=object)  # axis 0: whose labels are taken as responses
    for other in range(shape[0]):
        for target, item in np.ndindex(*shape[1:]):
            given = held_out.labels[other, item]
            labels[other, target, item] = given[0] if given and other != target else None
    return labels


def score_errors(labels: np.ndarray, held_out: HeldOut, task: TaskSpec) -> np.ndarray:
    """Return the distance of labels [S, A, I] to the nearest target label in label units; NaN for nominal labels."""
    if not isinstance(task.labels, OrdinalLabels):
        return np.full(labels.shape, np.nan)
    return _score_labels(labels, held_out, lambda label, target: min(abs(int(label) - int(one)) for one in target))


def _score_references(
    classes: np.ndarray, scores: np.ndarray, held_out: HeldOut, task: TaskSpec, method: str, condition: str | None
) -> list[Scores]:
    """Return the figures of labels that no seed enters, averaged over axis 0.

    Args:
        classes: [S, A, I] labels of which agreement and macro-F1 are given.
        scores: [S, A, I] labels of which the ordinal distances are given.
        held_out: the targets.
        task: what was asked.
        method: of the figures.
        condition: of the figures.
    """
    error = score_errors(scores, held_out, task)
    by_metric = {
        "label_agreement": _score_labels(classes, held_out, _agrees),
        "ordinal_distance": error / _scale_width(task),
        "ordinal_error": error,
    }
    means = [
        mean_scores(ScoreName(method, None, metric, condition), (), mean_over_first_axis(values))
        for metric, values in by_metric.items()
    ]
    given = np.array([label is not None for label in classes.flat]).reshape(classes.shape)
    name = ScoreName(method, None, "macro_f1", condition)
    return [*means, _score_classes(name, (), classes, given & _has_target(held_out), held_out, task)]


def _score_classes(
    name: ScoreName, seeds: tuple[int, ...], labels: np.ndarray, cells: np.ndarray, held_out: HeldOut, task: TaskSpec
) -> MacroF1Scores:
    """Return macro-F1 of labels [S, A, I] on the cells that have a response and a target."""
    answers, targets = (indicate_labels(values, task.labels.names) for values in (labels, held_out.labels))
    return MacroF1Scores(name, seeds, answers, targets, cells)


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


def _scale_width(task: TaskSpec) -> float:
    """Return maximum - minimum of ordinal labels, NaN for nominal ones."""
    labels = task.labels
    return float(labels.maximum - labels.minimum) if isinstance(labels, OrdinalLabels) else float("nan")
