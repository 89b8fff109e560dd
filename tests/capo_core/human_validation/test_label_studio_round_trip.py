"""What is written for Label Studio is accepted by its own SDK, and what its SDK's objects make of it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from judging_material import TASK
from validation_material import make_rows, make_set

from capo_core.human_validation.label_studio import write_label_studio_tasks, write_labelling_config
from capo_core.human_validation.platform_task import render_task
from capo_core.human_validation.ratings import read_ratings

TASKS, KEY = make_set()


def annotate(data: dict[str, Any], answer: str, rater: int, comment: str = "") -> dict[str, Any]:
    """Return an annotation as the labelling interface makes it."""
    shared = {"to_name": "explanations", "origin": "manual"}
    result = [{"id": "a1", "from_name": "answer", "type": "choices", "value": {"choices": [answer]}, **shared}]
    if comment:
        result.append({"id": "c1", "from_name": "comment", "type": "textarea", "value": {"text": [comment]}, **shared})
    return {"completed_by": rater, "was_cancelled": False, "lead_time": 7.5, "result": result}


def test_tasks_and_ratings_go_through_the_sdk(tmp_path: Path) -> None:
    label_interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed (it asks for numpy below 2.3)"
    )
    objects = pytest.importorskip("label_studio_sdk.label_interface.objects")
    interface = label_interface.LabelInterface(write_labelling_config(TASKS, TASK))
    interface.validate()
    assert set(interface.get_control("answer").labels) == {"A", "B", "C", "cannot say"}
    records = json.loads(write_label_studio_tasks(TASKS))
    right = {row["task_id"]: row["answer"] for row in make_rows(TASKS, KEY, "")}
    exported = []
    for number, task in enumerate(records, start=1):
        assert interface.validate_task(task)
        annotations = [annotate(task["data"], right[task["data"]["task_id"]], 7, "=1+1")]
        annotations.append(annotate(task["data"], "cannot say", 8))
        assert all(interface.validate_annotation(annotation) for annotation in annotations)
        value = objects.TaskValue(data=task["data"], annotations=annotations)
        exported.append({"id": number} | value.model_dump())
    path = tmp_path / "project-1-at-2026.json"
    path.write_text(json.dumps(exported), encoding="utf-8")
    ratings = read_ratings(path, KEY, TASKS)
    assert ratings.height == 2 * 17
    seventh = ratings.filter(rater_id="label-studio-7")
    assert seventh["correct"].to_list() == [True] * 17
    assert set(seventh["comment"]) == {"=1+1"}
    assert set(seventh["seconds"]) == {7.5}
    assert set(ratings.filter(rater_id="label-studio-8")["answer"]) == {""}


def test_the_interface_shows_every_text_of_a_task_as_text() -> None:
    view = ElementTree.fromstring(write_labelling_config(TASKS, TASK))
    shown = {tag.attrib["value"].removeprefix("$") for tag in view.iter("Text")}
    for task in json.loads(write_label_studio_tasks(TASKS)):
        assert shown == set(task["data"]) - {"task_id", "signature"}
    assert {tag.attrib["valueType"] for tag in view.iter("Text")} == {"text"}
    assert not list(view.iter("HyperText"))


def test_texts_are_numbered_as_the_items_are() -> None:
    task = TASKS.row(0, named=True) | {"explanations": ["one", "two"]}
    assert render_task(task)["explanations"] == "[1] one\n\n[2] two"
    assert render_task(task | {"explanations": ["one"]})["explanations"] == "one"


def test_a_skipped_task_is_a_rating_without_an_answer(tmp_path: Path) -> None:
    data = json.loads(write_label_studio_tasks(TASKS))[0]["data"]
    skipped = annotate(data, "A", 7) | {"was_cancelled": True, "completed_by": {"id": 7, "email": "a@example.org"}}
    (tmp_path / "r.json").write_text(json.dumps([{"data": data, "annotations": [skipped]}]), encoding="utf-8")
    ratings = read_ratings(tmp_path / "r.json", KEY, TASKS)
    assert ratings.select("rater_id", "answer").rows() == [("label-studio-7", "")]


def test_tasks_nobody_has_annotated_are_no_ratings(tmp_path: Path) -> None:
    records = [task | {"annotations": []} for task in json.loads(write_label_studio_tasks(TASKS))]
    records[3]["annotations"] = [annotate(records[3]["data"], "A", 7)]
    (tmp_path / "r.json").write_text(json.dumps(records), encoding="utf-8")
    assert read_ratings(tmp_path / "r.json", KEY, TASKS).height == 1
