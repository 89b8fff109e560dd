"""From questions to verdicts, and from verdicts to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer, JudgeBackend
from capo_core.judging.groups import HUMAN, HUMAN_SHUFFLED
from capo_core.judging.intervals import NOT_MEASURED, Estimate, mean_over_annotators
from capo_core.judging.questions import JudgeQuestion, judged_methods
from capo_core.progress import Progress, silent
from capo_core.seeding import derive_seed
from schemas.frames import METRICS, VERDICTS, check_columns
from schemas.judge import JudgeConfig

GIVE_UP_AFTER = 10
"""A judge whose first so many answers are all failures is not asked further."""


@dataclass(frozen=True)
class _JudgedGroup:
    """The verdicts on one group, all rotations together."""

    method: str
    seed: int
    annotator_id: str
    item_ids: tuple[str, ...]
    n_questions: int
    verdicts: tuple[str, ...]  # annotators named, one per rotation that was answered
    positions: tuple[int, ...]  # where each stood
    n_failed: int

    @property
    def named_most(self) -> frozenset[str]:
        """The annotators that most rotations name."""
        counts = Counter(self.verdicts)
        return frozenset(name for name, count in counts.items() if count == max(counts.values()))

    @property
    def is_measured(self) -> bool:
        """Whether more than half of the rotations were answered."""
        return 2 * len(self.verdicts) > self.n_questions

    @property
    def accuracy(self) -> float:
        """1 / (number of annotators named most) if the true one is among them, else 0."""
        return (self.annotator_id in self.named_most) / len(self.named_most)


def iterate_verdicts(questions: Sequence[JudgeQuestion], backend: JudgeBackend) -> Iterator[dict[str, Any]]:
    """Yield one VERDICTS row per question as the judge answers, in the judge's order.

    Raises:
        JudgeError: if the first `GIVE_UP_AFTER` answers, or all, are failures; if the backend answers a question
            twice, one it was not asked, or not at all, or names a position where nobody stands.
    """
    open_questions = {question.question_id: question for question in questions}
    if len(open_questions) < len(questions):
        raise JudgeError(f"{len(questions) - len(open_questions)} questions are asked twice: their ids repeat")
    n_failed = 0
    for n_answers, answer in enumerate(backend.answer(questions), start=1):
        question = open_questions.pop(answer.question_id, None)
        if question is None:
            raise JudgeError(f"{backend.name} answered question {answer.question_id!r} twice or without being asked")
        n_failed += answer.status == "failed"
        if n_failed == n_answers and n_failed >= min(GIVE_UP_AFTER, len(questions)):
            raise JudgeError(f"{backend.name} did not answer any of the first {n_failed} questions: {answer.response}")
        yield _to_row(question, answer, backend.name)
    if open_questions:
        raise JudgeError(f"{backend.name} left {len(open_questions)} of {len(questions)} questions unanswered")


def collect_verdicts(
    questions: Sequence[JudgeQuestion], backend: JudgeBackend, progress: Progress = silent
) -> pl.DataFrame:
    """Return the judge's verdicts, a VERDICTS frame in the order of `questions`.

    Args:
        questions: from `build_questions`.
        backend: the judge.
        progress: told the number of questions answered.

    Raises:
        JudgeError: see `iterate_verdicts`.
    """
    rows = {}
    for row in iterate_verdicts(questions, backend):
        rows[row["question_id"]] = row
        progress(len(rows), len(questions))
    ordered = [rows[question.question_id] for question in questions]
    return check_columns(pl.DataFrame(ordered, schema=VERDICTS), VERDICTS, "verdicts")


def _to_row(question: JudgeQuestion, answer: JudgeAnswer, judge: str) -> dict[str, Any]:
    named = answer.status == "ok"
    if named != (answer.position is not None) or (named and answer.position not in range(len(question.candidates))):
        raise JudgeError(f"{judge} answered {answer.status} with position {answer.position} of {question.letters}")
    return {
        "question_id": question.question_id,
        "method": question.method,
        "seed": question.seed,
        "annotator_id": question.annotator_id,
        "item_ids": list(question.item_ids),
        "candidates": list(question.candidates),
        "verdict": None if answer.position is None else question.candidates[answer.position],
        "status": answer.status,
        "response": answer.response,
        "candidate_scores": None if answer.candidate_scores is None else list(answer.candidate_scores),
        "judge": judge,
        "n_prompt_tokens": answer.n_prompt_tokens,
    }


def summarise_verdicts(
    verdicts: pl.DataFrame,
    config: JudgeConfig,
    annotators: Sequence[str],
    *,
    seeds: Sequence[int],
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Return the figures of one judge as a METRICS frame, sorted by method, metric and annotator.

    A group's verdict is the annotator that most of its answered rotations name. Where m annotators are named equally
    often it is a tie, counted in `judge_tie_rate` and with 1/m (if the right one is among them) in `judge_accuracy`.
    A group of which half the rotations or more went without a verdict is not measured. `human_shuffled` verdicts
    appear as method `human`, condition `shuffled` (the floor), all others with condition `raw`.

    Metrics per annotator and over `all`: `judge_accuracy` and `judge_tie_rate` (over all: mean of the annotators'
    means; n: groups of items, one judged with several seeds counting once); `judge_parse_rate` and
    `judge_failure_rate`, the shares of the questions that were answered readably and that were not answered
    (n: questions); `judge_group_shortfall`, groups configured less groups measured (n: groups configured).
    Over `all` only: `judge_position_bias`, the largest deviation of a position's share of the verdicts from
    1/number of candidates (n: verdicts); `judge_chance`; `judge_informative`, 1 if the interval of the human accuracy
    lies above chance, else 0 (null where there are too few groups to tell even if all were right).

    Args:
        verdicts: VERDICTS of one judge.
        config: what was asked.
        annotators: the candidates.
        seeds: the experiment's seeds, to know how many groups there should be.
        n_bootstrap: resamples of seeds and, within annotators, of groups; a group's rotations stay together.
        confidence: of the intervals.

    Raises:
        ValueError: if the verdicts are of several judges.
    """
    if verdicts["judge"].n_unique() > 1:
        raise ValueError(f"verdicts of several judges: {sorted(verdicts['judge'].unique())}; summarise each alone")
    groups = _group_verdicts(verdicts)
    rows = []
    for method in judged_methods(config):
        of_method = [group for group in groups if group.method == method]
        n_seeds = 1 if method in (HUMAN, HUMAN_SHUFFLED) else len(seeds)
        bootstrap = partial(
            mean_over_annotators,
            n_bootstrap=n_bootstrap,
            confidence=confidence,
            seed=derive_seed(config.seed, "judge bootstrap"),
        )
        found = _summarise_method(of_method, annotators, config.n_groups * n_seeds, bootstrap)
        if method == HUMAN:
            accuracy = next(e for metric, who, e in found if (metric, who) == ("judge_accuracy", "all"))
            found.append(("judge_informative", "all", _judge_informative(accuracy, 1 / len(annotators), confidence)))
        rows += [_to_metric(method, config.group_size, n_seeds, *figure) for figure in found]
    frame = pl.DataFrame(rows, schema=METRICS).sort("method", "condition", "metric", "annotator_id")
    return check_columns(frame, METRICS, "judge metrics")


def _to_metric(
    method: str, group_size: int, n_seeds: int, metric: str, annotator: str, estimate: Estimate
) -> dict[str, Any]:
    return {
        "method": HUMAN if method == HUMAN_SHUFFLED else method,
        "annotator_id": annotator,
        "decision": None if method in (HUMAN, HUMAN_SHUFFLED) else "sampled",
        "metric": metric,
        "condition": "shuffled" if method == HUMAN_SHUFFLED else "raw",
        "group_size": group_size,
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n": estimate.n,
        "n_seeds": n_seeds,
    }


def _group_verdicts(verdicts: pl.DataFrame) -> list[_JudgedGroup]:
    """Return the verdicts by group, in sorted order."""
    keys = ["method", "seed", "annotator_id", "item_ids"]
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in verdicts.sort("question_id").iter_rows(named=True):
        groups.setdefault(tuple(tuple(row[k]) if k == "item_ids" else row[k] for k in keys), []).append(row)
    judged = []
    for (method, seed, annotator, item_ids), rows in sorted(groups.items()):
        named = [row for row in rows if row["status"] == "ok"]
        judged.append(
            _JudgedGroup(
                method=method,
                seed=seed,
                annotator_id=annotator,
                item_ids=item_ids,
                n_questions=len(rows),
                verdicts=tuple(row["verdict"] for row in named),
                positions=tuple(row["candidates"].index(row["verdict"]) for row in named),
                n_failed=sum(row["status"] == "failed" for row in rows),
            )
        )
    return judged


def _summarise_method(
    groups: Sequence[_JudgedGroup],
    annotators: Sequence[str],
    n_groups_configured: int,
    average: Callable[[list[dict[tuple[int, Any], float]]], Estimate],
) -> list[tuple[str, str, Estimate]]:
    """Return (metric, annotator or "all", estimate) for one method; `average` takes values by seed and items."""
    measured = {name: [g for g in groups if g.annotator_id == name and g.is_measured] for name in annotators}
    found = []
    for who, names in [*((name, [name]) for name in annotators), ("all", list(annotators))]:
        of_these = [group for group in groups if group.annotator_id in names]
        hits = [{(g.seed, g.item_ids): g.accuracy for g in measured[name]} for name in names]
        ties = [{(g.seed, g.item_ids): float(len(g.named_most) > 1) for g in measured[name]} for name in names]
        n_questions = sum(group.n_questions for group in of_these)
        n_configured = n_groups_configured * len(names)
        n_measured = sum(len(measured[name]) for name in names)
        found += [
            ("judge_accuracy", who, average(hits)),
            ("judge_tie_rate", who, average(ties)),
            ("judge_parse_rate", who, _share(sum(len(g.verdicts) for g in of_these), n_questions)),
            ("judge_failure_rate", who, _share(sum(g.n_failed for g in of_these), n_questions)),
            ("judge_group_shortfall", who, Estimate(float(n_configured - n_measured), None, None, n_configured)),
        ]
    positions = [position for group in groups for position in group.positions]
    n_measured = sum(len(of_annotator) for of_annotator in measured.values())
    return [
        *found,
        ("judge_position_bias", "all", _measure_position_bias(positions, len(annotators))),
        ("judge_chance", "all", Estimate(1 / len(annotators), None, None, n_measured)),
    ]


def _share(n_part: int, n_all: int) -> Estimate:
    return Estimate(n_part / n_all if n_all else None, None, None, n_all)


def _measure_position_bias(positions: Sequence[int], n_candidates: int) -> Estimate:
    """Return max over positions of |share of verdicts at the position − 1/n_candidates|."""
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
