"""What a judge's verdicts come to, protocol by protocol, beside what the same judge makes of real people.

Metrics of METRICS; `classifier` is the judge, `condition` raw or surface_normalised (references and judged text without
surface habits), or the floor of one of them: `shuffled`, `other_annotator`, with `:surface_normalised` behind it.

attribution: `judge_accuracy`, the credit for naming the person imitated (a tie of m counts 1/m). Its floor `shuffled`
    are people's explanations, annotators permuted within items.
pairwise: `judge_pairwise_accuracy` (method human), how often a person's own group is preferred to another annotator's
    about the same items; ties count half. Of pairs of models there are counts (`capo_core.judging.comparisons`); the
    other figures stand under method `all`, over all of them.
same_author: `judge_same_author_acceptance`, how often a method's group is taken for the person's own; ties count half.
    Under method human it is the sensitivity; under condition `other_annotator` it is that of another annotator's
    groups, 1 - specificity. `judge_same_author_balanced_accuracy` (method human) is the mean of sensitivity and
    specificity.

In each protocol, with the protocol's prefix (`judge_`, `judge_pairwise_`, `judge_same_author_`): `tie_rate`;
`self_consistency`, the share of pairs of orders that name the same candidate (all per annotator, over `all` the mean
of the annotators' means; n: groups of items, one judged with several seeds counting once); `parse_rate` and
`failure_rate`, shares of the questions asked that were answered readably and that got no answer; `not_asked_rate`, the
share of questions left out because the budget was spent; `group_shortfall`, groups configured less groups measured.
Over `all` only: `position_bias`, the largest deviation of a position's share of the verdicts from 1/number of
candidates; `chance`; `informative`, 1 if the interval of what the judge makes of real people (accuracy, pairwise
accuracy, balanced accuracy) lies above chance, else 0. It stands beside every method, under each condition; null where
people were not asked about, or in too few groups to tell even if all were right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from capo_core.judging.attribution import attributed_methods
from capo_core.judging.groups import HUMAN, HUMAN_OTHER, HUMAN_SHUFFLED
from capo_core.judging.intervals import NOT_MEASURED, Cells, Estimate, mean_over_annotators
from capo_core.judging.judged_groups import JudgedGroup, collect_cells, iterate_parts
from capo_core.judging.pairwise import list_pairs
from capo_core.seeding import derive_seed
from schemas.frames import METRICS, check_columns
from schemas.judge import JudgeConfig, Protocol

ALL = "all"
PREFIXES: dict[Protocol, str] = {
    "attribution": "judge",
    "pairwise": "judge_pairwise",
    "same_author": "judge_same_author",
}
MAIN_METRICS: dict[Protocol, str] = {
    "attribution": "judge_accuracy",
    "pairwise": "judge_pairwise_accuracy",
    "same_author": "judge_same_author_acceptance",
}
"""The metric that averages the groups' credit."""

_FLOORS = {HUMAN_SHUFFLED: "shuffled", HUMAN_OTHER: "other_annotator"}

Figure = tuple[str, str, Estimate]
"""Metric, annotator or `all`, estimate."""


@dataclass(frozen=True)
class _Part:
    """The groups behind one method's figures under one condition.

    Attributes:
        protocol: of the questions.
        method: as METRICS names it.
        condition: likewise.
        main: the metric that averages the groups' credit; None for none.
        groups: judged.
        n_configured: groups there should be per annotator.
        n_seeds: that enter.
    """

    protocol: Protocol
    method: str
    condition: str
    main: str | None
    groups: Sequence[JudgedGroup]
    n_configured: int
    n_seeds: int


@dataclass(frozen=True)
class _Scope:
    """Who the candidates are, and how groups are averaged."""

    annotators: Sequence[str]
    confidence: float
    average: Callable[[Cells], Estimate]


def summarise_verdicts(
    verdicts: pl.DataFrame,
    config: JudgeConfig,
    annotators: Sequence[str],
    *,
    seeds: Sequence[int],
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Return the figures of every judge as a METRICS frame, sorted by judge, method, condition, metric and annotator.

    A group of which half the orders or more went without a verdict is not measured. What the figures are says the
    module's docstring.

    Args:
        verdicts: VERDICTS, of one judge or several.
        config: what was asked.
        annotators: the people.
        seeds: the experiment's seeds, to know how many groups there should be.
        n_bootstrap: resamples of seeds and, within annotators, of groups; a group's orders stay together.
        confidence: of the intervals.

    Raises:
        JudgeError: if a question has two verdicts of one judge.
    """
    average = partial(
        mean_over_annotators,
        n_bootstrap=n_bootstrap,
        confidence=confidence,
        seed=derive_seed(config.seed, "judge bootstrap"),
    )
    scope = _Scope(annotators, confidence, average)
    rows = []
    for judge, protocol, condition, groups in iterate_parts(verdicts, config):
        parts = _list_parts(protocol, groups, condition, config, len(seeds))
        rows += _tabulate(judge, parts, condition, config.group_size, scope)
    by = ["classifier", "method", "condition", "metric", "annotator_id"]
    return check_columns(pl.DataFrame(rows, schema=METRICS).sort(by), METRICS, "judge metrics")


def find_informative(metrics: pl.DataFrame, judge: str, protocol: Protocol, condition: str) -> bool | None:
    """Return whether a judge tells real people apart in a protocol; None where that is unknown."""
    flags = metrics.filter(classifier=judge, metric=f"{PREFIXES[protocol]}_informative", condition=condition)
    values = flags["value"].drop_nulls().to_list()
    return bool(values[0]) if values else None


def _list_parts(
    protocol: Protocol, groups: Sequence[JudgedGroup], condition: str, config: JudgeConfig, n_seeds: int
) -> list[_Part]:
    """Return the parts of one judge's groups of one protocol and condition."""
    if protocol == "pairwise":
        return _pairwise_parts(groups, condition, config, n_seeds)
    return _method_parts(protocol, groups, condition, config, n_seeds)


def _method_parts(
    protocol: Protocol, groups: Sequence[JudgedGroup], condition: str, config: JudgeConfig, n_seeds: int
) -> list[_Part]:
    """Return one part per method, the floor of people's own text under a condition of its own."""
    floors = [HUMAN_OTHER] if protocol == "same_author" and HUMAN in config.methods else []
    methods = attributed_methods(config) if protocol == "attribution" else [*config.methods, *floors]
    parts = []
    for method in methods:
        is_human = method == HUMAN or method in _FLOORS
        n = 1 if is_human else n_seeds
        parts.append(
            _Part(
                protocol=protocol,
                method=HUMAN if is_human else method,
                condition=_name_floor(method, condition) if method in _FLOORS else condition,
                main=MAIN_METRICS[protocol],
                groups=[group for group in groups if group.method == method],
                n_configured=config.n_groups * n,
                n_seeds=n,
            )
        )
    return parts


def _name_floor(method: str, condition: str) -> str:
    return _FLOORS[method] if condition == "raw" else f"{_FLOORS[method]}:{condition}"


def _pairwise_parts(groups: Sequence[JudgedGroup], condition: str, config: JudgeConfig, n_seeds: int) -> list[_Part]:
    """Return the calibration on people, as method human, and all pairs of methods together, as method all."""
    people = [group for group in groups if group.compared_with == HUMAN_OTHER]
    others = [group for group in groups if group.compared_with != HUMAN_OTHER]
    n_pairs = len(list_pairs(config)) * config.n_groups * n_seeds
    parts = [_Part("pairwise", ALL, condition, None, others, n_pairs, n_seeds)] if n_pairs else []
    if HUMAN in config.methods:
        parts.append(_Part("pairwise", HUMAN, condition, MAIN_METRICS["pairwise"], people, config.n_groups, 1))
    return parts


def _tabulate(
    judge: str, parts: Sequence[_Part], condition: str, group_size: int, scope: _Scope
) -> list[dict[str, Any]]:
    """Return the METRICS rows of one judge, protocol and condition."""
    found = [(part, _summarise_part(part, scope)) for part in parts]
    rows = [row for part, figures in found for row in _to_metrics(judge, part, figures, group_size)]
    ceiling, calibration = _calibrate(found, scope)
    for part in parts:
        if part.condition != condition:
            continue  # a floor says nothing that could be informative
        flag = (f"{PREFIXES[part.protocol]}_informative", ALL, ceiling)
        rows += _to_metrics(judge, part, [flag, *(calibration if part.method == HUMAN else [])], group_size)
    return rows


def _calibrate(found: Sequence[tuple[_Part, list[Figure]]], scope: _Scope) -> tuple[Estimate, list[Figure]]:
    """Return whether the judge tells real people apart, and the figures of method human that say so."""
    own = next((pair for pair in found if pair[0].method == HUMAN and not _is_floor(pair[0])), None)
    if own is None:
        return NOT_MEASURED, []
    part, figures = own
    chance = _chance(part, scope)
    if part.protocol != "same_author":
        ceiling = next(estimate for metric, who, estimate in figures if (metric, who) == (part.main, ALL))
        return _judge_informative(ceiling, chance, scope.confidence), []
    other = next(other for other, _ in found if _is_floor(other))
    accepted = collect_cells(part.groups, scope.annotators, lambda group: group.credit)
    refused = collect_cells(other.groups, scope.annotators, lambda group: 1.0 - group.credit)
    # Own and other groups are strata of equal weight; one annotator's are averaged apart, then with everybody's.
    measured = any(accepted) and any(refused)
    balanced = scope.average([*accepted, *refused]) if measured else NOT_MEASURED
    specificity = scope.average(refused)
    return _judge_informative(balanced, chance, scope.confidence), [
        ("judge_same_author_sensitivity", ALL, scope.average(accepted)),
        ("judge_same_author_specificity", ALL, specificity),
        ("judge_same_author_balanced_accuracy", ALL, balanced),
    ]


def _is_floor(part: _Part) -> bool:
    return part.condition.split(":")[0] in _FLOORS.values()


def _chance(part: _Part, scope: _Scope) -> float:
    return 1 / len(scope.annotators) if part.protocol == "attribution" else 0.5


def _to_metrics(judge: str, part: _Part, figures: Iterable[Figure], group_size: int) -> list[dict[str, Any]]:
    return [
        {
            "method": part.method,
            "annotator_id": who,
            "decision": None if part.method == HUMAN else "sampled",
            "metric": metric,
            "condition": part.condition,
            "classifier": judge,
            "group_size": group_size,
            "value": estimate.value,
            "ci_low": estimate.ci_low,
            "ci_high": estimate.ci_high,
            "n": estimate.n,
            "n_seeds": part.n_seeds,
        }
        for metric, who, estimate in figures
    ]


def _summarise_part(part: _Part, scope: _Scope) -> list[Figure]:
    """Return the figures of one part, per annotator and over all."""
    prefix = PREFIXES[part.protocol]
    averaged: dict[str, Callable[[JudgedGroup], float | None]] = {
        f"{prefix}_tie_rate": lambda group: group.is_tied,
        f"{prefix}_self_consistency": lambda group: group.consistency,
    }
    if part.main is not None:
        averaged[part.main] = lambda group: group.credit
    found = []
    for who, names in [*((name, [name]) for name in scope.annotators), (ALL, list(scope.annotators))]:
        for metric, value in averaged.items():
            found.append((metric, who, scope.average(collect_cells(part.groups, names, value))))
        found += _count_questions(prefix, who, [g for g in part.groups if g.annotator_id in names])
        n_measured = sum(group.is_measured for group in part.groups if group.annotator_id in names)
        n_configured = part.n_configured * len(names)
        shortfall = Estimate(float(n_configured - n_measured), None, None, n_configured)
        found.append((f"{prefix}_group_shortfall", who, shortfall))
    n_measured = sum(group.is_measured for group in part.groups)
    chance = _chance(part, scope)
    return [
        *found,
        (f"{prefix}_position_bias", ALL, _measure_position_bias(part.groups, round(1 / chance))),
        (f"{prefix}_chance", ALL, Estimate(chance, None, None, n_measured)),
    ]


def _count_questions(prefix: str, who: str, groups: Sequence[JudgedGroup]) -> list[Figure]:
    n_questions = sum(group.n_questions for group in groups)
    n_not_asked = sum(group.n_not_asked for group in groups)
    n_asked = n_questions - n_not_asked
    return [
        (f"{prefix}_parse_rate", who, _share(sum(len(group.verdicts) for group in groups), n_asked)),
        (f"{prefix}_failure_rate", who, _share(sum(group.n_failed for group in groups), n_asked)),
        (f"{prefix}_not_asked_rate", who, _share(n_not_asked, n_questions)),
    ]


def _share(n_part: int, n_all: int) -> Estimate:
    return Estimate(n_part / n_all if n_all else None, None, None, n_all)


def _measure_position_bias(groups: Sequence[JudgedGroup], n_candidates: int) -> Estimate:
    """Return max over positions of |share of verdicts at the position − 1/n_candidates|."""
    positions = [position for group in groups for position in group.positions]
    if not positions:
        return NOT_MEASURED
    shares = np.bincount(positions, minlength=n_candidates) / len(positions)
    return Estimate(float(np.abs(shares - 1 / n_candidates).max()), None, None, len(positions))


def _judge_informative(human: Estimate, chance: float, confidence: float) -> Estimate:
    """Return 1 if the human ceiling's interval lies above chance, else 0.

    With so few groups that guessing could get all right more often than in 1 − `confidence` of the cases
    (chance^n > 1 − confidence) a bootstrap interval means nothing, and the value is null.
    """
    if human.value is None or human.ci_low is None or chance**human.n > 1 - confidence:
        return Estimate(None, None, None, human.n)
    return Estimate(float(human.ci_low > chance), None, None, human.n)
