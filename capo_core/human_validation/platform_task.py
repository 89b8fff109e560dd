"""A task as annotation platforms show it, and what their exports come down to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.config import TaskSpec

CANNOT_SAY = "cannot say"
"""The choice of a rater who has no hunch."""


@dataclass(frozen=True)
class ExportedRating:
    """One rater's answer to one task as a platform exports it.

    Attributes:
        place: which record, for messages.
        record: values under the columns of a ratings table.
        content: the task's fields as they came back.
        problems: what could not be read, in words.
    """

    place: str
    record: Mapping[str, Any]
    content: Mapping[str, Any]
    problems: tuple[str, ...] = ()


def name_fields(task: TaskSpec, letters: Sequence[str]) -> dict[str, str]:
    """Return the heading of each text field of a task, by the field's name, in the order shown.

    Names are in lower case, since Argilla takes no others.
    """
    return {
        "text_a": task.text_a_name,
        "text_b": task.text_b_name,
        "explanations": "Who wrote this?",
        **{_name_reference(letter): f"Person {letter}" for letter in letters},
    }


def render_task(task: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a VALIDATION_TASKS row by the names of their fields."""
    return {
        "text_a": task["text_a"],
        "text_b": task["text_b"],
        "explanations": number_texts(task["explanations"]),
        **{_name_reference(one["candidate"]): number_texts(one["examples"]) for one in task["references"]},
    }


def _name_reference(letter: str) -> str:
    return f"reference_{letter.lower()}"


def number_texts(texts: list[str] | tuple[str, ...]) -> str:
    """Return the one text, or several numbered, with an empty line between."""
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))
