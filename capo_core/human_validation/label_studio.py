"""The rating set for Label Studio, and its JSON export back in.

Formats: https://labelstud.io/guide/tasks (tasks), https://labelstud.io/tags (labelling interface) and
https://labelstud.io/guide/export (export). Texts are shown by `Text` tags, which take them as text, never as HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import polars as pl

from capo_core.human_validation.platform_task import CANNOT_SAY, ExportedRating, name_fields, render_task
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_TASKS, check_columns

CONFIG_FILE, TASKS_FILE = "label_studio_config.xml", "label_studio_tasks.json"
EXPORT_FIELDS = ("data", "annotations")
"""What every record of an export has."""

_IDENTITY = ("task_id", "signature")


def write_labelling_config(tasks: pl.DataFrame, task: TaskSpec) -> str:
    """Return the labelling interface as XML: the texts, each candidate's examples, one choice and a comment.

    Args:
        tasks: VALIDATION_TASKS; all with the same letters.
        task: its names of the texts are the headings.
    """
    check_columns(tasks, VALIDATION_TASKS, "validation_tasks")
    letters = [reference["candidate"] for reference in tasks["references"][0]]
    view = ElementTree.Element("View")
    for name, heading in name_fields(task, letters).items():
        ElementTree.SubElement(view, "Header", value=heading)
        ElementTree.SubElement(view, "Text", name=name, value=f"${name}", valueType="text")
    ElementTree.SubElement(view, "Header", value="It reads most like")
    about = {"toName": "explanations"}
    asked = {"name": "answer", "choice": "single-radio", "required": "true", "showInline": "true"}
    choices = ElementTree.SubElement(view, "Choices", asked | about)
    for letter in letters:
        ElementTree.SubElement(choices, "Choice", value=letter, hotkey=letter.lower())
    ElementTree.SubElement(choices, "Choice", value=CANNOT_SAY)
    commented = {"name": "comment", "placeholder": "Comment (may stay empty)", "rows": "2", "maxSubmissions": "1"}
    ElementTree.SubElement(view, "TextArea", commented | about)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def write_label_studio_tasks(tasks: pl.DataFrame) -> str:
    """Return the tasks as Label Studio imports them: a JSON array of objects with `data`.

    Args:
        tasks: VALIDATION_TASKS.
    """
    check_columns(tasks, VALIDATION_TASKS, "validation_tasks")
    records = [
        {"data": {**{name: row[name] for name in _IDENTITY}, **render_task(row)}}
        for row in tasks.sort("position").iter_rows(named=True)
    ]
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


def iterate_ratings(records: Sequence[Mapping[str, Any]]) -> Iterator[ExportedRating]:
    """Yield one rating per annotation of an export; a cancelled (skipped) one is a rating without an answer.

    Raters are known by the numbers of their accounts, as `label-studio-7`: addresses do not come in.

    Args:
        records: objects with `EXPORT_FIELDS`.
    """
    for number, exported in enumerate(records, start=1):
        data, annotations = exported["data"], exported["annotations"]
        place = f"record {number}"
        if not isinstance(data, Mapping) or not isinstance(annotations, list):
            yield ExportedRating(place, {}, {}, (f"data and annotations are not an object and a list: {data!r:.80}",))
            continue
        identity = {name: data.get(name) for name in _IDENTITY}
        content = {name: value for name, value in data.items() if name not in _IDENTITY}
        for rank, annotation in enumerate(annotations, start=1):
            where = f"{place}, annotation {rank}"
            if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
                yield ExportedRating(where, identity, content, ("the annotation has no list of results",))
                continue
            answer, comment, problems = _read_result(annotation["result"])
            record = {
                **identity,
                "rater_id": _name_rater(annotation.get("completed_by")),
                "answer": None if annotation.get("was_cancelled") else answer,
                "comment": comment,
                "seconds": annotation.get("lead_time"),
            }
            yield ExportedRating(where, record, content, problems)


def _read_result(results: Sequence[Any]) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return answer, comment and what is wrong with them."""
    problems, answers, comments = [], [], []
    for result in results:
        value = result.get("value") if isinstance(result, Mapping) else None
        if not isinstance(value, Mapping):
            problems.append(f"a result without a value: {result!r:.80}")
        elif result.get("from_name") == "answer":
            answers += _as_texts(value.get("choices"), "choices", problems)
        elif result.get("from_name") == "comment":
            comments += _as_texts(value.get("text"), "text", problems)
    if len(answers) > 1:
        problems.append(f"several answers {answers} in one annotation")
    return (answers[0] if answers else None), "\n".join(comments), tuple(problems)


def _as_texts(value: Any, name: str, problems: list[str]) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return texts
    problems.append(f"{name}: expected a list of texts, found {value!r:.80}")
    return []


def _name_rater(completed_by: Any) -> str:
    """Return a rater's name from the account's number, "" where there is none."""
    number = completed_by.get("id") if isinstance(completed_by, Mapping) else completed_by
    return f"label-studio-{number}" if isinstance(number, int) and not isinstance(number, bool) else ""
