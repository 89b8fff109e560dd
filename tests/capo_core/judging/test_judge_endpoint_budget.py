from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from endpoint_server import complete, make_plain_questions, serve

from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.budget import Budget, compute_cost
from capo_core.judging.endpoint_backend import OpenAIJudgeBackend
from capo_core.judging.journal import VerdictJournal
from schemas.judge import OpenAIJudge

# Every call takes 77 tokens of prompt and 3 of answer, 80 in all; at these prices 77 · 2 + 3 · 10 = 184.
PRICES = {"price_per_million_prompt_tokens": 2e6, "price_per_million_answer_tokens": 10e6}


def make_config(address: str, **settings: Any) -> OpenAIJudge:
    return OpenAIJudge.model_validate({"base_url": address, "model": "m", "n_concurrent": 1} | settings)


def count_statuses(answers: list[JudgeAnswer]) -> dict[str, int]:
    return dict(Counter(answer.status for answer in answers))


@pytest.mark.parametrize(
    ("settings", "n_asked", "reason"),
    [
        # 80, 160 and 240 tokens: the third call passes 200, the fourth is not made.
        ({"max_tokens_spent": 200}, 3, "the budget is spent: 240 tokens of max_tokens_spent 200"),
        ({"max_tokens_spent": 160}, 2, "the budget is spent: 160 tokens of max_tokens_spent 160"),
        ({"max_cost": 200.0, **PRICES}, 2, "the budget is spent: 368 of max_cost 200"),
        ({"max_cost": 1e9, "max_tokens_spent": 1, **PRICES}, 1, "the budget is spent: 80 tokens of max_tokens_spent 1"),
    ],
)
def test_once_the_budget_is_spent_nothing_more_is_asked(settings: dict[str, Any], n_asked: int, reason: str) -> None:
    with serve(lambda request: complete("A")) as server:
        backend = OpenAIJudgeBackend(make_config(server.address, **settings))
        answers = list(backend.answer(make_plain_questions(10)))
        assert len(answers) == 10
        assert count_statuses(answers) == {"ok": n_asked, "not_asked": 10 - n_asked}
        assert len(server.requests) == n_asked
        for answer in answers:
            if answer.status == "not_asked":
                assert (answer.position, answer.response) == (None, reason)
                assert (answer.n_attempts, answer.n_prompt_tokens, answer.seconds) == (0, None, None)
        # The budget is one for all that this judge is asked.
        assert count_statuses(list(backend.answer(make_plain_questions(5, start=10)))) == {"not_asked": 5}


def test_calls_under_way_are_finished() -> None:
    # Four at once: when the second answer passes the budget, three more are under way at most.
    with serve(lambda request: complete("A")) as server:
        config = make_config(server.address, max_tokens_spent=160, n_concurrent=4)
        answers = list(OpenAIJudgeBackend(config).answer(make_plain_questions(20)))
    statuses = count_statuses(answers)
    assert set(statuses) == {"ok", "not_asked"}
    assert 4 <= statuses["ok"] == len(server.requests) <= 5


def test_a_budget_that_cannot_be_watched_ends_asking() -> None:
    with serve(lambda request: complete("A", usage=None)) as server:
        config = make_config(server.address, max_tokens_spent=1000)
        answers = list(OpenAIJudgeBackend(config).answer(make_plain_questions(4)))
        assert count_statuses(answers) == {"ok": 1, "not_asked": 3}
        assert "does not report the tokens" in answers[-1].response
        # Without a budget there is nothing to watch.
        unlimited = OpenAIJudgeBackend(make_config(server.address))
        assert count_statuses(list(unlimited.answer(make_plain_questions(4)))) == {"ok": 4}


def test_what_an_earlier_run_spent_counts(tmp_path: Any) -> None:
    path = tmp_path / "verdicts.jsonl"
    with serve(lambda request: complete("A")) as server:
        config = make_config(server.address, max_tokens_spent=400)
        list(VerdictJournal(path, OpenAIJudgeBackend(config)).answer(make_plain_questions(3)))
        # 240 spent: two more calls reach 400.
        answers = list(VerdictJournal(path, OpenAIJudgeBackend(config)).answer(make_plain_questions(10)))
        assert count_statuses(answers) == {"ok": 5, "not_asked": 5}
        assert len(server.requests) == 5


def test_cost_is_tokens_times_prices() -> None:
    config = make_config("http://127.0.0.1:9/v1", **PRICES)
    assert compute_cost(config, 77, 3) == pytest.approx(184)
    assert compute_cost(make_config("http://127.0.0.1:9/v1"), 77, 3) is None


def test_a_failed_call_without_a_report_leaves_the_budget_watchable() -> None:
    budget = Budget(make_config("http://127.0.0.1:9/v1", max_tokens_spent=100))
    budget.count(None, None, answered=False)
    assert budget.find_stop() is None
    budget.count(77, None)
    assert "does not report" in (budget.find_stop() or "")
