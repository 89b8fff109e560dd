"""Prefect's server as `prefect server start` runs it in the foreground, for requests to this machine's own names alone.

Prefect does not look at the Host header: a page in a browser here could have a name of its own point to the loopback
interface (DNS rebinding) and submit runs. MLflow's server refuses foreign names by itself.
"""

from __future__ import annotations

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from starlette.middleware.trustedhost import TrustedHostMiddleware

HOST, NAMES = "127.0.0.1", ["127.0.0.1", "localhost"]


def main(port: int) -> None:
    """Serve API, user interface and background services until told to stop."""
    # Around the application, not in it: the server's own automations ask it in memory, under a name of their own.
    app = TrustedHostMiddleware(create_app(final=True), allowed_hosts=NAMES, www_redirect=False)
    settings = get_current_settings().server
    uvicorn.run(
        app, host=HOST, port=port, timeout_keep_alive=settings.api.keepalive_timeout,
        log_level=settings.logging_level.lower(),
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
