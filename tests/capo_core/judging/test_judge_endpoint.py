from __future__ import annotations

import socket
import time
from email.utils import formatdate
from typing import Any

import pytest
from endpoint_server import Request, Scripted, complete, make_plain_questions, serve

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.endpoint_backend import JudgeCall, OpenAIJudgeBackend
from schemas.judge import OpenAIJudge

KEY_VARIABLE = "CAPO_TEST_JUDGE_KEY"
KEY = "sk-secret-of-the-test"


def make_backend(address: str, **settings: Any) -> OpenAIJudgeBackend:
    given = {name: settings.pop(name) for name in ("on_call", "api_key") if name in settings}
    config = OpenAIJudge.model_validate({"base_url": address, "model": "m", "timeout_seconds": 5.0} | settings)
    return OpenAIJudgeBackend(config, backoff_seconds=0.01, **given)


def ask(address: str, n: int = 1, **settings: Any) -> list[JudgeAnswer]:
    return list(make_backend(address, **settings).answer(make_plain_questions(n)))


def test_a_verdict_comes_with_its_words_tokens_and_time() -> None:
    with serve(lambda request: complete("Answer: B")) as server:
        (answer,) = ask(server.address)
    assert (answer.question_id, answer.position, answer.status) == ("question0", 1, "ok")
    assert (answer.response, answer.n_prompt_tokens, answer.n_answer_tokens) == ("Answer: B", 77, 3)
    assert answer.n_attempts == 1
    assert 0 < (answer.seconds or 0) < 5
    (request,) = server.requests
    assert request.body["messages"] == list(make_plain_questions(1)[0].messages)
    assert (request.body["model"], request.body["temperature"], request.body["max_tokens"]) == ("m", 0, 64)
    assert request.body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"] == ["A", "B", "C"]


# How the fault shows, settings, what the reason of the failure says.
RETRIED: dict[str, tuple[Scripted, dict[str, Any], str]] = {
    "429": (Scripted('{"error": {"message": "slow down"}}', 429), {}, "HTTP 429"),
    "short body": (Scripted(complete("B").body[:60], n_missing=99), {}, "connection"),
    "another length": (Scripted(complete("B").body, headers={"Content-Length": "9999"}), {"timeout_seconds": 0.2}, ""),
    "reset": (Scripted(reset=True), {}, "connection"),
    "hang": (Scripted(delay_seconds=9), {"timeout_seconds": 0.2}, "within 0.2 s"),
    "drip": (Scripted(complete("B").body, drip_seconds=0.05), {"timeout_seconds": 0.2}, "within 0.2 s"),
    "truncated JSON": (Scripted(complete("B").body[:60]), {}, "not JSON"),
}


@pytest.mark.parametrize("fault", RETRIED)
def test_a_fault_that_stays_ends_as_failed_with_its_reason(fault: str) -> None:
    scripted, settings, reason = RETRIED[fault]
    with serve(lambda request: scripted) as server:
        (answer,) = ask(server.address, max_attempts=3, **settings)
    assert (answer.status, answer.position, answer.candidate_scores) == ("failed", None, None)
    assert reason in answer.response
    assert "after 3 of 3 attempts" in answer.response
    assert (answer.n_attempts, len(server.requests)) == (3, 3)


@pytest.mark.parametrize("fault", RETRIED)
def test_a_fault_that_passes_is_overcome(fault: str) -> None:
    scripted, settings, _ = RETRIED[fault]
    with serve(lambda request: scripted if request.attempt <= 2 else complete("Answer: C")) as server:
        (answer,) = ask(server.address, timeout_seconds=0.6 if settings else 5.0)
    assert (answer.status, answer.position, answer.n_attempts) == ("ok", 2, 3)
    assert len(server.requests) == 3


def test_a_closed_port_is_a_lost_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        (answer,) = ask(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", max_attempts=2)
    assert answer.status == "failed"
    assert answer.response.startswith("after 2 of 2 attempts: connection: ")


@pytest.mark.parametrize("text", ["Answer: Z", "They all read alike to me, it might be A.", "", None])
def test_an_answer_without_a_candidate_is_unparseable_and_not_asked_again(text: str | None) -> None:
    with serve(lambda request: complete(text)) as server:
        (answer,) = ask(server.address)
    assert (answer.status, answer.position, answer.response) == ("unparseable", None, text or "")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    with serve(lambda request: Scripted('{"error": "no"}', status)) as server:
        (answer,) = ask(server.address)
    assert answer.status == "failed"
    assert f"after 1 of 6 attempts: HTTP {status}" in answer.response
    assert len(server.requests) == 1


def test_a_question_that_cannot_be_sent_fails_alone() -> None:
    first, second = make_plain_questions(2)
    first.messages[1]["content"] = "half a surrogate pair: \ud800"
    with serve(lambda request: complete("A")) as server:
        answers = {answer.question_id: answer for answer in make_backend(server.address).answer([first, second])}
    assert answers["question0"].status == "failed"
    assert answers["question1"].status == "ok"


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_date", [False, True])
def test_the_pause_a_server_asks_for_is_kept(as_date: bool) -> None:
    def script(request: Request) -> Scripted:
        # A date has whole seconds: two seconds ahead is more than one second from now.
        wait = formatdate(time.time() + 2, usegmt=True) if as_date else "0.6"
        return Scripted("{}", 429, {"Retry-After": wait}) if request.attempt == 1 else complete("A")

    with serve(script) as server:
        assert [answer.status for answer in ask(server.address)] == ["ok"]
    first, second = server.requests
    assert second.at - first.at >= (0.9 if as_date else 0.6)


def test_a_wait_past_the_deadline_fails_at_once() -> None:
    with serve(lambda request: Scripted("{}", 429, {"Retry-After": "3600"})) as server:
        (answer,) = ask(server.address)
    assert answer.response == (
        "after 1 of 6 attempts: HTTP 429: {}; the server asks to wait 3.6e+03 s, past the deadline of 180 s"
    )
    assert len(server.requests) == 1
    assert (answer.seconds or 99) < 10


@pytest.mark.parametrize("deadline_seconds", [1.0, 2.0])
def test_the_deadline_holds_over_all_attempts(deadline_seconds: float) -> None:
    # Attempts of 0.4 s: the deadline cuts the third or the sixth short, or falls into the pause before it.
    with serve(lambda request: Scripted(delay_seconds=9)) as server:
        answers = ask(server.address, n=4, timeout_seconds=0.4, deadline_seconds=deadline_seconds)
    for answer in answers:
        assert answer.status == "failed"
        assert "deadline of" in answer.response
        # A tenth more, and 0.3 s for a machine with other work.
        assert 0.5 * deadline_seconds < (answer.seconds or 0) <= 1.1 * deadline_seconds + 0.3
        assert answer.n_attempts <= 6


def test_a_question_waiting_for_its_turn_does_not_use_up_its_deadline() -> None:
    # Eight questions of 0.2 s one after the other take 1.6 s.
    with serve(lambda request: Scripted(complete("A").body, delay_seconds=0.2)) as server:
        answers = ask(server.address, n=8, n_concurrent=1, deadline_seconds=1.0)
    assert [answer.status for answer in answers] == ["ok"] * 8


def test_no_more_calls_than_allowed_run_at_once() -> None:
    with serve(lambda request: Scripted(complete("A").body, delay_seconds=0.05)) as server:
        answers = ask(server.address, n=12, n_concurrent=3)
    assert {answer.question_id for answer in answers} == {f"question{i}" for i in range(12)}
    assert server.most_concurrent == 3


def test_answers_come_as_they_are_given_and_asking_can_stop() -> None:
    with serve(lambda r: complete("A") if r.question_id == "question0" else Scripted(delay_seconds=9)) as server:
        answers = make_backend(server.address, n_concurrent=1).answer(make_plain_questions(20))
        assert next(iter(answers)).status == "ok"
        answers.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(server.requests) <= 2


def test_answers_nobody_has_taken_yet_are_few() -> None:
    # Whoever keeps the answers is slow: meanwhile twice the calls allowed at once are made, and no more.
    with serve(lambda request: complete("A")) as server:
        answers = make_backend(server.address, n_concurrent=3).answer(make_plain_questions(30))
        next(answers)
        time.sleep(0.5)
        assert 3 < len(server.requests) <= 6
        assert len(list(answers)) == 29
    assert len(server.requests) == 30


# --- what servers do not take -----------------------------------------------------------------------------------


def test_structured_output_is_left_out_once_a_server_has_refused_it() -> None:
    def script(request: Request) -> Scripted:
        if "response_format" in request.body:
            return Scripted('{"error": {"message": "Unrecognized request argument: response_format"}}', 400)
        return complete("Answer: A")

    with serve(script) as server:
        answers = ask(server.address, n=5, n_concurrent=1)
    assert [answer.status for answer in answers] == ["ok"] * 5
    # One refusal, then five calls without.
    assert len(server.requests) == 6
    assert all("temperature" in request.body for request in server.requests)


def test_a_length_limit_refused_by_name_is_given_by_its_other_name() -> None:
    def script(request: Request) -> Scripted:
        if "max_tokens" in request.body:
            return Scripted("'max_tokens' is not supported, use 'max_completion_tokens' instead", 400)
        return complete("A")

    with serve(script) as server:
        assert [answer.status for answer in ask(server.address)] == ["ok"]
    assert server.requests[1].body["max_completion_tokens"] == 64


def test_nothing_is_left_out_for_others_because_one_question_was_too_long() -> None:
    def script(request: Request) -> Scripted:
        too_long = request.question_id == "question0"
        return Scripted("max_tokens is too large for this context", 400) if too_long else complete("A")

    with serve(script) as server:
        answers = {answer.question_id: answer for answer in ask(server.address, n=3, n_concurrent=1)}
    assert answers["question0"].status == "failed"
    assert answers["question0"].n_attempts == 2
    assert all("max_tokens" in request.body for request in server.requests if request.question_id != "question0")


# --- the key ----------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    # One complaint has the key where what is shown of it ends.
    replies = [Scripted(f"bad key {KEY}", 401), complete(f"Answer: A, {KEY}"), Scripted("x" * 290 + KEY, 500)]
    replies += [Scripted(f"not JSON {KEY}"), complete([KEY])]
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    caplog.set_level("DEBUG")
    calls: list[JudgeCall] = []
    for reply in replies:
        with serve(lambda request, reply=reply: reply) as server:
            answers = ask(server.address, api_key_env=KEY_VARIABLE, max_attempts=2, on_call=calls.append)
        assert server.requests[0].authorization == f"Bearer {KEY}"
        assert KEY[:8] not in repr(answers)
    assert "bad key [key]" in calls[0].response
    assert KEY[:8] not in repr(calls) + caplog.text


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "which is not set"), (" ", "which is not set"), ("sk-ä", "no key has")]
)
def test_a_missing_or_impossible_key_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None, reason: str) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(JudgeError, match=f"environment variable {KEY_VARIABLE}.*{reason}"):
        make_backend("http://127.0.0.1:9/v1", api_key_env=KEY_VARIABLE)


def test_a_key_that_is_given_is_sent_and_shown_nowhere() -> None:
    with serve(lambda request: Scripted(f"bad key {KEY}", 401)) as server:
        (answer,) = ask(server.address, api_key=KEY)
    assert server.requests[0].authorization == f"Bearer {KEY}"
    assert "bad key [key]" in answer.response
    with pytest.raises(JudgeError, match="the key given holds characters that no key has"):
        make_backend("http://127.0.0.1:9/v1", api_key="sk-ä")


def test_a_key_for_another_service_is_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve(lambda request: complete("A")) as server:
        ask(server.address)
    assert KEY not in server.requests[0].authorization


# --- observed calls ---------------------------------------------------------------------------------------------


def test_every_call_is_observed_before_its_question_is_answered() -> None:
    calls: list[JudgeCall] = []
    with serve(lambda r: complete("Answer: B") if r.attempt == 2 else Scripted("busy", 503)) as server:
        (answer,) = ask(server.address, on_call=calls.append)
    first, second = calls
    assert (first.question_id, first.attempt, first.status, first.response) == (
        "question0",
        1,
        "failed",
        "HTTP 503: busy",
    )
    assert (first.n_prompt_tokens, first.n_answer_tokens) == (None, None)
    assert (second.attempt, second.status, second.response, second.n_prompt_tokens) == (2, "ok", "Answer: B", 77)
    assert second.judge == "openai:m"
    assert second.messages == make_plain_questions(1)[0].messages
    assert first.started_at < second.started_at
    assert first.seconds + second.seconds <= (answer.seconds or 0)


def test_tokens_of_all_attempts_are_added() -> None:
    with serve(lambda r: complete("Answer: B") if r.attempt == 2 else complete(["no text"])) as server:
        (answer,) = ask(server.address)
    # Both completions report 77 and 3.
    assert (answer.n_prompt_tokens, answer.n_answer_tokens) == (154, 6)
