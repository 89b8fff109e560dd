from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import killed_judging
import pytest
from endpoint_server import Request, Scripted, complete, serve

N_QUESTIONS, N_KILLS, N_CONCURRENT = 200, 20, 4


def read_persisted(path: Path) -> set[str]:
    """Return the questions whose answers stand in the journal on whole lines."""
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {json.loads(line)["question_id"] for line in whole[1:]}


@pytest.mark.slow
def test_twenty_kills_ask_no_persisted_verdict_again(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    kills: list[tuple[int, set[str]]] = []

    def script(request: Request) -> Scripted:
        return Scripted(complete("Answer: B").body, delay_seconds=0.002)

    with serve(script) as server:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, killed_judging.__file__, server.address, str(path), str(N_QUESTIONS)]
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for kill in range(1, N_KILLS + 1):
                process.stdin.write("judge\n")
                child = int(process.stdout.readline())
                # Killed as soon as some more verdicts are there, at another point of its work each time.
                target = kill * (N_QUESTIONS - 20) // N_KILLS
                give_up = time.monotonic() + 60
                while len(read_persisted(path)) < target and time.monotonic() < give_up:
                    time.sleep(0.001)
                os.kill(child, signal.SIGKILL)
                assert int(process.stdout.readline()) == -signal.SIGKILL
                persisted = read_persisted(path)
                assert target <= len(persisted) < N_QUESTIONS
                kills.append((len(server.requests), persisted))
            process.stdin.write("judge\n")
            process.stdout.readline()
            assert int(process.stdout.readline()) == 0
            process.stdin.close()
    for n_requests, persisted in kills:
        assert not {request.question_id for request in server.requests[n_requests:]} & persisted
    assert read_persisted(path) == {f"question{i}" for i in range(N_QUESTIONS)}
    # Each kill loses what was under way or not yet written, which is twice the number of calls at once at most.
    n_asked = Counter(request.question_id for request in server.requests)
    assert sum(n_asked.values()) <= N_QUESTIONS + N_KILLS * 2 * N_CONCURRENT
