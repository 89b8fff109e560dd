"""MLflow traces of the calls to a judge: one per attempt, with what was sent, what came back and the tokens it took.

The traces are written through the tracing client of an explicit tracking store. MLflow's tracing decorators and
`start_span` send to a store that is global to the process and write in threads of their own, of which a killed
process loses what is not yet written.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capo_core.judging.endpoint_backend import JudgeCall
from tasks.tracking import tracking_client, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo

_PREVIEW = 1000
"""Characters of question and answer shown in the list of traces."""


def trace_calls(run_id: str | None) -> Callable[[JudgeCall], None] | None:
    """Return an observer that records each call to a judge as a trace of an MLflow run; None where there is no run.

    Args:
        run_id: the step's run, which the traces are shown under; `Step.run_id`.
    """
    if run_id is None:
        return None
    from mlflow.tracing.client import TracingClient

    experiment_id = tracking_client().get_run(run_id).info.experiment_id
    client = TracingClient(tracking_uri())

    def record(call: JudgeCall) -> None:
        span = _make_span(call)
        client.start_trace(_make_trace_info(call, span.trace_id, experiment_id, run_id))
        client.log_spans(experiment_id, [span])

    return record


def _make_span(call: JudgeCall) -> Span:
    """Return the call as a finished span of a new trace. Attribute values are JSON, as MLflow stores them."""
    from mlflow.entities import Span, SpanStatusCode, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    # Not from the `random` module, which a seed makes repeat itself: an id is to be new.
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    attributes: dict[str, Any] = {
        SpanAttributeKey.REQUEST_ID: f"tr-{trace_id}",
        SpanAttributeKey.SPAN_TYPE: SpanType.CHAT_MODEL,
        SpanAttributeKey.INPUTS: {"messages": call.messages},
        SpanAttributeKey.OUTPUTS: call.response,
        SpanAttributeKey.MODEL: call.judge,
        "question_id": call.question_id,
        "attempt": call.attempt,
        "status": call.status,
    }
    if usage := _token_usage(call):
        attributes[SpanAttributeKey.CHAT_USAGE] = usage
    failed = call.status == "failed"
    start_ns = int(call.started_at * 1e9)
    return Span.from_dict(
        {
            "name": "judge",
            "trace_id": f"tr-{trace_id}",
            "span_id": span_id,
            "parent_span_id": None,
            "start_time_unix_nano": start_ns,
            "end_time_unix_nano": start_ns + int(call.seconds * 1e9),
            "attributes": {key: json.dumps(value) for key, value in attributes.items()},
            "status": {
                "code": (SpanStatusCode.ERROR if failed else SpanStatusCode.OK).value,
                "message": call.response if failed else "",
            },
        }
    )


def _make_trace_info(call: JudgeCall, trace_id: str, experiment_id: str, run_id: str) -> TraceInfo:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    metadata = {TraceMetadataKey.SOURCE_RUN: run_id}
    if usage := _token_usage(call):
        metadata[TraceMetadataKey.TOKEN_USAGE] = json.dumps(usage)
    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=int(call.started_at * 1000),
        execution_duration=int(call.seconds * 1000),
        state=TraceState.ERROR if call.status == "failed" else TraceState.OK,
        request_preview=_shorten(call.messages[-1]["content"]) if call.messages else None,
        response_preview=_shorten(call.response),
        trace_metadata=metadata,
        tags={
            TraceTagKey.TRACE_NAME: "judge",
            "capo.question_id": call.question_id,
            "capo.judge": call.judge,
            "capo.attempt": str(call.attempt),
            "capo.verdict_status": call.status,
        },
    )


def _shorten(text: str) -> str:
    """Return the opening of `text`, without the NUL character that PostgreSQL does not take."""
    return text[:_PREVIEW].replace("\0", "")


def _token_usage(call: JudgeCall) -> dict[str, int]:
    """Return the token counts under MLflow's names; nothing where the server did not give both."""
    from mlflow.tracing.constant import TokenUsageKey

    if call.n_prompt_tokens is None or call.n_answer_tokens is None:
        return {}
    return {
        TokenUsageKey.INPUT_TOKENS: call.n_prompt_tokens,
        TokenUsageKey.OUTPUT_TOKENS: call.n_answer_tokens,
        TokenUsageKey.TOTAL_TOKENS: call.n_prompt_tokens + call.n_answer_tokens,
    }
