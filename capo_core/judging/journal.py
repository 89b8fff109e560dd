"""Verdicts kept as they arrive, so that a killed run asks nothing again that it has been told.

A journal is a file of JSON lines. The first names the judge; each further one is an answer with a checksum, forced to
the disk before the answer is passed on. Kept are answers with and without a readable verdict (ok, unparseable); what
failed or was not asked is asked by the next run.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from pydantic import TypeAdapter

from capo_core.durable_files import sync
from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer, JudgeBackend
from capo_core.judging.questions import JudgeQuestion

_FORMAT = "capo verdict journal 1"
_KEPT = ("ok", "unparseable")
_ANSWER = TypeAdapter(JudgeAnswer)


@runtime_checkable
class SpendingBackend(Protocol):
    """A judge with a budget, on which the answers of an earlier run count."""

    def count_spent(self, answers: Iterable[JudgeAnswer]) -> None: ...


class VerdictJournal:
    """A judge that remembers: it answers from its file what is there, and asks another judge the rest."""

    def __init__(self, path: Path, backend: JudgeBackend) -> None:
        """Keep the answers of `backend` in the file `path`, which need not exist.

        Args:
            path: the journal; one process at a time writes it.
            backend: the judge.

        Raises:
            JudgeError: if the journal is damaged, another judge's, or being written by another process.
        """
        self._path = path
        self._backend = backend
        self.name = backend.name
        with _locked(path) as file:
            answers = _read(file, path, self.name)
        if isinstance(backend, SpendingBackend):
            backend.count_spent(answers.values())

    def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
        """Yield an answer per question: first those in the journal, then the judge's own as they come.

        Raises:
            JudgeError: see the constructor.
        """
        with _locked(self._path) as file:
            kept = _read(file, self._path, self.name)
            yield from (kept[question.question_id] for question in questions if question.question_id in kept)
            missing = [question for question in questions if question.question_id not in kept]
            for answer in self._backend.answer(missing) if missing else ():
                if answer.status in _KEPT:
                    _append(file, asdict(answer))
                yield answer


def _locked(path: Path) -> BinaryIO:
    """Return the journal opened for reading and appending, locked until it is closed or its process ends."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise JudgeError(f"{path}: this journal is being written already; wait for the other run to end") from None
    if is_new:
        sync(path.parent)
    return file


def _read(file: BinaryIO, path: Path, judge: str) -> dict[str, JudgeAnswer]:
    """Return the journal's answers by question; a line whose writing was interrupted is cut off the file.

    A line is written in one piece with its end: without the end it is what a killed process or machine left.
    """
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.truncate(len(whole))
    if not whole:
        _append(file, {"format": _FORMAT, "judge": judge})
        return {}
    header, *lines = whole.split(b"\n")[:-1]
    _check_header(_parse_line(header, path, 1), path, judge)
    answers: dict[str, JudgeAnswer] = {}
    for number, line in enumerate(lines, start=2):
        try:
            answer = _ANSWER.validate_python(_parse_line(line, path, number))
        except ValueError as error:
            raise _damage(path, number, "it is no answer") from error
        answers.setdefault(answer.question_id, answer)
    return answers


def _check_header(header: Mapping[str, Any], path: Path, judge: str) -> None:
    if header.get("format") != _FORMAT:
        raise JudgeError(f"{path}: format {header.get('format')!r} instead of {_FORMAT!r}; choose another file")
    if header.get("judge") != judge:
        raise JudgeError(f"{path}: the journal of the judge {header.get('judge')}, not of {judge}; choose another file")


def _parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Return a line's content, checked against its checksum."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise _damage(path, number, "it is not JSON") from None
    checksum = content.pop("crc32", None) if isinstance(content, dict) else None
    if checksum is None or checksum != _compute_checksum(content):
        raise _damage(path, number, "its checksum does not fit")
    return content


def _damage(path: Path, number: int, reason: str) -> JudgeError:
    return JudgeError(f"{path}, line {number} is damaged: {reason}; move the file away to ask everything again")


def _compute_checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _append(file: BinaryIO, content: Mapping[str, Any]) -> None:
    """Write one line and force it to the disk."""
    line = json.dumps({**content, "crc32": _compute_checksum(content)}).encode() + b"\n"
    n_written = file.write(line)
    if n_written != len(line):
        raise OSError(f"{n_written} of {len(line)} bytes written to {file.name}")
    os.fsync(file.fileno())
