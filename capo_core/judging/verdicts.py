"""From questions to verdicts: asking a judge and checking what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer, JudgeBackend
from capo_core.judging.questions import JudgeQuestion
from capo_core.progress import Progress, silent
from schemas.frames import VERDICTS, check_columns

GIVE_UP_AFTER = 10
"""A judge whose first so many answers are all failures is not asked further."""


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
        "protocol": question.protocol,
        "method": question.method,
        "compared_with": question.compared_with,
        "seed": question.seed,
        "annotator_id": question.annotator_id,
        "item_ids": list(question.item_ids),
        "normalisation": question.normalisation,
        "order": question.order,
        "candidates": list(question.candidates),
        "verdict": None if answer.position is None else question.candidates[answer.position],
        "status": answer.status,
        "response": answer.response,
        "candidate_scores": None if answer.candidate_scores is None else list(answer.candidate_scores),
        "judge": judge,
        "prompt_version": question.prompt_version,
        "n_prompt_tokens": answer.n_prompt_tokens,
        "n_answer_tokens": answer.n_answer_tokens,
        "n_attempts": answer.n_attempts,
        "seconds": answer.seconds,
    }
