"""What a question to a judge is, and how its prompt is put together from files and fenced texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template, ascii_uppercase

from capo_core.judging.groups import Group
from capo_core.prompts import Message
from capo_core.text import label_spellings, surface_normalise
from schemas.config import TaskSpec
from schemas.judge import JudgeConfig, Protocol
from schemas.section import Normalisation

PROMPT_VERSIONS: dict[Protocol, str] = {
    "attribution": "attribution_v1",
    "pairwise": "pairwise_v1",
    "same_author": "same_author_v1",
}
"""Name of each protocol's prompt file beside this module. A changed text gets a new name."""

References = Mapping[str, tuple[str, ...]]
"""Training explanations by annotator."""


@dataclass(frozen=True)
class JudgeQuestion:
    """One question to a judge.

    Attributes:
        question_id: first 16 hexadecimal digits of sha256 over everything below and the prompt's version.
        method: whose group is judged, see `Group`; likewise seed and item_ids. Of a pair of groups, the first one's.
        annotator_id: who wrote the group or whom it imitates; pairwise and same_author show his references.
        candidates: what can be answered, in the order shown; the one at position i stands under `letters[i]`.
            attribution: annotators; pairwise: the two methods; same_author: `same` and `different`.
        messages: the conversation to send.
        protocol: which kind of question this is.
        compared_with: pairwise: the other method.
        order: number of the order of candidates; a group is asked about in several.
        normalisation: of the references and the judged text.
    """

    question_id: str
    method: str
    seed: int
    annotator_id: str
    item_ids: tuple[str, ...]
    candidates: tuple[str, ...]
    messages: tuple[Message, ...]
    protocol: Protocol = "attribution"
    compared_with: str | None = None
    order: int = 0
    normalisation: Normalisation = "none"

    @property
    def letters(self) -> str:
        """The letters the candidates stand under, in order."""
        return ascii_uppercase[: len(self.candidates)]

    @property
    def prompt_version(self) -> str:
        """The prompt file the messages were made from."""
        return PROMPT_VERSIONS[self.protocol]


@dataclass(frozen=True)
class Setting:
    """What questions under one normalisation have in common.

    Attributes:
        task: the task the annotators did.
        config: methods, sizes and seed.
        normalisation: of references and judged text alike.
        references: by group index, already normalised.
    """

    task: TaskSpec
    config: JudgeConfig
    normalisation: Normalisation
    references: Sequence[References]

    def normalise(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return explanations as this setting shows them."""
        return normalise_texts(texts, self.normalisation, self.task)


def normalise_texts(texts: Sequence[str], normalisation: Normalisation, task: TaskSpec) -> tuple[str, ...]:
    """Return the texts as they are, or without case, punctuation and inflected label names (`surface`)."""
    if normalisation == "none":
        return tuple(texts)
    spellings = label_spellings(task.labels.names)
    return tuple(surface_normalise(text, spellings) for text in texts)


def make_question(
    protocol: Protocol,
    group: Group,
    candidates: tuple[str, ...],
    order: int,
    normalisation: Normalisation,
    messages: tuple[Message, ...],
    compared_with: str | None = None,
) -> JudgeQuestion:
    """Return a question with the id that its content gives it."""
    about = [group.method, compared_with, group.seed, group.annotator_id, group.item_ids]
    content = [PROMPT_VERSIONS[protocol], *about, candidates, order, normalisation, messages]
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
    return JudgeQuestion(
        question_id=digest[:16],
        method=group.method,
        seed=group.seed,
        annotator_id=group.annotator_id,
        item_ids=group.item_ids,
        candidates=candidates,
        messages=messages,
        protocol=protocol,
        compared_with=compared_with,
        order=order,
        normalisation=normalisation,
    )


@cache
def read_prompt(protocol: Protocol) -> str:
    """Return a protocol's prompt file."""
    return files("capo_core.judging").joinpath(f"{PROMPT_VERSIONS[protocol]}.txt").read_text(encoding="utf-8")


def fill_prompt(protocol: Protocol, task: TaskSpec, values: Mapping[str, str]) -> tuple[Message, ...]:
    """Return the system and user turns of a protocol's prompt file, its places filled with `values`."""
    system, user = read_prompt(protocol).removeprefix("[system]\n").split("\n[user]\n")
    filled = {"question": task.question.strip(), **values}
    return (
        {"role": "system", "content": Template(system.strip()).substitute(filled)},
        {"role": "user", "content": Template(user.strip()).substitute(filled)},
    )
