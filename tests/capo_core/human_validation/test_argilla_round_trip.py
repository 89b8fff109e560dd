"""What is written for Argilla is taken by its own client, and what the client writes is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from uuid import UUID

import pytest
from judging_material import TASK
from validation_material import make_rows, make_set

from capo_core.human_validation.argilla_records import write_argilla_records, write_argilla_settings
from capo_core.human_validation.ratings import read_ratings

TASKS, KEY = make_set()
FIRST, SECOND = UUID(int=1), UUID(int=2)


class Greeting(BaseHTTPRequestHandler):
    """Says who is logged in: the client asks it once before any question can be constructed."""

    def do_GET(self) -> None:
        body = json.dumps({"id": str(FIRST), "username": "team", "role": "owner", "first_name": "team"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Greeting)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_records_and_ratings_go_through_the_client(tmp_path: Path, server_url: str) -> None:
    argilla = pytest.importorskip("argilla", reason="argilla is not installed")
    argilla.Argilla(api_url=server_url, api_key="none")
    records_io = pytest.importorskip("argilla.records._io")
    (tmp_path / "settings.json").write_text(
        write_argilla_settings(TASKS, TASK, guidelines="# Read this", n_raters=2), encoding="utf-8"
    )
    settings = argilla.Settings.from_json(tmp_path / "settings.json")
    settings.validate()
    assert [question.name for question in settings.questions] == ["answer", "comment"]
    assert settings.questions["answer"].labels == ["A", "B", "C", "cannot say"]
    assert settings.distribution.min_submitted == 2
    right = {row["task_id"]: row["answer"] for row in make_rows(TASKS, KEY, "")}
    records = [argilla.Record.from_dict(record) for record in json.loads(write_argilla_records(TASKS))]
    names = {field.name for field in settings.fields}
    for record in records:
        assert set(record.fields) == names
        assert set(record.metadata) == {metadata.name for metadata in settings.metadata}
        record.responses.add(argilla.Response("answer", right[record.id], user_id=FIRST, status="submitted"))
        record.responses.add(argilla.Response("comment", "-5", user_id=FIRST, status="submitted"))
    records[0].responses.add(argilla.Response("answer", "cannot say", user_id=SECOND, status="submitted"))
    path = records_io.JsonIO.to_json(records, tmp_path / "records.json")
    ratings = read_ratings(path, KEY, TASKS)
    first = ratings.filter(rater_id=str(FIRST))
    assert first["correct"].to_list() == [True] * 17
    assert set(first["comment"]) == {"-5"}
    assert ratings.filter(rater_id=str(SECOND)).select("task_id", "answer").rows() == [(records[0].id, "")]


def test_fields_are_plain_text_and_the_signature_is_hidden_from_raters() -> None:
    settings = json.loads(write_argilla_settings(TASKS, TASK, guidelines="", n_raters=3))
    assert {tuple(field["settings"].items()) for field in settings["fields"]} == {
        (("type", "text"), ("use_markdown", False))
    }
    assert [field["name"] for field in settings["fields"]] == [
        "text_a", "text_b", "explanations", "reference_a", "reference_b", "reference_c",
    ]  # fmt: skip
    assert settings["metadata"][0]["visible_for_annotators"] is False
    assert settings["distribution"]["min_submitted"] == 3


def test_a_comment_alone_is_a_rating_without_an_answer(tmp_path: Path) -> None:
    record = json.loads(write_argilla_records(TASKS))[0]
    record["responses"] = {"comment": [{"value": "hm", "user_id": str(FIRST)}]}
    (tmp_path / "r.json").write_text(json.dumps([record]), encoding="utf-8")
    ratings = read_ratings(tmp_path / "r.json", KEY, TASKS)
    assert ratings.select("rater_id", "answer", "comment").rows() == [(str(FIRST), "", "hm")]
