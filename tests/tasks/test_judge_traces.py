from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from capo_core.judging.endpoint_backend import JudgeCall
from tasks.judge_traces import trace_calls
from tasks.tracking import find_or_create_experiment, tracking_client

ANSWERED = JudgeCall(
    judge="openai:m",
    question_id="question0",
    attempt=2,
    started_at=time.time() - 10,
    seconds=1.5,
    status="ok",
    n_prompt_tokens=77,
    n_answer_tokens=3,
    messages=({"role": "system", "content": "Judge."}, {"role": "user", "content": "A or B? ä\0" + "x" * 5000}),
    response="Answer: B",
)
FAILED = JudgeCall(
    judge="openai:m",
    question_id="question1",
    attempt=1,
    started_at=time.time() - 5,
    seconds=0.25,
    status="failed",
    n_prompt_tokens=None,
    n_answer_tokens=None,
    messages=ANSWERED.messages,
    response="HTTP 503: busy",
)


@pytest.fixture
def run(home: Path) -> tuple[MlflowClient, str, str]:
    """A store of this test's own, with an experiment and a run in it."""
    client = tracking_client()
    experiment_id = find_or_create_experiment("judging")
    return client, experiment_id, client.create_run(experiment_id).info.run_id


def test_calls_become_traces_of_their_run(run: tuple[MlflowClient, str, str]) -> None:
    client, experiment_id, run_id = run
    record = trace_calls(run_id)
    assert record is not None
    record(ANSWERED)
    record(FAILED)
    other_run = client.create_run(experiment_id).info.run_id
    assert len(client.search_traces(locations=[experiment_id])) == 2
    assert len(client.search_traces(locations=[experiment_id], run_id=other_run)) == 0
    traces = {
        t.info.tags["capo.question_id"]: t for t in client.search_traces(locations=[experiment_id], run_id=run_id)
    }

    answered = traces["question0"]
    assert answered.info.state == "OK"
    assert answered.info.token_usage == {"input_tokens": 77, "output_tokens": 3, "total_tokens": 80}
    assert answered.info.execution_duration == 1500
    assert answered.info.request_time == int(ANSWERED.started_at * 1000)
    assert answered.info.tags["capo.attempt"] == "2"
    (span,) = answered.data.spans
    assert span.inputs == {"messages": [dict(message) for message in ANSWERED.messages]}
    assert span.outputs == "Answer: B"
    assert span.span_type == "CHAT_MODEL"
    assert span.get_attribute("mlflow.chat.tokenUsage") == answered.info.token_usage

    failed = traces["question1"]
    assert failed.info.state == "ERROR"
    assert not failed.info.token_usage
    assert failed.data.spans[0].status.description == "HTTP 503: busy"


def test_without_a_run_nothing_is_traced() -> None:
    assert trace_calls(None) is None
