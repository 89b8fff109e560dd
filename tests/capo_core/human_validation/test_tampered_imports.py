"""Every format × every manipulation: an import that was tampered with is refused, with file, place and value."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from validation_material import make_rows, make_set

from capo_core.errors import RatingsError
from capo_core.human_validation.argilla_records import write_argilla_records
from capo_core.human_validation.label_studio import write_label_studio_tasks
from capo_core.human_validation.ratings import read_ratings

TASKS, KEY = make_set()
ROWS = make_rows(TASKS, KEY, "r1")
FIRST, SECOND = ROWS[0], ROWS[1]
Tamper = Callable[[Any], Any]


def to_csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def to_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def label_studio_export() -> list[dict[str, Any]]:
    """Return what Label Studio exports after user 7 has answered everything right."""
    answers = {row["task_id"]: row["answer"] for row in ROWS}
    return [
        {
            "id": number,
            "data": task["data"],
            "annotations": [
                {
                    "id": 100 + number,
                    "completed_by": 7,
                    "was_cancelled": False,
                    "lead_time": 8.25,
                    "result": [
                        {
                            "from_name": "answer",
                            "to_name": "explanations",
                            "type": "choices",
                            "value": {"choices": [answers[task["data"]["task_id"]]]},
                        }
                    ],
                }
            ],
            "predictions": [],
        }
        for number, task in enumerate(json.loads(write_label_studio_tasks(TASKS)), start=1)
    ]


def argilla_export() -> list[dict[str, Any]]:
    """Return what Argilla exports after one user has answered everything right."""
    answers = {row["task_id"]: row["answer"] for row in ROWS}
    user = "5d2f2ed5-0c0c-4b6c-9a3f-b83b1d2f9a01"
    return [
        record | {"responses": {"answer": [{"value": answers[record["id"]], "user_id": user}]}, "status": "completed"}
        for record in json.loads(write_argilla_records(TASKS))
    ]


FORMATS: dict[str, tuple[str, Callable[[], Any], Callable[[Any], str]]] = {
    "csv": ("r.csv", lambda: copy.deepcopy(ROWS), to_csv),
    "page": ("r.jsonl", lambda: copy.deepcopy(ROWS), to_lines),
    "label studio": ("r.json", label_studio_export, json.dumps),
    "argilla": ("r.json", argilla_export, json.dumps),
}


def put(place: int, *path: Any) -> Tamper:
    """Return a manipulation: the last of `path` put where the others lead."""
    *steps, last, value = path

    def tamper(records: Any) -> Any:
        target = records[place]
        for step in steps:
            target = target[step]
        target[last] = value
        return records

    return tamper


def take(place: int, *path: Any) -> Tamper:
    """Return a manipulation: the field where `path` leads is taken out."""
    *steps, last = path

    def tamper(records: Any) -> Any:
        target = records[place]
        for step in steps:
            target = target[step]
        del target[last]
        return records

    return tamper


def double(records: Any) -> Any:
    return [*records, copy.deepcopy(records[0])]


def drop_column(name: str) -> Tamper:
    return lambda rows: [{column: value for column, value in row.items() if column != name} for row in rows]


def swap_signatures(rows: Any) -> Any:
    rows[0]["signature"], rows[1]["signature"] = rows[1]["signature"], rows[0]["signature"]
    return rows


RESULT = ("annotations", 0, "result", 0)
CHANGED = f"signature {'0' * 64!r} is not that of task {FIRST['task_id']!r}"
UNKNOWN = "unknown task 't0123456789abcde'"
TABLES: list[tuple[str, Tamper, str]] = [
    ("a foreign task", put(0, "task_id", "t0123456789abcde"), UNKNOWN),
    ("another task's id", put(0, "task_id", SECOND["task_id"]), f"is not that of task {SECOND['task_id']!r}"),
    ("another signature", put(0, "signature", "0" * 64), CHANGED),
    ("swapped signatures", swap_signatures, f"is not that of task {SECOND['task_id']!r}"),
    ("no signature", put(0, "signature", ""), "signature '' is not that of task"),
    ("a signature cut short", put(0, "signature", FIRST["signature"][:32]), "is not that of task"),
    ("no task", put(0, "task_id", ""), "unknown task ''"),
    ("a letter that is none", put(0, "answer", "D"), "answer 'D' for task"),
    ("two letters", put(0, "answer", "AB"), "answer 'AB' for task"),
    ("a row twice", double, "has rated task"),
    ("no column of tasks", drop_column("task_id"), "missing columns ['task_id']"),
    ("no column of signatures", drop_column("signature"), "missing columns ['signature']"),
    ("no column of answers", drop_column("answer"), "missing columns ['answer']"),
    ("a time that is none", put(0, "seconds", "fast"), "seconds: expected a number from 0, found 'fast'"),
    ("a negative time", put(0, "seconds", -4), "seconds: expected a number from 0, found"),
    ("a place beyond the last", put(0, "presented", 18), "as number 18 of 17"),
    ("a place between two", put(0, "presented", 1.5), "presented: expected a whole number from 1, found"),
    ("a hidden character in a name", put(0, "rater_id", "r\u202e1"), "characters that cannot be shown"),
]
EXPORTS: dict[str, list[tuple[str, Tamper, str]]] = {
    "label studio": [
        ("a foreign task", put(0, "data", "task_id", "t0123456789abcde"), "record 1, annotation 1: " + UNKNOWN),
        ("another signature", put(0, "data", "signature", "0" * 64), CHANGED),
        ("an altered explanation", put(0, "data", "explanations", "else"), "field 'explanations' of task"),
        ("an altered reference", put(0, "data", "reference_a", "else"), "'reference_a' of task"),
        ("an altered text", put(0, "data", "text_a", "else"), "is 'else', not the text that was handed out"),
        ("a text taken out", take(0, "data", "text_b"), "'text_b' of task"),
        ("a signature taken out", take(0, "data", "signature"), "signature '' is not that of task"),
        ("a record twice", double, "has rated task"),
        ("nobody's answer", put(0, "annotations", 0, "completed_by", None), "no rater_id"),
        ("a choice that is none", put(0, *RESULT, "value", {"choices": ["Z"]}), "answer 'Z'"),
        ("two choices", put(0, *RESULT, "value", {"choices": ["A", "B"]}), "several answers ['A', 'B']"),
        ("a choice that is no list", put(0, *RESULT, "value", {"choices": 3}), "choices: expected a list"),
        ("a result without value", take(0, *RESULT, "value"), "a result without a value"),
        ("no results", take(0, "annotations", 0, "result"), "no list of results"),
        ("JSON-MIN", lambda records: [record["data"] for record in records], "neither Label Studio's JSON export"),
    ],
    "argilla": [
        ("a foreign task", put(0, "id", "t0123456789abcde"), UNKNOWN),
        ("another signature", put(0, "metadata", "signature", "0" * 64), CHANGED),
        ("an altered explanation", put(0, "fields", "explanations", "else"), "field 'explanations' of task"),
        ("an altered reference", put(0, "fields", "reference_b", "else"), "'reference_b' of task"),
        ("a text taken out", take(0, "fields", "text_a"), "'text_a' of task"),
        ("a record twice", double, "has rated task"),
        ("a choice that is none", put(0, "responses", "answer", 0, "value", "Z"), "answer 'Z'"),
        (
            "a choice that is no text",
            put(0, "responses", "answer", 0, "value", 1),
            "answer: expected text or null, found 1",
        ),
        ("nobody's answer", take(0, "responses", "answer", 0, "user_id"), "expected a list of responses with user_id"),
        (
            "a user twice",
            lambda r: put(0, "responses", "answer", r[0]["responses"]["answer"] * 2)(r),
            "responded twice",
        ),
        ("no metadata", put(0, "metadata", []), "fields, metadata and responses are not objects"),
        ("no responses field", take(0, "responses"), "neither Label Studio's JSON export"),
    ],
}
TAMPERED = [
    pytest.param(form, tamper, message, id=f"{form}: {name}")
    for form, cases in {"csv": TABLES, "page": TABLES, **EXPORTS}.items()
    for name, tamper, message in cases
]
BROKEN = [
    (
        "r.csv",
        "task_id,signature,rater_id,answer,answer\nt1,s,r1,A,B\n",
        "r.csv, line 1: columns ['answer'] stand twice",
    ),
    ("r.csv", "task_id,signature,rater_id,answer\nt1,s,r1,A,B\n", "r.csv, line 2: more cells than columns: ['B']"),
    ("r.csv", 'task_id,signature,rater_id,answer\nt1,s,r1,"A\n', "not readable as CSV"),
    ("r.csv", "", "r.csv, line 1: missing columns"),
    ("r.csv", "task_id,signature,rater_id,answer\n", "r.csv: there are no ratings in it"),
    ("r.jsonl", '{"task_id": "t1"\n', "r.jsonl, line 1: not JSON"),
    ("r.jsonl", '\n["t1"]\n', "r.jsonl, line 2: not a JSON object"),
    ("r.jsonl", '{"answer": "A", "answer": "B"}\n', "fields ['answer'] stand twice in one object"),
    ("r.jsonl", '{"seconds": NaN}\n', "NaN is no JSON number"),
    ("r.json", '{"data": {}}', "r.json: expected a JSON array of objects"),
    ("r.json", "[]", "r.json: neither Label Studio's JSON export"),
    ("r.json", "[" * 100_000, "r.json: not JSON"),
]


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_not_tampered_with_is_read(tmp_path: Path, form: str) -> None:
    name, make, serialise = FORMATS[form]
    path = tmp_path / name
    path.write_text(serialise(make()), encoding="utf-8", newline="")
    ratings = read_ratings(path, KEY, TASKS)
    assert ratings["correct"].to_list() == [True] * 17


@pytest.mark.parametrize(("form", "tamper", "message"), TAMPERED)
def test_a_tampered_import_is_refused(tmp_path: Path, form: str, tamper: Tamper, message: str) -> None:
    name, make, serialise = FORMATS[form]
    path = tmp_path / name
    path.write_text(serialise(tamper(make())), encoding="utf-8", newline="")
    with pytest.raises(RatingsError) as caught:
        read_ratings(path, KEY, TASKS)
    assert name in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    with pytest.raises(RatingsError) as caught:
        read_ratings(tmp_path / name, KEY, TASKS)
    assert message in str(caught.value)


def test_at_least_fifty_manipulations_are_tried() -> None:
    assert len(TAMPERED) >= 50


def test_exports_are_not_read_without_the_tasks_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(label_studio_export()), encoding="utf-8")
    with pytest.raises(ValueError, match="give `tasks`"):
        read_ratings(tmp_path / "r.json", KEY)
