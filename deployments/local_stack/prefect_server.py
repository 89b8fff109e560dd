"""Prefect's server as `prefect server start` runs it in the foreground, for requests to this machine's own names alone.

Prefect does not look at the Host header: a page in a browser here could have a name of its own point to the loopback
interface (DNS rebinding) and submit runs. MLflow's server refuses foreign names by itself.

And Prefect answers 503 when SQLite is busy, which is over in milliseconds; its client would ask again after two
seconds, before nearly every step that takes a slot of a limit.
"""

from __future__ import annotations

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RETRY_AFTER_SECONDS = "0.1"
HOST, NAMES = "127.0.0.1", ["127.0.0.1", "localhost"]


class RetrySoon:
    """Middleware that tells clients to ask again soon where the server is busy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, an answer 503 with the header Retry-After."""

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                MutableHeaders(scope=message).setdefault("Retry-After", _RETRY_AFTER_SECONDS)
            await send(message)

        await self._app(scope, receive, send_on)


def main(port: int) -> None:
    """Serve API, user interface and background services until told to stop."""
    # Around the application, not in it: the server's own automations ask it in memory, under a name of their own.
    app = TrustedHostMiddleware(RetrySoon(create_app(final=True)), allowed_hosts=NAMES, www_redirect=False)
    settings = get_current_settings().server
    uvicorn.run(
        app, host=HOST, port=port, timeout_keep_alive=settings.api.keepalive_timeout,
        log_level=settings.logging_level.lower(),
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
