"""What the local stack puts around Prefect's server."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.local_stack.prefect_server import RetrySoon


@pytest.mark.parametrize(
    ("status", "own", "expected"), [(503, None, "0.1"), (503, "7", "7"), (200, None, None), (423, "3", "3")]
)
def test_busy_answers_alone_say_when_to_ask_again(status: int, own: str | None, expected: str | None) -> None:
    async def answer(_: Request) -> Response:
        return Response(status_code=status, headers=None if own is None else {"Retry-After": own})

    async def ask() -> httpx.Response:
        app = RetrySoon(Starlette(routes=[Route("/", answer)]))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://local") as client:
            return await client.get("/")

    found = asyncio.run(ask())
    assert found.status_code == status
    assert found.headers.get("Retry-After") == expected
