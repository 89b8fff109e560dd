from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import make_plain_questions

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.journal import VerdictJournal


class ScriptedJudge:
    """Answers B, with scores and an awkward text; remembers what it was asked."""

    def __init__(self, name: str = "scripted", **statuses: str) -> None:
        self.name = name
        self.statuses = statuses
        self.asked: list[str] = []

    def answer(self, questions: Sequence[Any]) -> Iterator[JudgeAnswer]:
        for question in questions:
            self.asked.append(question.question_id)
            yield self.make_answer(question.question_id)

    def make_answer(self, question_id: str) -> JudgeAnswer:
        status: Any = self.statuses.get(question_id, "ok")
        return JudgeAnswer(
            question_id=question_id,
            position=1 if status == "ok" else None,
            status=status,
            response='Answer:\n"B" \u2028 ä',
            candidate_scores=(0.1, 0.7, 0.2),
            n_prompt_tokens=77,
            n_answer_tokens=3,
            n_attempts=2,
            seconds=0.25,
        )


def fill(path: Path, n: int = 3) -> list[JudgeAnswer]:
    return list(VerdictJournal(path, ScriptedJudge()).answer(make_plain_questions(n)))


def test_what_the_journal_has_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    first, second = ScriptedJudge(), ScriptedJudge()
    before = list(VerdictJournal(path, first).answer(make_plain_questions(3)))
    after = list(VerdictJournal(path, second).answer(make_plain_questions(5)))
    assert first.asked == ["question0", "question1", "question2"]
    assert second.asked == ["question3", "question4"]
    # Every field is as it was given.
    assert after[:3] == before == [first.make_answer(f"question{i}") for i in range(3)]
    assert VerdictJournal(path, second).name == "scripted"


def test_an_answer_is_in_the_file_before_it_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    answers = VerdictJournal(path, ScriptedJudge()).answer(make_plain_questions(3))
    for n, answer in enumerate(answers, start=1):
        lines = path.read_text().splitlines()
        assert len(lines) == 1 + n
        assert json.loads(lines[-1])["question_id"] == answer.question_id


@pytest.mark.parametrize(
    ("status", "kept"), [("ok", True), ("unparseable", True), ("failed", False), ("not_asked", False)]
)
def test_only_what_was_not_answered_is_asked_again(tmp_path: Path, status: str, kept: bool) -> None:
    path = tmp_path / "verdicts.jsonl"
    again = ScriptedJudge()
    first = list(VerdictJournal(path, ScriptedJudge(question1=status)).answer(make_plain_questions(3)))
    assert first[1].status == status
    answers = {a.question_id: a for a in VerdictJournal(path, again).answer(make_plain_questions(3))}
    assert again.asked == ([] if kept else ["question1"])
    assert answers["question1"].status == (status if kept else "ok")


def test_a_torn_last_line_is_cut_off_and_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    fill(path)
    whole = path.read_bytes()
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    # Torn anywhere in the third answer, its end of line included.
    for length in range(last_line + 1, len(whole), 7):
        path.write_bytes(whole[:length])
        judge = ScriptedJudge()
        assert len(list(VerdictJournal(path, judge).answer(make_plain_questions(3)))) == 3
        assert judge.asked == ["question2"]
        assert path.read_bytes() == whole


def test_a_torn_first_line_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(b'{"format": "capo')
    fill(path)
    assert len(path.read_bytes().splitlines()) == 4


@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_a_damaged_line_is_an_error_that_names_file_and_line(tmp_path: Path, line: int) -> None:
    path = tmp_path / "verdicts.jsonl"
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (
        lines[line].replace(b'"', b"'"),
        lines[line].replace(b"77", b"78").replace(b"scripted", b"scriptes"),
        b"\0" * 20 + b"\n",
        b'{"question_id": "question1"}\n',
        b"\n",
    ):
        path.write_bytes(b"".join([*lines[:line], damaged, *lines[line + 1 :]]))
        with pytest.raises(JudgeError, match=rf"verdicts\.jsonl, line {line + 1} is damaged"):
            VerdictJournal(path, ScriptedJudge())


def test_a_valid_line_that_is_no_answer_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    fill(path)
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(JudgeError, match="line 5 is damaged: it is no answer"):
        VerdictJournal(path, ScriptedJudge())


def test_another_judges_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    fill(path)
    with pytest.raises(JudgeError, match="the journal of the judge scripted, not of another"):
        VerdictJournal(path, ScriptedJudge("another"))


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    running = VerdictJournal(path, ScriptedJudge()).answer(make_plain_questions(3))
    next(running)
    with pytest.raises(JudgeError, match="being written already"):
        fill(path)
    running.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(fill(path)) == 3


def test_an_answers_scores_may_be_undefined(tmp_path: Path) -> None:
    class Undecided(ScriptedJudge):
        def make_answer(self, question_id: str) -> JudgeAnswer:
            return replace(super().make_answer(question_id), candidate_scores=(float("nan"),), seconds=None)

    path = tmp_path / "verdicts.jsonl"
    list(VerdictJournal(path, Undecided()).answer(make_plain_questions(1)))
    (answer,) = VerdictJournal(path, Undecided()).answer(make_plain_questions(1))
    assert str(answer.candidate_scores) == "(nan,)"
