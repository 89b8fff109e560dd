"""Canaries in the places where secrets stand, a whole tiny run, and a search of every byte that it left."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from prefect.blocks.system import Secret
from prefect.settings import get_current_settings
from tiny_model import save_tiny_model

from capo_core.config_file import load_config
from capo_core.errors import ConfigError
from flows import stages
from tasks.storage.home import capo_home

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "deployments" / "configs" / "example" / "nli-smollm2-135m.yaml"
BLOCK = "key-of-the-other-judge"
CANARIES = {
    name: f"canary-{number}-4c9f1e7ab2"
    for number, name in enumerate(
        (
            "JUDGE_API_KEY", "OPENAI_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
            "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "CAPO_SERVE_API_KEY", "PREFECT_PASSWORD", "POSTGRES_PASSWORD",
            BLOCK,
        )
    )
}  # fmt: skip
SMALL = [
    "corpus.max_items=30", "model.dtype=float32", "sft.n_epochs=1", "generation.max_new_tokens=8",
    "generation.methods=[zero_shot, sft]", "judge.methods=[human, zero_shot]", "judge.protocols=[attribution]",
    "human_validation.methods=[human, sft]", "stability.group_sizes=[1]", "stability.n_repeats=1",
    "stability.n_bootstrap=100", "stability.n_permutations=100", "stability.reductions=[none]",
    "stability.classifiers=[ngrams]", "convergence.n_sizes=3", "convergence.n_repeats=3", "convergence.group_size=2",
    "evaluation.group_sizes=[1]", "evaluation.n_groups=10", "evaluation.n_bootstrap=100",
    "evaluation.reductions=[none]", "evaluation.classifiers=[ngrams]", "judge.n_groups=1", "judge.group_size=2",
    "human_validation.n_tasks=8", "human_validation.group_size=1",
]  # fmt: skip


class _Gossip(BaseHTTPRequestHandler):
    """A judge that tells everybody the key it was given: in an error first, then in its answers."""

    asked = 0
    keys: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        key = self.headers["Authorization"]
        self.keys.add(key)
        said = {"role": "assistant", "content": f"{key}: A"}
        body = json.dumps(
            {"error": {"message": f"bad key {key}", "type": "x", "code": key}}
            if self.asked in (1, 5)
            else {"id": "1", "object": "chat.completion", "created": 1, "model": "gossip",
                  "choices": [{"index": 0, "finish_reason": "stop", "message": said}]}
        ).encode()  # fmt: skip
        self.send_response(500 if self.asked in (1, 5) else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def judge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gossip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


def _traces(folder: Path) -> dict[str, list[str]]:
    """Return the files that hold a canary, by canary."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    content = {path: path.read_bytes() for path in files}
    assert len(files) > 0
    return {
        name: [
            str(path) for path, whole in content.items() if secret.encode() in whole or secret[::-1].encode() in whole
        ]
        for name, secret in CANARIES.items()
    }


@pytest.mark.slow
def test_no_secret_is_in_an_artifact_a_database_a_log_or_a_report(
    judge: str, tmp_path_factory: pytest.TempPathFactory, prefect_server: None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, secret in CANARIES.items():
        if name != BLOCK:
            monkeypatch.setenv(name, secret)
    Secret(value=CANARIES[BLOCK]).save(BLOCK, overwrite=True)
    caplog.set_level(logging.DEBUG)
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)
    keys = (("gossip", "api_key_env: JUDGE_API_KEY"), ("hearsay", f"api_key_block: {BLOCK}"))
    backends = [f"{{type: openai, base_url: '{judge}', model: {name}, {key}, max_attempts: 2}}" for name, key in keys]
    overrides = ["name=secrets", *SMALL, f"model.id={model.path}", f"judge.backends=[{', '.join(backends)}]"]
    config = load_config(EXAMPLE, overrides)
    references = stages.report(config)
    said = capfd.readouterr()
    assert "report" in references
    assert _Gossip.asked > 10
    assert _Gossip.keys == {f"Bearer {CANARIES[name]}" for name in ("JUDGE_API_KEY", BLOCK)}
    everywhere = {Path(os.environ["PREFECT_HOME"]), capo_home()}
    database = get_current_settings().server.database.connection_url
    if database is not None and "///" in database.get_secret_value():
        everywhere.add(Path(database.get_secret_value().split("///")[-1]).parent)
    for folder in everywhere:
        if folder.exists() and any(folder.iterdir()):
            assert _traces(folder) == {name: [] for name in CANARIES}, folder
    told = said.out + said.err + caplog.text
    assert [name for name, secret in CANARIES.items() if secret in told] == []


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    backend = "{type: openai, base_url: 'https://me:canary-of-the-url@example.org/v1', model: m}"
    with pytest.raises(ConfigError) as caught:
        load_config(EXAMPLE, [f"judge.backends=[{backend}]"])
    assert "judge.backends.0.openai.base_url" in str(caught.value)
    assert "canary-of-the-url" not in str(caught.value)


def test_the_doctor_shows_no_password_of_an_address(home: Path) -> None:
    addresses = {
        "MLFLOW_TRACKING_URI": "http://me:canary-of-mlflow@127.0.0.1:9",
        "PREFECT_API_URL": "http://me:canary-of-prefect@127.0.0.1:9/api",
    }
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "doctor"],
        cwd=ROOT, env=os.environ | CANARIES | addresses | {"CAPO_HOME": str(home)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    told = done.stdout + done.stderr
    assert "127.0.0.1:9" in told
    assert "canary" not in told
