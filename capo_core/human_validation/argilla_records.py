"""The rating set for Argilla 2, and its records back in.

Settings are what `argilla.Settings.from_json` reads, records what `argilla.Record.from_dict` takes and
`dataset.records(with_responses=True).to_json` writes. Text fields do not use Markdown: texts are shown as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from capo_core.human_validation.platform_task import CANNOT_SAY, ExportedRating, name_fields, render_task
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_TASKS, check_columns

SETTINGS_FILE, RECORDS_FILE = "argilla_settings.json", "argilla_records.json"
EXPORT_FIELDS = ("id", "fields", "metadata", "responses")
"""What every record of an export has."""


def write_argilla_settings(tasks: pl.DataFrame, task: TaskSpec, *, guidelines: str, n_raters: int) -> str:
    """Return the settings of the dataset as JSON: text fields, one choice, a comment and the signature.

    Args:
        tasks: VALIDATION_TASKS; all with the same letters.
        task: its names of the texts are the titles of fields.
        guidelines: what raters are told, Markdown.
        n_raters: responses after which a record counts as done.
    """
    check_columns(tasks, VALIDATION_TASKS, "validation_tasks")
    letters = [reference["candidate"] for reference in tasks["references"][0]]
    choices = [{"value": choice, "text": choice, "description": None} for choice in (*letters, CANNOT_SAY)]
    settings = {
        "guidelines": guidelines,
        "questions": [
            _name_part("answer", "It reads most like", {"type": "label_selection", "options": choices}),
            _name_part("comment", "Comment", {"type": "text", "use_markdown": False}, required=False),
        ],
        "fields": [
            _name_part(name, title, {"type": "text", "use_markdown": False})
            for name, title in name_fields(task, letters).items()
        ],
        "vectors": [],
        "metadata": [{"name": "signature", "title": "signature", "settings": {"type": "terms"},
                      "visible_for_annotators": False}],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": n_raters},
        "mapping": None,
    }  # fmt: skip
    return json.dumps(settings, ensure_ascii=False, indent=1) + "\n"


def write_argilla_records(tasks: pl.DataFrame) -> str:
    """Return the tasks as a JSON array of records, the task's id as the record's.

    Args:
        tasks: VALIDATION_TASKS.
    """
    check_columns(tasks, VALIDATION_TASKS, "validation_tasks")
    records = [
        {
            "id": row["task_id"],
            "fields": render_task(row),
            "metadata": {"signature": row["signature"]},
            "suggestions": {},
            "responses": {},
            "vectors": {},
        }
        for row in tasks.sort("position").iter_rows(named=True)
    ]
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


def iterate_ratings(records: Sequence[Mapping[str, Any]]) -> Iterator[ExportedRating]:
    """Yield one rating per record and user who responded.

    Args:
        records: objects with `EXPORT_FIELDS`.
    """
    for number, exported in enumerate(records, start=1):
        place = f"record {number}"
        fields, metadata, responses = (exported[name] for name in ("fields", "metadata", "responses"))
        if not all(isinstance(part, Mapping) for part in (fields, metadata, responses)):
            yield ExportedRating(place, {}, {}, ("fields, metadata and responses are not objects",))
            continue
        identity = {"task_id": exported["id"], "signature": metadata.get("signature")}
        answers, problems = _read_responses(responses.get("answer", []))
        comments, more = _read_responses(responses.get("comment", []))
        if problems or more:
            yield ExportedRating(place, identity, fields, (*problems, *more))
            continue
        for user in dict.fromkeys([*answers, *comments]):
            record = {**identity, "rater_id": user, "answer": answers.get(user), "comment": comments.get(user)}
            yield ExportedRating(f"{place}, user {user}", record, fields)


def _read_responses(responses: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return one question's values by user, and what is wrong with them."""
    if not isinstance(responses, list) or not all(
        isinstance(one, Mapping) and isinstance(one.get("user_id"), str) and "value" in one for one in responses
    ):
        return {}, (f"expected a list of responses with user_id and value, found {responses!r:.80}",)
    users = [one["user_id"] for one in responses]
    doubled = sorted({user for user in users if users.count(user) > 1})
    problems = (f"users {doubled} have responded twice to one question",) if doubled else ()
    return {one["user_id"]: one["value"] for one in responses}, problems


def _name_part(name: str, title: str, settings: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "title": title, "required": required, "settings": settings}
