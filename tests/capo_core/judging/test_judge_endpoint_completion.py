from __future__ import annotations

import json
import random
from email.utils import formatdate
from itertools import islice, pairwise
from time import time
from typing import Any

import pytest
from endpoint_server import complete

from capo_core.judging.completion import TOKEN_LIMITS, Reply, read_completion, read_error_status, request_options
from capo_core.judging.retrying import draw_pauses, read_retry_after


@pytest.mark.parametrize(
    ("content", "position"),
    [
        ('{"answer": "B"}', 1),
        ("Answer: C", 2),
        ("Answer: D", None),
        ('{"answer": "none"}', None),
        ("", None),
        (None, None),
    ],
)
def test_a_completion_is_an_answer_with_or_without_a_verdict(content: str | None, position: int | None) -> None:
    reply = read_completion(complete(content).body)
    assert (reply.text, reply.find_verdict("ABC")) == (content or "", position)
    assert (reply.n_prompt_tokens, reply.n_answer_tokens) == (77, 3)


def test_no_verdict_is_read_out_of_a_refusal() -> None:
    reply = read_completion(complete(None, refusal="A").body)
    assert (reply.text, reply.find_verdict("ABC")) == ("A", None)


@pytest.mark.parametrize(
    ("content", "position"),
    [
        # "Answer: A" may have gone on "or B"; a line that is over has not, and a JSON object is over at its brace.
        ("Answer: A", None),
        ("Answer: C\nOn the other hand, the ans", 2),
        ("Answer: B\n", 1),
        ('{"answer": "B"}   ', 1),
        ('{"answer": "', None),
    ],
)
def test_of_an_answer_that_was_cut_off_the_last_line_is_not_read(content: str, position: int | None) -> None:
    reply = read_completion(complete(content, finish_reason="length").body)
    assert reply.text == content
    assert reply.find_verdict("ABC") == position


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not JSON"),
        ("<html>ok</html>", "not JSON"),
        (complete("A").body[:-5], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "no chat completion"),
        ("null", "no chat completion"),
        ('{"choices": []}', "no chat completion"),
        ('{"choices": [{"message": "A"}]}', "no chat completion"),
        ('{"choices": [{"message": {}}]}', "no chat completion"),
        ('{"choices": {"0": {"message": {"content": "A"}}}}', "no chat completion"),
        (complete(["A"]).body, "no text"),
        (complete({"answer": "A"}).body, "no text"),
    ],
)
def test_what_is_no_completion_is_worth_another_attempt(body: str, reason: str) -> None:
    reply = read_completion(body)
    assert reply.text is None
    assert reply.retry
    assert reason in reply.reason


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"prompt_tokens": "7", "completion_tokens": -1}, {"prompt_tokens": True}]
)
def test_token_counts_that_are_none_are_unknown(usage: Any) -> None:
    reply = read_completion(complete("A", usage=usage).body)
    assert (reply.n_prompt_tokens, reply.n_answer_tokens) == (None, None)


def test_tokens_of_an_unreadable_completion_are_counted() -> None:
    assert read_completion(complete(["A"]).body).n_prompt_tokens == 77


def test_half_a_surrogate_pair_becomes_storable() -> None:
    assert read_completion(complete("A\ud800").body).text == "A?"


def test_garbage_never_becomes_a_verdict() -> None:
    # 2,000 damaged completions: bytes cut, doubled or replaced. What is still read as C was still stated as C.
    rng = random.Random(13)
    whole = complete('{"answer": "C"}').body
    for _ in range(2000):
        start, end = sorted(rng.randrange(len(whole)) for _ in range(2))
        damage = rng.choice(["", whole[start:end] * 2, chr(rng.randrange(32, 0x3000))])
        reply = read_completion(whole[:start] + damage + whole[end:])
        position = reply.find_verdict("ABC")
        assert position is None or "ABC"[position] in json.dumps(reply.text)
        assert (reply.text is None) == bool(reply.reason)


def test_the_allowed_answers_and_limits_are_sent() -> None:
    options = request_options("AB", refused=())
    assert set(options) == {"temperature", "max_tokens", "response_format"}
    assert options["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"] == ["A", "B"]


@pytest.mark.parametrize(
    ("body", "refused", "retry"),
    [
        ("Unknown argument: response_format", {"response_format"}, True),
        ("temperature and response_format are not supported", {"temperature", "response_format"}, True),
        ("'max_tokens' is not supported, use 'max_completion_tokens'", {"max_tokens"}, True),
        ("context too long", set(), False),
    ],
)
def test_an_option_is_refused_by_being_named(body: str, refused: set[str], retry: bool) -> None:
    reply = read_error_status(400, body, {}, request_options("AB", refused=()))
    assert (set(reply.refused_options), reply.retry) == (refused, retry)


def test_the_answers_length_is_always_limited() -> None:
    options = request_options("AB", refused={TOKEN_LIMITS[0]})
    assert options[TOKEN_LIMITS[1]] == 64
    assert TOKEN_LIMITS[0] not in options
    # Refused under both names, it is not left out: nothing more is tried.
    assert read_error_status(400, "max_completion_tokens", {}, options) == Reply(
        reason="HTTP 400: max_completion_tokens"
    )


@pytest.mark.parametrize(
    ("statuses", "retry"),
    [((408, 409, 425, 429, 500, 502, 503, 504, 529), True), ((301, 400, 401, 403, 404, 413, 422), False)],
)
def test_a_status_says_whether_to_ask_again(statuses: tuple[int, ...], retry: bool) -> None:
    for status in statuses:
        assert read_error_status(status, "{}", {}, ()).retry == retry


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("inf", float("inf")), ("nan", None), ("soon", None), ("", None)],
)
def test_a_wait_is_read_as_seconds(value: str, seconds: float | None) -> None:
    assert read_retry_after({"retry-after": value}) == seconds


def test_a_wait_is_read_as_a_date() -> None:
    assert read_retry_after({"retry-after": formatdate(time() + 100, usegmt=True)}) == pytest.approx(100, abs=2)
    assert read_retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0
    assert read_retry_after({}) is None


def test_pauses_double_up_to_sixteen_times_and_differ_between_questions() -> None:
    pauses = list(islice(draw_pauses(1.0, "a"), 8))
    for pause, longest in zip(pauses, [1, 2, 4, 8, 16, 16, 16, 16], strict=True):
        assert longest / 2 <= pause <= longest
    assert all(before != after for before, after in pairwise(pauses))
    assert pauses == list(islice(draw_pauses(1.0, "a"), 8))
    assert pauses != list(islice(draw_pauses(1.0, "b"), 8))
