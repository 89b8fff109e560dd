"""The HTTP side: who may ask, what is asked, and what comes back."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from capo_core.errors import CapoError, ServeError
from deployments.serve.answer_queue import Answered, AnswerQueue, OverloadedError
from deployments.serve.chat_api import (
    ApiError,
    ChatRequest,
    explain_refusal,
    find_model,
    read_question,
    write_completion,
    write_model,
)
from deployments.serve.served_models import ServedModel


def create_app(
    models: Mapping[str, ServedModel],
    queue: AnswerQueue,
    *,
    api_key: str | None,
    allowed_hosts: Sequence[str],
    timeout_seconds: float,
) -> FastAPI:
    """Return the application.

    Args:
        models: by name.
        queue: answers questions; stopped with the application.
        api_key: what requests must bear; None: they come from this machine alone.
        allowed_hosts: what a request's Host header may name. A page of another site whose name has been pointed at
            this machine names another, and is refused.
        timeout_seconds: after which a question is given up.
    """
    created = int(time.time())
    known = dict(models)
    app = FastAPI(title="capo", docs_url=None, redoc_url=None)  # those pages would load scripts from elsewhere
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)
    _answer_errors_as_openai(app)

    def check_key(request: Request) -> None:
        if api_key is None:
            return
        borne = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(borne.encode(), api_key.encode()):
            raise ApiError(401, "wrong or missing API key; send it as Authorization: Bearer …", code="invalid_api_key")

    allowed = [Depends(check_key)]

    @app.get("/health")
    def read_health() -> dict[str, Any]:
        return {"status": "ok", "n_waiting": queue.n_waiting, "n_running": queue.n_running}

    @app.get("/v1/models", dependencies=allowed)
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [write_model(model, created) for model in known.values()]}

    @app.get("/v1/models/{name:path}", dependencies=allowed)
    def retrieve_model(name: str) -> dict[str, Any]:
        return write_model(find_model(known, name, knows_people=api_key is None), created)

    @app.post("/v1/chat/completions", dependencies=allowed)
    async def complete_chat(asked: ChatRequest, request: Request) -> dict[str, Any]:
        model = find_model(known, asked.model, knows_people=api_key is None)
        question = read_question(asked, model)
        try:
            future = asyncio.wrap_future(queue.submit(question))
            answer, choices = await _wait(future, request, timeout_seconds)
        except OverloadedError as error:
            raise ApiError(503, str(error), code="overloaded", retry_after_seconds=error.retry_after_seconds) from error
        except ServeError as error:
            raise ApiError(503, str(error), code="stopping", retry_after_seconds=10) from error
        except CapoError as error:
            raise ApiError(400, str(error), code="invalid_value", param="messages") from error
        return write_completion(model, answer, choices)

    return app


async def _wait(future: asyncio.Future[Answered], request: Request, timeout_seconds: float) -> Answered:
    """Return the answer; the question is taken out if the client hangs up or the time is over."""
    gone = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({future, gone}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if gone.done():
            raise ApiError(499, "the client hung up", code="client_closed_request")
        raise ApiError(504, f"no answer within {timeout_seconds:g} s; the server is busy", code="timeout")
    finally:
        gone.cancel()
        future.cancel()


async def _hang_up(request: Request) -> None:
    """Return when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer_errors_as_openai(app: FastAPI) -> None:
    """Give every error the form that OpenAI's clients read."""

    async def answer(request: Request, error: Any) -> JSONResponse:
        after = error.retry_after_seconds
        return JSONResponse(error.body, error.status, {"Retry-After": str(after)} if after else None)

    async def refuse(request: Request, error: Any) -> JSONResponse:
        return await answer(request, explain_refusal(error.errors()))

    async def pass_on(request: Request, error: Any) -> JSONResponse:
        said = f"{request.method} {request.url.path}: {error.detail}"
        return await answer(request, ApiError(error.status_code, said, code="not_found"))

    async def fail(request: Request, error: Any) -> JSONResponse:
        said = f"answering failed ({type(error).__name__}); the server's log says more"
        return await answer(request, ApiError(500, said, code="internal_error"))

    handlers: dict[Any, Callable[[Request, Any], Awaitable[JSONResponse]]] = {
        ApiError: answer, RequestValidationError: refuse, HTTPException: pass_on, Exception: fail,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
