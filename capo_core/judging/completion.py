"""One chat completion: what is sent for a question, and what the reply, whatever it is, amounts to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from capo_core.judging.backends import parse_verdict
from capo_core.judging.retrying import read_retry_after

MAX_ANSWER_TOKENS = 64
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the limit on an answer's length, the older and wider known one first."""
RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Reply:
    """What one attempt brought: an answer, or the reason why there is none.

    Attributes:
        text: the answer, verbatim; None where there is none.
        is_refusal: whether `text` is the server's refusal to answer, in which no verdict is looked for.
        truncated: whether `text` was cut off at the limit on its length.
        reason: why there is no answer.
        retry: whether another attempt may bring one.
        refused_options: parts of the request that the server does not take.
        wait_seconds: pause the server asks for before the next attempt.
        n_prompt_tokens: as the server counts them; likewise n_answer_tokens.
    """

    text: str | None = None
    is_refusal: bool = False
    truncated: bool = False
    reason: str = ""
    retry: bool = False
    refused_options: frozenset[str] = frozenset()
    wait_seconds: float | None = None
    n_prompt_tokens: int | None = None
    n_answer_tokens: int | None = None

    def find_verdict(self, letters: str) -> int | None:
        """Return the position of the letter that the answer names, or None.

        Of an answer that was cut off, the last line is not read: `Answer: A` may have gone on `or B`. One that ends
        in white space was cut off after its last line.
        """
        text = "" if self.text is None or self.is_refusal else self.text
        if self.truncated and text == text.rstrip():
            text = text[: text.rfind("\n") + 1]
        return parse_verdict(text, letters)


def request_options(letters: str, refused: Collection[str]) -> dict[str, Any]:
    """Return the optional parts of a request but for those that the server has refused.

    Args:
        letters: the answers allowed.
        refused: names of options to leave out.
    """
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(letters)}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    limit = TOKEN_LIMITS[TOKEN_LIMITS[0] in refused]
    wanted = {
        "temperature": 0.0,
        limit: MAX_ANSWER_TOKENS,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": schema},
        },
    }
    return {name: value for name, value in wanted.items() if name not in refused}


def read_completion(body: str) -> Reply:
    """Return the answer in the body of a chat completion, or the reason why `body` is none."""
    shown = repr(body[:_SHOWN_CHARACTERS])
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        return Reply(reason=f"the body is not JSON: {shown}", retry=True)
    counts: dict[str, Any] = _read_usage(completion)
    try:
        choice = completion["choices"][0]
        content, refusal = choice["message"]["content"], choice["message"].get("refusal")
        truncated = choice.get("finish_reason") == "length"
    except (LookupError, TypeError, AttributeError):
        return Reply(reason=f"the body is no chat completion: {shown}", retry=True, **counts)
    if content is not None and not isinstance(content, str):
        return Reply(reason=f"the completion's content is no text: {shown}", retry=True, **counts)
    if not content and isinstance(refusal, str):
        return Reply(text=_make_storable(refusal), is_refusal=True, **counts)
    return Reply(text=_make_storable(content or ""), truncated=truncated, **counts)


def read_error_status(status: int, body: str, headers: Mapping[str, str], options: Collection[str]) -> Reply:
    """Return what an error status says: whether to try again, when, and without which options.

    An option is refused by a 400 or 422 that names it. The limit on an answer's length is tried under its other name
    and never left out: a server that complains of both speaks of the length itself.
    """
    reason = f"HTTP {status}: {body[:_SHOWN_CHARACTERS]}"
    if status in (400, 422):
        refused = frozenset(name for name in options if name in body and name != TOKEN_LIMITS[-1])
        return Reply(reason=reason, retry=bool(refused), refused_options=refused)
    retry = status in RETRIED_STATUSES or status >= 500
    return Reply(reason=reason, retry=retry, wait_seconds=read_retry_after(headers))


def _make_storable(text: str) -> str:
    """Return `text` with `?` for half surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _read_usage(completion: Any) -> dict[str, int | None]:
    """Return the token counts of a completion, None where they are missing or no counts."""
    usage = completion.get("usage") if isinstance(completion, dict) else None
    values = usage if isinstance(usage, dict) else {}
    counts = {"n_prompt_tokens": values.get("prompt_tokens"), "n_answer_tokens": values.get("completion_tokens")}
    return {name: count if type(count) is int and count >= 0 else None for name, count in counts.items()}
