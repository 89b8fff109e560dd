"""The thread that owns the model, and the questions that wait for it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

from capo_core.errors import CapoError, ServeError
from capo_core.generation.answering import Answer, AnswerBatch, Choice, EncodedQuestion, Question

GATHER_SECONDS = 0.005
"""How long an idle server waits for others to come after a first question."""

_JOIN_SHARE, _JOIN_STEPS = 0.25, 8
"""Questions join answers under way when there are so many for each answer, or after so many tokens: whenever any join,
the keys and values of all are copied."""

_MAX_RETRY_SECONDS = 60

_LOGGER = logging.getLogger(__name__)

Answered = tuple[Answer, list[Choice]]


class OverloadedError(ServeError):
    """As many questions wait as may; `retry_after_seconds` is about how long those take."""

    def __init__(self, n_waiting: int, retry_after_seconds: int) -> None:
        super().__init__(f"{n_waiting} questions are waiting already; ask again in about {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


@dataclass(eq=False)
class _Waiting:
    """A question, what is to become of it, and its tokens once they have been made."""

    question: Question
    future: Future[Answered]
    encoded: EncodedQuestion | None = None


class AnswerQueue:
    """Questions from any thread, answered by one: those that wait join those under way as they find room.

    A future that is cancelled takes its question out, whether it waits or is being answered.
    """

    def __init__(self, batch: AnswerBatch, *, max_waiting: int, gather_seconds: float = GATHER_SECONDS) -> None:
        """Start the thread.

        Args:
            batch: nobody else may use it from now on.
            max_waiting: questions that may wait beside those being answered.
            gather_seconds: see `GATHER_SECONDS`.
        """
        self._batch = batch
        self._max_waiting, self._gather_seconds = max_waiting, gather_seconds
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[Answer, Future[Answered]] = {}
        self._changed = threading.Condition()  # with a lock that its holder may take again
        self._stopping = False
        self._n_steps = 0
        self._n_answered, self._busy_seconds = 0, 0.0
        self._thread = threading.Thread(target=self._work, name="capo-answers", daemon=True)
        self._thread.start()

    def submit(self, question: Question) -> Future[Answered]:
        """Return what becomes of a question; a CapoError if it cannot be asked.

        Raises:
            OverloadedError: if as many wait as may.
            ServeError: if the server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise ServeError("the server is stopping")
            if self.n_waiting >= self._max_waiting:
                raise OverloadedError(self.n_waiting, self._estimate_seconds())
            future: Future[Answered] = Future()
            self._waiting.append(_Waiting(question, future))
            self._changed.notify()
        return future

    @property
    def n_waiting(self) -> int:
        """Questions that wait and are still wanted."""
        with self._changed:
            return sum(not one.future.cancelled() for one in self._waiting)

    @property
    def n_running(self) -> int:
        return len(self._running)

    def stop(self) -> None:
        """End the thread after the token it is at; whatever is open fails with ServeError."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _estimate_seconds(self) -> int:
        """Return about how long those that wait will take, from how long others took."""
        each = self._busy_seconds / self._n_answered if self._n_answered else 1.0
        return min(_MAX_RETRY_SECONDS, max(1, math.ceil(each * self.n_waiting)))

    def _work(self) -> None:
        while self._wait_for_work():
            started = time.monotonic()
            try:
                self._step()
            except Exception as error:  # whatever it is, those who wait for answers must hear of it
                _LOGGER.exception("answering failed; %d questions under way are given up", len(self._running))
                self._fail_running(error)
            self._busy_seconds += time.monotonic() - started
        self._fail_running(ServeError("the server is stopping"))
        while self._waiting:
            _fail(self._waiting.popleft().future, ServeError("the server is stopping"))

    def _wait_for_work(self) -> bool:
        """Return as soon as there is something to do; False if the server is stopping."""
        with self._changed:
            if not self._running:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                self._changed.wait_for(lambda: self._stopping, timeout=self._gather_seconds)
            return not self._stopping

    def _step(self) -> None:
        for answer, future in list(self._running.items()):
            if future.cancelled():
                self._batch.drop(answer)
                del self._running[answer]
        self._n_steps += 1
        if self._is_time_to_join():
            self._join()
        for answer in self._batch.advance():
            future = self._running.pop(answer)
            self._n_answered += 1
            if future.set_running_or_notify_cancel():
                future.set_result((answer, self._batch.read_choices(answer)))

    def _is_time_to_join(self) -> bool:
        n_waiting = len(self._waiting)
        return n_waiting > 0 and (self._n_steps >= _JOIN_STEPS or n_waiting >= _JOIN_SHARE * self._batch.n_rows)

    def _join(self) -> None:
        """Let those that wait join, in the order they came, as long as there is room."""
        self._n_steps = 0
        joining: list[tuple[EncodedQuestion, Future[Answered]]] = []
        while self._waiting:
            first = self._waiting[0]
            try:
                if not first.future.cancelled():
                    first.encoded = first.encoded or self._batch.encode(first.question)
                    if not self._batch.has_room(first.encoded, [encoded for encoded, _ in joining]):
                        break
                    joining.append((first.encoded, first.future))
            except CapoError as error:
                _fail(first.future, error)
            with self._changed:
                self._waiting.popleft()
        if not joining:
            return
        try:
            answers = self._batch.join([encoded for encoded, _ in joining])
        except Exception as error:
            for _, future in joining:
                _fail(future, error)
            raise
        self._running |= {answer: future for answer, (_, future) in zip(answers, joining, strict=True)}

    def _fail_running(self, error: Exception) -> None:
        for future in self._running.values():
            _fail(future, error)
        self._running = {}
        self._batch.clear()


def _fail(future: Future[Answered], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
