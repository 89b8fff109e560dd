"""A judge behind any OpenAI-compatible chat endpoint: a hosted API, vLLM, `transformers serve`."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer, VerdictStatus
from capo_core.judging.budget import Budget
from capo_core.judging.completion import Reply, read_completion, read_error_status, request_options
from capo_core.judging.questions import JudgeQuestion
from capo_core.judging.retrying import Deadline, draw_pauses, explain_lost_wait
from capo_core.prompts import Message
from schemas.judge import OpenAIJudge


@dataclass(frozen=True)
class JudgeCall:
    """One attempt at a question, for observers.

    Attributes:
        judge: the backend's name.
        question_id: the question.
        attempt: 1 for the first.
        started_at: seconds since the epoch.
        seconds: how long it took.
        status: ok or unparseable where there was an answer, else failed.
        n_prompt_tokens: as the server counts them, where it does; likewise n_answer_tokens.
        messages: what was sent.
        response: the answer verbatim, or why there is none.
    """

    judge: str
    question_id: str
    attempt: int
    started_at: float
    seconds: float
    status: VerdictStatus
    n_prompt_tokens: int | None
    n_answer_tokens: int | None
    messages: tuple[Message, ...]
    response: str


class OpenAIJudgeBackend:
    """Asks an OpenAI-compatible endpoint, several questions at a time, until the answers or the budget are complete."""

    def __init__(
        self,
        config: OpenAIJudge,
        *,
        api_key: str | None = None,
        backoff_seconds: float = 0.5,
        on_call: Callable[[JudgeCall], None] | None = None,
    ) -> None:
        """Take the key that is given, or read it from the environment variable that `config.api_key_env` names.

        Args:
            config: endpoint, model, limits, prices. The budget is one for everything this object asks.
            api_key: the key, where the caller has it from elsewhere.
            backoff_seconds: see `draw_pauses`.
            on_call: told of every attempt once its question is answered, in the thread that takes the answers.

        Raises:
            JudgeError: if the variable is named but not set, or what is there cannot be a key.
        """
        self._config = config
        self._backoff_seconds = backoff_seconds
        self._on_call = on_call or _ignore
        self._api_key = _read_key(config.api_key_env) if api_key is None else _check_key(api_key, "the key given")
        self._budget = Budget(config)
        # Options a server has been shown not to take, for all calls that follow.
        self._refused: frozenset[str] = frozenset()
        self.name = f"openai:{config.model}"

    def count_spent(self, answers: Iterable[JudgeAnswer]) -> None:
        """Count answers of an earlier run, which this one carries on, towards the budget."""
        for answer in answers:
            self._budget.count(answer.n_prompt_tokens, answer.n_answer_tokens)

    def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
        """Yield an answer per question as they come, at most `n_concurrent` calls being under way.

        An answer without a readable verdict is unparseable and not asked again. A call is repeated on 408, 409, 425,
        429, 5xx, a lost connection, `timeout_seconds` without a complete answer, a body that is not the JSON of a
        chat completion, and a refused option, which is then left out; each time after a growing random pause, or the
        one the server asks for. After `max_attempts` in all, on any other status, or when the next pause would end
        past `deadline_seconds`, the question is failed with the reason as its response. Once the budget is spent,
        what is under way is finished and the rest is not_asked. Nothing raises for a single question.
        """
        from openai import AsyncOpenAI

        client = AsyncOpenAI(
            api_key=self._api_key or "none",  # the library insists on one
            base_url=self._config.base_url,
            timeout=self._config.timeout_seconds,
            max_retries=0,
        )
        # Looked up here because it loads modules, for which no question's deadline should pay.
        create = client.chat.completions.with_raw_response.create
        slots = asyncio.Semaphore(self._config.n_concurrent)
        room = asyncio.Semaphore(2 * self._config.n_concurrent)
        with _event_loop(at_end=client.close) as loop:
            futures = [asyncio.run_coroutine_threadsafe(self._answer(create, slots, room, q), loop) for q in questions]
            for future in as_completed(futures):
                answer, calls = future.result()
                for call in calls:
                    self._on_call(call)
                yield answer
                loop.call_soon_threadsafe(room.release)

    async def _answer(
        self, create: Any, slots: asyncio.Semaphore, room: asyncio.Semaphore, question: JudgeQuestion
    ) -> tuple[JudgeAnswer, list[JudgeCall]]:
        """Return the answer to one question and the calls it took, once there is room and as long as there is money.

        Args:
            create: makes a chat completion.
            slots: one for each call that may be under way.
            room: one for each answer that may be under way or not yet dealt with by the caller: what a killed process
                has paid for and not yet kept is little.
            question: the question.
        """
        await room.acquire()
        async with slots:
            stop = self._budget.find_stop()
            if stop is not None:
                return JudgeAnswer(question.question_id, None, "not_asked", stop, n_attempts=0), []
            return await self._ask(create, question)

    async def _ask(self, create: Any, question: JudgeQuestion) -> tuple[JudgeAnswer, list[JudgeCall]]:
        """Return the answer to one question after at most `max_attempts` calls, and these calls."""
        deadline = Deadline(self._config.deadline_seconds)
        pauses = draw_pauses(self._backoff_seconds, seed=question.question_id)
        refused, calls = self._refused, []
        while True:
            started_at, before = time.time(), deadline.elapsed
            reply = await self._call(create, question, refused, deadline)
            self._budget.count(reply.n_prompt_tokens, reply.n_answer_tokens, answered=reply.text is not None)
            seconds = deadline.elapsed - before
            calls.append(self._describe_call(question, len(calls) + 1, started_at, seconds, reply))
            if reply.text is not None:
                # Only now is it sure that the options were the trouble.
                self._refused |= refused
                return self._close(question, calls, reply, deadline), calls
            if not reply.retry or len(calls) == self._config.max_attempts:
                return self._close(question, calls, reply, deadline), calls
            refused |= reply.refused_options
            pause = (reply.wait_seconds or 0.0) + next(pauses)
            if pause >= deadline.remaining:
                why = explain_lost_wait(reply.wait_seconds, deadline)
                return self._close(question, calls, reply, deadline, why), calls
            await asyncio.sleep(pause)

    async def _call(self, create: Any, question: JudgeQuestion, refused: frozenset[str], deadline: Deadline) -> Reply:
        """Return what one call brought. The time limit covers the call from connecting to the last byte."""
        import openai

        options = request_options(question.letters, refused)
        limit = min(self._config.timeout_seconds, deadline.remaining)
        try:
            async with asyncio.timeout(limit):
                response = await create(model=self._config.model, messages=list(question.messages), **options)
            return read_completion(self._redact(response.http_response.text))
        except (TimeoutError, openai.APITimeoutError):
            return Reply(reason=f"no complete answer within {limit:.3g} s", retry=True)
        except openai.APIStatusError as error:
            body = self._redact(error.response.text)
            return read_error_status(error.status_code, body, error.response.headers, options)
        except openai.APIConnectionError as error:
            return Reply(reason=f"connection: {error.__cause__ or error}", retry=True)
        except openai.OpenAIError as error:
            return Reply(reason=f"{type(error).__name__}: {error}", retry=True)
        except ValueError as error:  # text that cannot be sent, such as half a surrogate pair
            return Reply(reason=f"the question cannot be sent: {error}")

    def _describe_call(
        self, question: JudgeQuestion, attempt: int, started_at: float, seconds: float, reply: Reply
    ) -> JudgeCall:
        status = "failed" if reply.text is None else _judge_status(reply.find_verdict(question.letters))
        return JudgeCall(
            judge=self.name,
            question_id=question.question_id,
            attempt=attempt,
            started_at=started_at,
            seconds=seconds,
            status=status,
            n_prompt_tokens=reply.n_prompt_tokens,
            n_answer_tokens=reply.n_answer_tokens,
            messages=question.messages,
            response=self._redact(reply.reason if reply.text is None else reply.text),
        )

    def _close(
        self, question: JudgeQuestion, calls: Sequence[JudgeCall], reply: Reply, deadline: Deadline, why: str = ""
    ) -> JudgeAnswer:
        """Return the answer to a question after its last call; `why` no further one was made, if not for its reply."""
        position = reply.find_verdict(question.letters)
        response = calls[-1].response
        if reply.text is None:
            reasons = "; ".join(reason for reason in (response, why) if reason)
            response = f"after {len(calls)} of {self._config.max_attempts} attempts: {reasons}"
        return JudgeAnswer(
            question_id=question.question_id,
            position=position,
            status=calls[-1].status,
            response=response,
            n_prompt_tokens=_add_known(call.n_prompt_tokens for call in calls),
            n_answer_tokens=_add_known(call.n_answer_tokens for call in calls),
            n_attempts=len(calls),
            seconds=deadline.elapsed,
        )

    def _redact(self, text: str) -> str:
        """Return `text` without the key, which some servers repeat in their complaints."""
        return text.replace(self._api_key, "[key]") if self._api_key else text


def _ignore(call: JudgeCall) -> None:
    """Observe nothing."""


def _judge_status(position: int | None) -> VerdictStatus:
    return "unparseable" if position is None else "ok"


def _add_known(counts: Iterable[int | None]) -> int | None:
    """Return the sum of the counts that are known, None where none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _read_key(variable: str | None) -> str | None:
    """Return the key in the environment variable, None where no variable is named."""
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key.strip():
        raise JudgeError(f"the judge's key is expected in the environment variable {variable}, which is not set")
    return _check_key(key, f"the environment variable {variable}")


def _check_key(key: str, place: str) -> str:
    """Return the key without the space around it, if it can be one."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise JudgeError(f"{place} holds characters that no key has, or none; set it to the key")
    return key


@contextmanager
def _event_loop(at_end: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own; on leaving, what still runs in it is cancelled, then `at_end` awaited.

    A caller that takes its time between two answers, or that has an event loop itself, does not hold up the calls.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="judge", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        asyncio.run_coroutine_threadsafe(at_end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
