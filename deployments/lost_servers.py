"""A server that went away under a command: said in a sentence, with what to do, instead of a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator


def explain_lost_server(error: BaseException) -> str | None:
    """Return what to say where an error came about because a server did not answer, None for any other error.

    Prefect and MLflow wait for a server they have reached before, MLflow for minutes. What reaches the user is a server
    that stayed away longer, or one of Prefect's calls that do not wait.
    """
    import httpx
    import requests
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    lost = (httpx.TransportError, requests.ConnectionError, ConcurrencySlotAcquisitionError)
    cause = next((link for link in _chain(error) if isinstance(link, lost)), None)
    if cause is None:
        return None
    named = ", ".join(
        f"{title} at {os.environ[variable]}"
        for title, variable in (("Prefect", "PREFECT_API_URL"), ("MLflow", "MLFLOW_TRACKING_URI"))
        if os.environ.get(variable)
    )
    return (
        f"a server did not answer ({named or 'a temporary one'}): {cause or type(cause).__name__}; when it does, "
        "give the same command again: it goes on from what is computed"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that led to it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
