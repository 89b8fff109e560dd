"""From registered models to a server that listens."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from rich.console import Console

from capo_core.errors import ServeError
from capo_core.generation.answering import AnswerBatch, Person
from capo_core.generation.mixed_adapters import load_mixed
from capo_core.models import load_tokenizer
from deployments.serve.answer_queue import AnswerQueue
from deployments.serve.app import create_app
from deployments.serve.served_models import Served

LOOPBACK_NAMES = ("127.0.0.1", "localhost")
KEY_VARIABLE = "CAPO_SERVE_API_KEY"


def load_batch(served: Served) -> AnswerBatch:
    """Return the base model with all adapters beside its weights, ready to answer."""
    model, route = load_mixed(served.base, served.recipe.model, served.adapters)
    people = [Person(one.annotator_id, one.recipe, one.adapter) for one in served.models.values()]
    max_rows = min(one.recipe.generation.batch_size for one in served.models.values())
    return AnswerBatch(model, route, load_tokenizer(served.base), people, max_rows=max_rows)


def check_exposure(host: str, api_key: str | None) -> list[str]:
    """Return what Host headers may name: on the loopback interface its own names, elsewhere anything.

    Raises:
        ServeError: if other machines could ask without a key.
    """
    if host in LOOPBACK_NAMES or _is_loopback(host):
        return [*LOOPBACK_NAMES, host]
    if not api_key:
        raise ServeError(
            f"{host} can be reached from other machines, so requests need a key: set {KEY_VARIABLE}, or use "
            f"--host {LOOPBACK_NAMES[0]}"
        )
    return ["*"]  # behind a key, names are the proxy's or the network's


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one.

    Raises:
        ServeError: if it cannot be had.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ServeError(f"{host}:{port} cannot be had ({error.strerror or error}); use another --port") from error


def make_server(
    served: Served, *, allowed_hosts: list[str], api_key: str | None, max_waiting: int, timeout_seconds: float
) -> tuple[uvicorn.Server, AnswerQueue]:
    """Return the server, its models loaded, and the queue that it asks."""
    queue = AnswerQueue(load_batch(served), max_waiting=max_waiting)
    app = create_app(
        served.models, queue, api_key=api_key, allowed_hosts=allowed_hosts, timeout_seconds=timeout_seconds
    )
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5)
    return uvicorn.Server(config), queue


def run_server(
    console: Console,
    served: Served,
    *,
    host: str,
    port: int,
    api_key: str | None,
    max_waiting: int,
    timeout_seconds: float,
) -> None:
    """Serve until interrupted; say where and what."""
    allowed_hosts = check_exposure(host, api_key)
    with listen(host, port) as bound:
        server, queue = make_server(
            served, allowed_hosts=allowed_hosts, api_key=api_key, max_waiting=max_waiting,
            timeout_seconds=timeout_seconds,
        )  # fmt: skip
        for reason in served.left_out:
            console.print(f"left out: {reason}", markup=False, highlight=False, soft_wrap=True)
        for model in served.models.values():
            said = f"{model.name}: {model.version.name}, version {model.version.number}"
            console.print(said, markup=False, highlight=False, soft_wrap=True)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{bound.getsockname()[1]}/v1"
        console.print(f"{url}: {len(served.models)} models on one {served.base.id}; Ctrl-C stops", markup=False)
        try:
            server.run(sockets=[bound])
        finally:
            queue.stop()
