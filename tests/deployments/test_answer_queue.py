"""The queue before the model: overload, time limits, clients that hang up, failures, stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from served_material import make_recipe, running

from capo_core.errors import ModelError, ServeError
from capo_core.generation.answering import Answer, Choice, EncodedQuestion, Person, Question
from capo_core.generation.row_decoder import Continuation
from capo_core.prompts import ParsedResponse
from deployments.serve.answer_queue import AnswerQueue, OverloadedError
from deployments.serve.app import create_app
from deployments.serve.served_models import ServedModel
from schemas.artifacts import ModelRef
from tasks.registry import Version

RECIPE = make_recipe(ModelRef(id="tiny", path="", fingerprint="tiny-fingerprint"), "ada", ("ada",))
VERSION = Version("served.ada", "1", "m", RECIPE.adapter, (), {})
MODELS = {"served.ada": ServedModel("served.ada", "ada", VERSION, RECIPE, 0)}


@dataclass
class ScriptedBatch:
    """Answers each question after as many tokens as its text says, `room` at a time; each token waits for `go`.

    `joined` are the texts of the questions that joined together, after how many tokens they did so is in `joined_at`,
    and `dropped` are those that left.
    """

    room: int = 100
    go: threading.Event = field(default_factory=threading.Event)
    joined: list[list[str]] = field(default_factory=list)
    joined_at: list[int] = field(default_factory=list)
    n_tokens: int = 0
    dropped: list[str] = field(default_factory=list)
    left: dict[Answer, int] = field(default_factory=dict)
    broken: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.left)

    def encode(self, question: Question) -> EncodedQuestion:
        if question.text == "long":
            raise ModelError("too long")
        return EncodedQuestion(question, [1, 2], 10)

    def has_room(self, encoded: EncodedQuestion, others: Any = ()) -> bool:
        return len(self.left) + len(others) < self.room

    def join(self, questions: Any) -> list[Answer]:
        self.joined.append([one.question.text for one in questions])
        self.joined_at.append(self.n_tokens)
        answers = [Answer(one, [], None, [Continuation([3])]) for one in questions]
        self.left |= {answer: int(answer.encoded.question.text) for answer in answers}
        return answers

    def advance(self) -> list[Answer]:
        assert self.go.wait(timeout=30)
        if self.broken:
            raise RuntimeError("out of memory")
        self.n_tokens += 1
        self.left = {answer: n - 1 for answer, n in self.left.items()}
        complete = [answer for answer, n in self.left.items() if n <= 0]
        self.left = {answer: n for answer, n in self.left.items() if n > 0}
        return complete

    def drop(self, answer: Answer) -> None:
        self.dropped.append(answer.encoded.question.text)
        del self.left[answer]

    def clear(self) -> None:
        self.left = {}

    def read_choices(self, answer: Answer) -> list[Choice]:
        return [Choice(answer.encoded.question.text, ParsedResponse(None, None, "no_label"), 1, False)]


def question(text: str) -> Question:
    return Question(Person("ada", RECIPE, 0), "i", text, "sampled", 1.0, 1.0, 4, 1)


@contextmanager
def queue_of(batch: ScriptedBatch, **settings: Any) -> Iterator[AnswerQueue]:
    made: Any = batch
    queue = AnswerQueue(made, **({"max_waiting": 8, "gather_seconds": 0.05} | settings))
    try:
        yield queue
    finally:
        batch.go.set()
        queue.stop()


@contextmanager
def served(queue: AnswerQueue, timeout_seconds: float) -> Iterator[str]:
    app = create_app(MODELS, queue, api_key="key", allowed_hosts=["127.0.0.1"], timeout_seconds=timeout_seconds)
    with running(uvicorn.Server(uvicorn.Config(app, log_level="error"))) as url:
        yield url


def ask(url: str, text: str, timeout_seconds: float = 30) -> httpx.Response:
    body = {"model": "served.ada", "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": "Bearer key"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=timeout_seconds)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_questions_that_come_together_join_together_and_later_ones_when_there_is_room() -> None:
    batch = ScriptedBatch(room=3)
    with queue_of(batch) as queue:
        first = [queue.submit(question(text)) for text in ("2", "3", "4", "5")]
        wait_until(lambda: queue.n_running == 3)
        assert queue.n_waiting == 1
        batch.go.set()
        assert [future.result(30)[1][0].text for future in first] == ["2", "3", "4", "5"]
    # "5" joins once "2" has left: one waiting is at least a quarter of the two that go on.
    assert batch.joined == [["2", "3", "4"], ["5"]]


def test_a_few_do_not_interrupt_many_but_wait_eight_tokens_at_most() -> None:
    batch = ScriptedBatch()
    with queue_of(batch) as queue:
        many = [queue.submit(question("100")) for _ in range(8)]
        wait_until(lambda: queue.n_running == 8)
        one = queue.submit(question("1"))  # fewer than a quarter of 8
        batch.go.set()
        assert all(future.result(30) for future in (one, *many))
    assert batch.joined == [["100"] * 8, ["1"]]
    assert batch.joined_at == [0, 8]


def test_too_many_are_told_when_to_come_back_and_a_wrong_key_is_refused() -> None:
    batch = ScriptedBatch(room=1)
    with queue_of(batch, max_waiting=2) as queue, served(queue, 30) as url:
        running_one = queue.submit(question("1"))
        wait_until(lambda: queue.n_running == 1)
        waiting = [queue.submit(question("1")) for _ in range(2)]
        with pytest.raises(OverloadedError, match="2 questions are waiting already"):
            queue.submit(question("1"))
        refused = ask(url, "1")
        assert refused.status_code == 503
        # Nothing was answered yet, so each of the 2 that wait counts as a second.
        assert refused.headers["Retry-After"] == "2"
        assert refused.json()["error"]["code"] == "overloaded"
        assert httpx.get(f"{url}/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer keys"}).status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer key"}).status_code == 200
        batch.go.set()
        assert all(future.result(30) for future in (running_one, *waiting))
        assert ask(url, "1").json()["choices"][0]["message"]["content"] == "1"


def test_a_question_is_taken_out_when_its_time_is_over_or_the_client_has_hung_up() -> None:
    batch = ScriptedBatch(room=2)
    with queue_of(batch) as queue, served(queue, 0.5) as url:
        late = ask(url, "1000")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        with pytest.raises(httpx.ReadTimeout):
            ask(url, "2000", timeout_seconds=0.2)
        wait_until(lambda: queue.n_waiting == 0)
        batch.go.set()
        assert ask(url, "1").status_code == 200
    assert batch.joined == [["1000"], ["1"]]
    assert batch.dropped == ["1000"]


def test_a_question_that_cannot_be_asked_fails_alone() -> None:
    batch = ScriptedBatch()
    batch.go.set()
    with queue_of(batch) as queue:
        bad, good = queue.submit(question("long")), queue.submit(question("2"))
        with pytest.raises(ModelError, match="too long"):
            bad.result(30)
        assert good.result(30)[1][0].text == "2"


def test_a_failure_reaches_all_under_way_and_the_next_question_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    batch = ScriptedBatch(broken=True)
    with queue_of(batch) as queue, served(queue, 30) as url, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, url, "5") for _ in range(2)]
        wait_until(lambda: queue.n_running + queue.n_waiting == 2)
        batch.go.set()
        for response in asked:
            assert response.result().status_code == 500
            assert "RuntimeError" in response.result().json()["error"]["message"]
        batch.broken = False
        assert ask(url, "1").status_code == 200
    assert "answering failed" in caplog.text


def test_stopping_tells_those_who_wait() -> None:
    batch = ScriptedBatch(room=1)
    with queue_of(batch) as queue:
        futures = [queue.submit(question("1000")) for _ in range(3)]
        wait_until(lambda: queue.n_running == 1)
        batch.go.set()
        queue.stop()
        for future in futures:
            with pytest.raises(ServeError, match="stopping"):
                future.result(1)
        with pytest.raises(ServeError, match="stopping"):
            queue.submit(question("1"))
