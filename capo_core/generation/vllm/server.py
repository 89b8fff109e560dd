"""A vLLM server for the time of a block: one base model, one adapter beside it, a Unix socket nobody else can reach.

vLLM pins versions of transformers and FastAPI that capo's environment cannot have, so it is never imported: it lives
in an environment of its own and is known by its command. Nothing is sent to its makers.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from capo_core.errors import ModelError
from capo_core.generation.vllm.command import describe_command
from schemas.artifacts import ModelRef

COMMAND_VARIABLE = "CAPO_VLLM"
"""The environment variable that names the command where it is not `vllm` on PATH."""

ARGUMENTS_VARIABLE = "CAPO_VLLM_ARGS"
"""The environment variable with further arguments of `vllm serve`, for what depends on the machine: memory, devices."""

_TETHER = Path(__file__).with_name("tether.py")
_START_SECONDS = 1800.0
"""Large models are compiled and measured before the first answer."""
_ANSWER_SECONDS = 1800.0
_POLL_SECONDS = 0.2
_N_LAST_LINES, _N_CAUSES = 20, 3
_BASE, _ADAPTER = "base", "adapter"


class VLLMServer:
    """A running server, asked token by token.

    Attributes:
        version: vLLM's.
    """

    def __init__(self, client: httpx.Client, model: str, log: Path) -> None:
        self._client, self._model, self._log = client, model, log
        self.version: str = self._call("GET", "/version")["version"]

    def complete(self, **request: Any) -> list[dict[str, Any]]:
        """Return the choices of one call of `/v1/completions`; tokens come as `token_ids`.

        Args:
            request: `prompt` as a list of tokens, or several, and vLLM's sampling parameters.

        Raises:
            ModelError: if vLLM refuses the request or is gone.
        """
        body = {"model": self._model, "return_token_ids": True, **request}
        return self._call("POST", "/v1/completions", body)["choices"]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ModelError(
                f"vLLM no longer answers ({type(error).__name__}: {error}); {explain(self._log)}"
            ) from error
        if response.status_code == httpx.codes.OK:
            return response.json()
        why = f"vLLM refused a request with status {response.status_code}: {response.text[:1000]}"
        raise ModelError(f"{why}; {explain(self._log)}" if response.is_server_error else why)


def find_vllm() -> str:
    """Return the command that starts vLLM.

    Raises:
        ModelError: if there is none.
    """
    named = os.environ.get(COMMAND_VARIABLE, "")
    found = shutil.which(named or "vllm")
    if found is None:
        where = f"{COMMAND_VARIABLE} names {named}, which is no command" if named else "there is no command vllm"
        raise ModelError(
            f"generation.engine is vllm, but {where}; install vLLM in an environment of its own and put its command on "
            f"PATH or name it in {COMMAND_VARIABLE}, or set engine: built_in"
        )
    return found


@contextmanager
def serve_vllm(base: ModelRef, dtype: str, adapter_dir: Path | None, *, n_at_once: int) -> Iterator[VLLMServer]:
    """Start vLLM with a model, alone or with an adapter, and yield it once it answers; at the end it is gone.

    Args:
        base: the model; its folder is read, nothing is fetched.
        dtype: float32 or bfloat16.
        adapter_dir: the adapter that answers, or None for the base model.
        n_at_once: calls under way at a time, at most.

    Raises:
        ModelError: if vLLM is not installed, does not take the adapter, or ends before it answers.
    """
    adapters = {} if adapter_dir is None else {_ADAPTER: adapter_dir}
    described = itertools.chain.from_iterable(describe_command(base, dtype, _BASE, adapters))
    further = shlex.split(os.environ.get(ARGUMENTS_VARIABLE, ""))
    command = [find_vllm(), "serve", *described, *further]
    with tempfile.TemporaryDirectory(prefix="capo-vllm-") as scratch:  # readable by this user alone
        socket, log = Path(scratch, "socket"), Path(scratch, "log")
        transport = httpx.HTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=n_at_once))
        client = httpx.Client(transport=transport, base_url="http://vllm", timeout=_ANSWER_SECONDS)
        with client, _tethered([*command, "--uds", str(socket)], log) as process:
            _wait_until_ready(client, process, log)
            yield VLLMServer(client, _BASE if adapter_dir is None else _ADAPTER, log)


@contextmanager
def _tethered(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """Yield the process that holds the server, which ends with this one."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(_TETHER), *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the keyboard is the caller's
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None:
            raise ModelError(f"vLLM ended before it answered; {explain(log)}")
        try:
            if client.get("/health", timeout=10).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise ModelError(f"vLLM did not answer within {_START_SECONDS / 60:.0f} minutes; {explain(log)}")
        time.sleep(_POLL_SECONDS)


def explain(log: Path) -> str:
    """Return what a server that failed wrote: the first errors it names, for they led to the others, and its end."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    earlier, last = lines[:-_N_LAST_LINES], lines[-_N_LAST_LINES:]
    causes = [line for line in earlier if re.search(r"\b\w*(Error|Exception): ", line)][:_N_CAUSES]
    told = [*causes, "…", *last] if causes else last
    return f"it wrote (what depends on the machine can be set in {ARGUMENTS_VARIABLE}):\n" + "\n".join(told)
