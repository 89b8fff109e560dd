"""Responses through a vLLM server: the same as capo's own engine where nothing is drawn, and no server left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from adapter_material import adapter_config, trained_adapter, write_adapter
from tiny_model import FLOAT32, TASK, one_thread, tiny
from vllm_stand_in import VERSION, write_command

from capo_core.errors import ModelError
from capo_core.generation.engines import Generated, generate
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.vllm.server import serve_vllm
from capo_core.prompts import build_prompt
from schemas.artifacts import ModelRef
from schemas.config import GenerationConfig

__all__ = ["one_thread", "tiny"]

ITEMS = ("item0", "item1", "item2")


@pytest.fixture(scope="module")
def lora(tiny: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = adapter_config("lora")
    return write_adapter(trained_adapter(tiny, adapter), adapter, tiny, tmp_path_factory.mktemp("lora") / "adapter")


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPO_VLLM", str(write_command(tmp_path)))


def ask(tiny: ModelRef, adapter: Path | None, **changes: object) -> Generated:
    requests = [GenerationRequest(item, "ann1", build_prompt(TASK, "a cat", item)) for item in ITEMS]
    settings = {"decisions": ("sampled", "greedy", "constrained"), "max_new_tokens": 12, "batch_size": 4}
    config = GenerationConfig.model_validate(settings | changes)
    return generate(tiny, FLOAT32, adapter, requests, TASK, config, seed=3, method="sft")


@pytest.mark.parametrize("adapted", [True, False])
def test_what_is_not_drawn_is_what_the_own_engine_says(tiny: ModelRef, lora: Path, adapted: bool) -> None:
    adapter = lora if adapted else None
    own, through = ask(tiny, adapter), ask(tiny, adapter, engine="vllm")
    assert (own.engine, through.engine) == ("built_in", f"vllm {VERSION}")
    key = ["item_id", "annotator_id", "method", "seed", "decision", "n_prompt_tokens"]
    assert through.responses.select(key).equals(own.responses.select(key))
    greedy = [one.responses.filter(decision="greedy") for one in (own, through)]
    assert greedy[0].equals(greedy[1])
    decided = [one.responses.filter(decision="constrained") for one in (own, through)]
    assert decided[0]["label"].to_list() == decided[1]["label"].to_list()
    for mine, theirs in zip(*(one["label_logprobs"].to_list() for one in decided), strict=True):
        assert theirs == pytest.approx(mine, abs=1e-4)


def test_the_adapter_answers_and_not_the_base_model(tiny: ModelRef, lora: Path) -> None:
    scores = [
        ask(tiny, adapter, engine="vllm", decisions=("constrained",)).responses["label_logprobs"].to_list()
        for adapter in (lora, None)
    ]
    assert scores[0] != scores[1]


def test_a_draw_is_the_seeds_own_and_ends_at_the_limit(tiny: ModelRef, lora: Path) -> None:
    first, again = (ask(tiny, lora, engine="vllm", decisions=("sampled",)).responses for _ in range(2))
    assert first.equals(again)
    assert first["text"].n_unique() == len(ITEMS)
    ended = pl.col("n_tokens") < 12
    assert first.filter(ended == pl.col("truncated")).is_empty()


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("dies", r"(?s)vLLM ended before it answered.*no device to compute on"),
        ("refuses", r"status 400: .*the prompt is too long"),
        ("leaves", r"(?s)vLLM no longer answers.*out of memory"),
    ],
)
def test_a_failing_server_is_an_error_with_its_own_words(
    tiny: ModelRef, monkeypatch: pytest.MonkeyPatch, failure: str, says: str
) -> None:
    monkeypatch.setenv("CAPO_STAND_IN", failure)
    with pytest.raises(ModelError, match=says):
        ask(tiny, None, engine="vllm")


def test_a_command_that_is_not_there(tiny: ModelRef, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPO_VLLM", str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"CAPO_VLLM names .*nothing, which is no command; install vLLM"):
        ask(tiny, None, engine="vllm")
    monkeypatch.delenv("CAPO_VLLM")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"there is no command vllm; .*or set engine: built_in"):
        ask(tiny, None, engine="vllm")


def test_an_adapter_that_vllm_does_not_take_is_refused_before_anything_starts(
    tiny: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dora = adapter_config("dora")
    folder = write_adapter(trained_adapter(tiny, dora), dora, tiny, tmp_path / "dora")
    monkeypatch.setenv("CAPO_STAND_IN", "dies")
    with pytest.raises(ModelError, match=r"vLLM does not take this adapter: it is DoRA"):
        ask(tiny, folder, engine="vllm")


def servers(socket_of: str) -> list[str]:
    """Return the command lines of running processes that name a socket."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in lines if socket_of in line and "--uds" in line]


def test_the_server_is_gone_after_the_block(tiny: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serve_vllm(tiny, "float32", None, n_at_once=1) as server:
        assert server.version == VERSION
        assert servers(str(tmp_path))
    assert not servers(str(tmp_path))
    assert not list(tmp_path.glob("capo-vllm-*"))


def test_the_server_goes_with_a_process_that_is_killed(tiny: ModelRef, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from capo_core.generation.vllm.server import serve_vllm\n"
        "from schemas.artifacts import ModelRef\n"
        "with serve_vllm(ModelRef.model_validate_json(sys.argv[1]), 'float32', None, n_at_once=1):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tiny.model_dump_json()],
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert servers(str(tmp_path))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while servers(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not servers(str(tmp_path))
