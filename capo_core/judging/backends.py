"""What a judge is: something that answers questions by naming a position; and how its words are read.

Implementations: `capo_core.judging.local_backend` (a model in this process) and
`capo_core.judging.endpoint_backend` (any OpenAI-compatible endpoint).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from capo_core.judging.questions import JudgeQuestion

VerdictStatus = Literal["ok", "unparseable", "failed", "not_asked"]

_VERDICT_LINE = re.compile(r"(?:answer\W+)?(?:(?:person|group)\W+)?(?P<letter>[A-Z])", re.IGNORECASE)
_VERDICT_OPENING = re.compile(r"answer\b.", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class JudgeAnswer:
    """What came of one question.

    Attributes:
        question_id: the question.
        position: 0-based position of the candidate named; None unless `status` is ok.
        status: ok; unparseable (an answer that names no candidate); failed (no answer); not_asked (the budget was
            spent before the question's turn came).
        response: the answer verbatim, or the reason why there is none.
        candidate_scores: probability of each candidate in the order shown, where the backend has one.
        n_prompt_tokens: tokens of the prompts of all attempts, where known.
        n_answer_tokens: tokens of the answers of all attempts, where known.
        n_attempts: how often the question was put; 0 where it was not asked.
        seconds: from the first attempt to the answer, pauses included, where measured.
    """

    question_id: str
    position: int | None
    status: VerdictStatus
    response: str
    candidate_scores: tuple[float, ...] | None = None
    n_prompt_tokens: int | None = None
    n_answer_tokens: int | None = None
    n_attempts: int = 1
    seconds: float | None = None


class JudgeBackend(Protocol):
    """A judge. `name` says which backend and model; `answer` yields one answer per question, in any order."""

    @property
    def name(self) -> str: ...

    def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]: ...


def parse_verdict(text: str, letters: str) -> int | None:
    """Return the position of the candidate that `text` names, or None where it names none.

    Read are: a JSON object `{"answer": "B"}`; else the last line that is `Answer: B` or a letter alone, decoration
    and case aside. The last such line counts, also where it is malformed or names a letter nobody stands under:
    nothing is looked for before it and nothing guessed.

    Args:
        text: what the judge answered.
        letters: the candidates' letters, in order.
    """
    stripped = text.strip()
    stated = _json_answer(stripped.strip("`").removeprefix("json") if stripped.startswith("```") else stripped)
    if stated is None:
        stated = _last_line_answer(stripped)
    position = letters.find(stated.upper()) if stated else -1
    return position if position >= 0 else None


def _json_answer(text: str) -> str | None:
    """Return the letter of `{"answer": letter}`, "" for any other JSON object, None for what is no JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    answer = value.get("answer")
    return answer.strip() if isinstance(answer, str) and len(answer.strip()) == 1 else ""


def _last_line_answer(text: str) -> str:
    """Return the letter of the last line that is a verdict, "" where there is none or the last one is malformed."""
    for line in reversed(text.splitlines()):
        alphanumeric = [i for i, character in enumerate(line) if character.isalnum()]
        core = line[alphanumeric[0] : alphanumeric[-1] + 1] if alphanumeric else ""
        if match := _VERDICT_LINE.fullmatch(core):
            return match["letter"]
        if _VERDICT_OPENING.match(core):
            return ""
    return ""
