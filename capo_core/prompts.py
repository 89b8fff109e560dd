"""What a model is shown and what it answers: prompts, the response format and its parser.

A response has one form everywhere (training targets, generations, constrained decisions)::

    Label: neutral
    Explanation: The context does not say where the women work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.config import NominalLabels, TaskSpec
from schemas.section import TagPosition

Message = dict[str, str]
ParseStatus = Literal["ok", "no_label", "unknown_label", "no_explanation"]

LABEL_PREFIX = "Label:"
EXPLANATION_PREFIX = "Explanation:"
TAG_PREFIX = "Annotator:"
PROFILE_OPENING = "Answer in the place of one particular annotator, who is described here:"

_LABEL_LINE = re.compile(rf"^[ \t]*{LABEL_PREFIX}[ \t]*(?P<label>[^\n]*)$", re.IGNORECASE | re.MULTILINE)
_EXPLANATION = re.compile(rf"^[ \t]*{EXPLANATION_PREFIX}(?P<text>.*)\Z", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_SCORE = re.compile(r"[+\-−–]?\d+")


@dataclass(frozen=True)
class AnnotatorTag:
    """Whose answer a prompt asks for, and whether it says so before or after the item."""

    annotator_id: str
    position: TagPosition


@dataclass(frozen=True)
class Example:
    """One annotated item shown in context."""

    text_a: str
    text_b: str
    label: str
    explanation: str


@dataclass(frozen=True)
class ParsedResponse:
    """A response split into its parts; parts that cannot be read are None and `status` says which."""

    label: str | None
    explanation: str | None
    status: ParseStatus


def system_text(task: TaskSpec) -> str:
    """Return the instruction: the question, the labels allowed and the form of the answer."""
    if isinstance(task.labels, NominalLabels):
        allowed = "one of " + ", ".join(task.labels.names)
    else:
        allowed = f"an integer from {task.labels.minimum} to {task.labels.maximum}"
    return (
        f"{task.question.strip()}\nAnswer with a label ({allowed}) and a short explanation of your own, in this form:\n"
        f"{LABEL_PREFIX} <label>\n{EXPLANATION_PREFIX} <explanation>"
    )


def item_text(task: TaskSpec, text_a: str, text_b: str, tag: AnnotatorTag | None = None) -> str:
    """Return the user turn of one item, its first or last line naming the annotator if there is a tag."""
    text = f"{task.text_a_name}: {text_a.strip()}\n{task.text_b_name}: {text_b.strip()}"
    return text if tag is None else tag_text(text, tag)


def tag_text(text: str, tag: AnnotatorTag) -> str:
    """Return a user turn with the line before or after it that names the annotator."""
    line = f"{TAG_PREFIX} {tag.annotator_id}"
    return f"{line}\n{text}" if tag.position == "first" else f"{text}\n{line}"


def build_prompt(
    task: TaskSpec,
    text_a: str,
    text_b: str,
    *,
    tag: AnnotatorTag | None = None,
    history: Sequence[Example] = (),
    profile: str | None = None,
) -> list[Message]:
    """Return the conversation up to the response: instruction, earlier annotations as turns, the item.

    Args:
        task: the task asked.
        text_a: first text of the item.
        text_b: second text of the item.
        tag: whose answer is wanted, for an adapter shared by several annotators.
        history: the annotator's own training annotations, oldest first (the in-context history baseline).
        profile: description of the annotator, put below the instruction (the value-profile baseline). An empty one
            describes nobody and leaves the zero-shot prompt.
    """
    system = system_text(task)
    if profile is not None and profile.strip():
        system += f"\n\n{PROFILE_OPENING}\n{profile.strip()}"
    messages = [{"role": "system", "content": system}]
    for example in history:
        messages.append({"role": "user", "content": item_text(task, example.text_a, example.text_b)})
        messages.append({"role": "assistant", "content": response_text(example.label, example.explanation)})
    messages.append({"role": "user", "content": item_text(task, text_a, text_b, tag)})
    return messages


def response_text(label: str, explanation: str) -> str:
    """Return the response form of an annotation. White space around the explanation is no part of it."""
    return f"{response_opening(label)} {explanation.strip()}"


def response_opening(label: str) -> str:
    """Return the response up to and including `Explanation:`, which the constrained decision scores per label."""
    return f"{LABEL_PREFIX} {label}\n{EXPLANATION_PREFIX}"


def parse_response(text: str, task: TaskSpec) -> ParsedResponse:
    """Return the label and explanation a response states; nothing is guessed.

    Case and trailing punctuation of a label do not matter; a score may carry a plus sign. The first label line
    counts. A label outside the task's set is `unknown_label`.
    """
    explanation_match = _EXPLANATION.search(text)
    explanation = explanation_match["text"].strip() if explanation_match else None
    label_match = _LABEL_LINE.search(text)
    if label_match is None or not label_match["label"].strip():
        return ParsedResponse(None, explanation or None, "no_label")
    label = _match_label(label_match["label"], task)
    if label is None:
        return ParsedResponse(None, explanation or None, "unknown_label")
    if not explanation:
        return ParsedResponse(label, None, "no_explanation")
    return ParsedResponse(label, explanation, "ok")


def _match_label(raw: str, task: TaskSpec) -> str | None:
    """Return the task's label that `raw` states, or None."""
    stated = raw.strip().strip(".,;!\"'`*").strip()
    if isinstance(task.labels, NominalLabels):
        return next((name for name in task.labels.names if name.casefold() == stated.casefold()), None)
    if not _SCORE.fullmatch(stated):
        return None
    score = str(int(stated.replace("−", "-").replace("–", "-")))
    return score if score in task.labels.names else None
