"""A judge behind any OpenAI-compatible chat endpoint: a hosted API, vLLM, `transformers serve`."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer, parse_verdict
from capo_core.judging.questions import JudgeQuestion
from schemas.judge import OpenAIJudge

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_ANSWER_TOKENS = 64
MAX_WAIT_SECONDS = 60.0
"""A server that asks for a longer pause than this before the next attempt is given up."""
RETRIED_STATUSES = frozenset({408, 409, 425, 429})


@dataclass(frozen=True)
class _Reply:
    """What one attempt brought: the answer's text, or why there is none and whether to try again."""

    text: str | None = None
    n_prompt_tokens: int | None = None
    reason: str = ""
    retry: bool = False
    wait_seconds: float | None = None


class OpenAIJudgeBackend:
    """Asks an OpenAI-compatible endpoint, several questions at a time."""

    def __init__(self, config: OpenAIJudge, *, backoff_seconds: float = 0.5) -> None:
        """Read the key from the environment variable that `config.api_key_env` names.

        Args:
            config: endpoint, model, limits.
            backoff_seconds: longest pause before the second attempt; doubled for each further one, up to 16 times it.

        Raises:
            JudgeError: if the variable is named but not set.
        """
        self._config = config
        self._backoff_seconds = backoff_seconds
        self._api_key = _read_key(config.api_key_env)
        # Options a server has refused, for all calls that follow.
        self._refused: set[str] = set()
        self.name = f"openai:{config.model}"

    def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
        """Yield an answer per question as they come, at most `n_concurrent` calls being under way.

        An answer without a readable verdict is unparseable and not asked again. A call is repeated on 408, 409, 425,
        429, 5xx, a lost connection, `timeout_seconds` without a complete answer, and a body that is not the JSON of a
        chat completion, after a growing random pause or the one the server asks for; after `max_attempts` in all, or
        on any other status, it is failed with the reason as its response. Nothing raises for a single question.
        """
        from openai import AsyncOpenAI

        client = AsyncOpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            timeout=self._config.timeout_seconds,
            max_retries=0,
        )
        slots = asyncio.Semaphore(self._config.n_concurrent)
        with _event_loop(at_end=client.close) as loop:
            futures = [asyncio.run_coroutine_threadsafe(self._ask(client, slots, q), loop) for q in questions]
            for future in as_completed(futures):
                yield future.result()

    async def _ask(self, client: AsyncOpenAI, slots: asyncio.Semaphore, question: JudgeQuestion) -> JudgeAnswer:
        """Return the answer to one question after at most `max_attempts` calls."""
        # Only the pauses are random; the seed keeps them from being the same for all questions.
        rng = random.Random(question.question_id)
        reply, attempt = _Reply(), 0
        async with slots:
            while attempt < self._config.max_attempts:
                attempt += 1
                reply = await self._call(client, question)
                if reply.text is not None:
                    return self._to_answer(question, reply)
                if not reply.retry or attempt == self._config.max_attempts:
                    break
                pause = self._backoff_seconds * min(2 ** (attempt - 1), 16) * rng.uniform(0.5, 1.0)
                if (reply.wait_seconds or 0.0) > MAX_WAIT_SECONDS:
                    reply = _Reply(reason=f"{reply.reason}; the server asks to wait {reply.wait_seconds:.0f} s")
                    break
                await asyncio.sleep(pause if reply.wait_seconds is None else reply.wait_seconds + pause)
        reason = self._redact(f"after {attempt} of {self._config.max_attempts} attempts: {reply.reason}")
        return JudgeAnswer(question.question_id, None, "failed", reason)

    async def _call(self, client: AsyncOpenAI, question: JudgeQuestion) -> _Reply:
        """Return what one call brought. The time limit covers the call from connecting to the last byte."""
        import openai

        options = self._options(question)
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                create: Any = client.chat.completions.with_raw_response.create
                response = await create(model=self._config.model, messages=list(question.messages), **options)
            return _read_completion(response.http_response.text)
        except (TimeoutError, openai.APITimeoutError):
            return _Reply(reason=f"no complete answer within {self._config.timeout_seconds:g} s", retry=True)
        except openai.APIStatusError as error:
            return self._read_refusal(error, options)
        except openai.APIConnectionError as error:
            return _Reply(reason=f"connection: {error.__cause__ or error}", retry=True)
        except openai.OpenAIError as error:
            return _Reply(reason=f"{type(error).__name__}: {error}", retry=True)

    def _options(self, question: JudgeQuestion) -> dict[str, Any]:
        """Return the optional parts of the request that the server has not refused so far."""
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": list(question.letters)}},
            "required": ["answer"],
            "additionalProperties": False,
        }
        wanted = {
            "temperature": 0.0,
            "max_tokens": MAX_ANSWER_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "attribution", "strict": True, "schema": schema},
            },
        }
        return {name: value for name, value in wanted.items() if name not in self._refused}

    def _read_refusal(self, error: Any, options: dict[str, Any]) -> _Reply:
        """Return what to do about an error status; a refused option is left out from now on.

        An option is refused by a 400 or 422 that names it.
        """
        status: int = error.status_code
        reason = f"HTTP {status}: {error.response.text[:300]}"
        if status in (400, 422) and options:
            refused = {name for name in options if name in error.response.text}
            self._refused |= refused
            return _Reply(reason=reason, retry=bool(refused), wait_seconds=0.0)
        retry = status in RETRIED_STATUSES or status >= 500
        return _Reply(reason=reason, retry=retry, wait_seconds=_read_retry_after(error.response.headers))

    def _to_answer(self, question: JudgeQuestion, reply: _Reply) -> JudgeAnswer:
        text = reply.text or ""
        position = parse_verdict(text, question.letters)
        return JudgeAnswer(
            question_id=question.question_id,
            position=position,
            status="unparseable" if position is None else "ok",
            response=self._redact(text),
            n_prompt_tokens=reply.n_prompt_tokens,
        )

    def _redact(self, text: str) -> str:
        """Return `text` without the key, which some servers repeat in their complaints."""
        return text.replace(self._api_key, "[key]") if self._config.api_key_env else text


def _read_key(variable: str | None) -> str:
    """Return the key in the environment variable, or a placeholder that the client library insists on."""
    if variable is None:
        return "none"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise JudgeError(f"the judge's key is expected in the environment variable {variable}, which is not set")
    return key


def _read_completion(body: str) -> _Reply:
    """Return the text of a chat completion, or the reason why `body` is none."""
    try:
        completion = json.loads(body)
        content = completion["choices"][0]["message"]["content"]
    except (ValueError, RecursionError):
        return _Reply(reason=f"the body is not JSON: {body[:120]!r}", retry=True)
    except (LookupError, TypeError):
        return _Reply(reason=f"the body is no chat completion: {body[:120]!r}", retry=True)
    if content is not None and not isinstance(content, str):
        return _Reply(reason=f"the completion's content is no text: {body[:120]!r}", retry=True)
    usage = completion.get("usage")
    n_tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return _Reply(text=content or "", n_prompt_tokens=n_tokens if type(n_tokens) is int else None)


def _read_retry_after(headers: Any) -> float | None:
    """Return the seconds a server asks to wait, given as a number or a date; None where it asks for nothing."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


@contextmanager
def _event_loop(at_end: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own; on leaving, what still runs in it is cancelled, then `at_end` awaited.

    A caller that is slow between two answers, or that has an event loop itself, does not hold up the calls.
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
