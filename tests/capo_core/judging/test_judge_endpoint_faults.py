"""Every kind of fault, 200 questions each: some meet it once, some every time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest
from endpoint_server import LETTERS, Request, Scripted, complete, make_plain_questions, serve

from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.endpoint_backend import OpenAIJudgeBackend
from schemas.judge import OpenAIJudge

N_QUESTIONS, N_CONCURRENT = 200, 16
STUBBORN_EVERY = 10
"""Every tenth question meets the fault at each attempt, the others at the first one only."""
FLOOR_SECONDS = 2.0
"""Allowance beside the tenth of the deadline, for what a machine with other work adds to such short ones."""


@dataclass(frozen=True)
class Fault:
    """A fault and what becomes of questions that meet it: `once` and `always` are statuses.

    `once` is None where the outcome is a matter of time.
    """

    scripted: Scripted
    once: str | None
    always: str
    n_attempts: int
    settings: dict[str, Any] = field(default_factory=dict)


GOOD = complete("Answer: B").body
HURRIED = {"timeout_seconds": 0.4, "deadline_seconds": 1.2, "n_concurrent": 25}
FAULTS = {
    "429": Fault(Scripted("{}", 429), "ok", "failed", 6),
    "429, wait a number": Fault(Scripted("{}", 429, {"Retry-After": "0.004"}), "ok", "failed", 6),
    "429, wait a date": Fault(Scripted("{}", 429, {"Retry-After": formatdate(1, usegmt=True)}), "ok", "failed", 6),
    "429, wait an hour": Fault(Scripted("{}", 429, {"Retry-After": "3600"}), "failed", "failed", 1),
    "500": Fault(Scripted("oops", 500), "ok", "failed", 6),
    "503 with a page": Fault(Scripted("<html>busy</html>", 503, {"Content-Type": "text/html"}), "ok", "failed", 6),
    "connection reset": Fault(Scripted(reset=True), "ok", "failed", 6),
    "slow header": Fault(Scripted(GOOD, delay_seconds=9), None, "failed", 3, HURRIED),
    "slow body": Fault(Scripted(GOOD, drip_seconds=0.05), None, "failed", 3, HURRIED),
    "truncated JSON": Fault(Scripted(GOOD[:100]), "ok", "failed", 6),
    "short body": Fault(Scripted(GOOD[:100], n_missing=50), "ok", "failed", 6),
    "a page": Fault(Scripted("<html>Answer: B</html>"), "ok", "failed", 6),
    "empty body": Fault(Scripted(), "ok", "failed", 6),
    "another schema": Fault(Scripted('{"verdict": "B", "answer": "B"}'), "ok", "failed", 6),
    "no content": Fault(complete(None), "unparseable", "unparseable", 1),
    "verdict out of schema": Fault(complete('{"answer": "Z"}'), "unparseable", "unparseable", 1),
    "refusal": Fault(complete(None, refusal="I cannot tell people apart. A"), "unparseable", "unparseable", 1),
    # Met as long as the option is sent; by the stubborn also when there is nothing left to leave out.
    "400 for an option": Fault(Scripted("response_format is not known here", 400), "ok", "failed", 2),
}


def number_of(question_id: str) -> int:
    return int(question_id.removeprefix("question"))


def is_stubborn(question_id: str) -> bool:
    return number_of(question_id) % STUBBORN_EVERY == 0


def own_letter(question_id: str) -> str:
    """The verdict that a question gets where the server gives one, by which invented and swapped ones are noticed."""
    return LETTERS[number_of(question_id) % len(LETTERS)]


def meets(kind: str, request: Request) -> bool:
    if kind == "400 for an option":
        return is_stubborn(request.question_id) or "response_format" in request.body
    return is_stubborn(request.question_id) or request.attempt == 1


def check_answer(answer: JudgeAnswer, fault: Fault, config: OpenAIJudge) -> None:
    expected = fault.always if is_stubborn(answer.question_id) else fault.once
    assert answer.status == expected or (expected is None and answer.status in ("ok", "failed")), answer
    own_position = LETTERS.index(own_letter(answer.question_id))
    assert answer.position == (own_position if answer.status == "ok" else None), answer
    assert answer.response or answer.status == "unparseable"
    assert 1 <= answer.n_attempts <= 6
    assert answer.seconds is not None
    assert answer.seconds <= 1.1 * config.deadline_seconds + FLOOR_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_every_call_ends_as_a_verdict_or_a_typed_failure(kind: str) -> None:
    fault = FAULTS[kind]

    def script(request: Request) -> Scripted:
        if meets(kind, request):
            return fault.scripted
        return complete(f"Answer: {own_letter(request.question_id)}")

    settings = {"deadline_seconds": 20.0, "timeout_seconds": 10.0, "n_concurrent": N_CONCURRENT} | fault.settings
    with serve(script) as server:
        config = OpenAIJudge.model_validate({"base_url": server.address, "model": "m"} | settings)
        backend = OpenAIJudgeBackend(config, backoff_seconds=0.002)
        answers = list(backend.answer(make_plain_questions(N_QUESTIONS)))
    assert Counter(answer.question_id for answer in answers) == Counter(f"question{i}" for i in range(N_QUESTIONS))
    for answer in answers:
        check_answer(answer, fault, config)
    n_seen = Counter(request.question_id for request in server.requests)
    assert max(n_seen.values()) <= 6
    if fault.once is not None:
        # What the server saw is what the answers say, and the stubborn are asked as often as is worth while.
        assert n_seen == Counter({answer.question_id: answer.n_attempts for answer in answers})
        assert {n for question, n in n_seen.items() if is_stubborn(question)} <= {fault.n_attempts, 1}
    assert server.most_concurrent <= config.n_concurrent
