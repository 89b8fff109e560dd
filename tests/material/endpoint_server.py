"""A chat endpoint on a loopback port that answers, or fails to, as a script says; and questions to ask it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LETTERS = "ABC"
N_PROMPT_TOKENS, N_ANSWER_TOKENS = 77, 3


@dataclass(frozen=True)
class PlainQuestion:
    """Of a judge's question, what an endpoint's backend reads."""

    question_id: str
    letters: str
    messages: tuple[dict[str, str], ...]


def make_plain_questions(n: int, start: int = 0) -> list[Any]:
    """Return questions that name themselves in their text: `question0`, `question1`, …"""
    return [
        PlainQuestion(
            question_id=f"question{number}",
            letters=LETTERS,
            messages=(
                {"role": "system", "content": "Answer with one letter."},
                {"role": "user", "content": f"question{number}: who wrote this, A, B or C?"},
            ),
        )
        for number in range(start, start + n)
    ]


@dataclass(frozen=True)
class Scripted:
    """What the server does about one request.

    Attributes:
        body: of the reply; likewise status and headers.
        delay_seconds: before the first byte, or until the client hangs up.
        drip_seconds: after each byte of the body, likewise.
        n_missing: bytes that are promised but not sent.
        reset: break the connection off instead of replying.
    """

    body: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    n_missing: int = 0
    reset: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it came: its question, which attempt at it this is, its JSON, its key, when it came."""

    question_id: str
    attempt: int
    body: dict[str, Any]
    authorization: str
    at: float


Script = Callable[[Request], Scripted]


def complete(content: Any, *, usage: Any = ..., **message: Any) -> Scripted:
    """Return the reply that is a chat completion with `content`."""
    counts = {"prompt_tokens": N_PROMPT_TOKENS, "completion_tokens": N_ANSWER_TOKENS}
    finish_reason = message.pop("finish_reason", "stop")
    answer = {"role": "assistant", "content": content, **message}
    completion = {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": answer}],
        "usage": counts if usage is ... else usage,
    }
    return Scripted(json.dumps(completion), headers={"Content-Type": "application/json"})


class EndpointServer:
    """The server. `requests` are all that came, `most_concurrent` is how many it worked on at once at most."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._running = 0
        self._attempts: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self.requests: list[Request] = []
        self.most_concurrent = 0
        self.address = ""

    def run(self, ready: threading.Event) -> None:
        """Serve until the loop is stopped."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._converse, "127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until one of the sides closes it."""
        try:
            while request := await self._receive(reader):
                self._running += 1
                self.most_concurrent = max(self.most_concurrent, self._running)
                try:
                    if not await _reply(self._script(request), reader, writer):
                        break
                finally:
                    self._running -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # clients hang up here, as they are meant to
        finally:
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> Request | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        named = re.search(r"question\d+", body["messages"][-1]["content"])
        question_id = named[0] if named else ""
        self._attempts[question_id] += 1
        request = Request(
            question_id, self._attempts[question_id], body, headers.get("authorization", ""), time.monotonic()
        )
        self.requests.append(request)
        return request


async def _reply(scripted: Scripted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Do as the script says; return whether the connection stays open."""
    if scripted.reset:
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    if scripted.delay_seconds and await _client_hangs_up(reader, scripted.delay_seconds):
        return False
    payload = scripted.body.encode()
    headers = {"Content-Length": str(len(payload) + scripted.n_missing), **scripted.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {scripted.status} Scripted\r\n{head}\r\n".encode())
    if scripted.drip_seconds:
        for byte in payload:
            writer.write(bytes([byte]))
            if await _client_hangs_up(reader, scripted.drip_seconds):
                return False
    else:
        writer.write(payload)
    await writer.drain()
    return not scripted.n_missing


async def _client_hangs_up(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Return whether the client closes the connection within so many seconds."""
    try:
        return await asyncio.wait_for(reader.read(1), seconds) == b""
    except TimeoutError:
        return False


@contextmanager
def serve(script: Script) -> Iterator[EndpointServer]:
    """Run a server in a thread for the length of the block."""
    server = EndpointServer(script)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready,), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
