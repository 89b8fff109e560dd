"""Attribution questions: which of the annotators wrote this group of explanations?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template, ascii_uppercase

import polars as pl

from capo_core.judging.fencing import fence, make_nonce
from capo_core.judging.groups import HUMAN, HUMAN_SHUFFLED, Group, draw_groups, draw_references
from capo_core.prompts import Message
from schemas.config import TaskSpec
from schemas.judge import JudgeConfig

PROMPT_VERSION = "attribution_v1"
"""Name of the prompt file beside this module. A changed text gets a new name."""


@dataclass(frozen=True)
class JudgeQuestion:
    """One question to a judge.

    Attributes:
        question_id: first 16 hexadecimal digits of sha256 over everything below and the prompt's version.
        method: see `Group`; likewise seed, annotator_id and item_ids.
        candidates: annotators in the order shown; the one at position i stands under `letters[i]`.
        messages: the conversation to send.
    """

    question_id: str
    method: str
    seed: int
    annotator_id: str
    item_ids: tuple[str, ...]
    candidates: tuple[str, ...]
    messages: tuple[Message, ...]

    @property
    def letters(self) -> str:
        """The letters the candidates stand under, in order."""
        return ascii_uppercase[: len(self.candidates)]


def build_questions(
    corpus: pl.DataFrame, generations: pl.DataFrame, task: TaskSpec, config: JudgeConfig
) -> list[JudgeQuestion]:
    """Return every question to ask, sorted by method, seed, annotator, group and rotation.

    Each group is asked once per cyclic rotation of the candidates, so that every candidate stands once at every
    position. With `human` among the methods, `human_shuffled` (annotators permuted within items) is asked too: the
    floor to the ceiling. Fewer explanations than `n_groups * group_size` make fewer groups, counted by
    `capo_core.judging.attribution.summarise_verdicts`.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items.
        task: the task the annotators did.
        config: methods, sizes and seed.

    Raises:
        CorpusError: see `draw_groups` and `draw_references`.
    """
    methods = judged_methods(config)
    groups = draw_groups(
        corpus, generations, methods, group_size=config.group_size, n_groups=config.n_groups, seed=config.seed
    )
    references = {
        index: draw_references(corpus, n_references=config.n_references, seed=config.seed, index=index)
        for index in sorted({group.index for group in groups})
    }
    return [
        _build_question(group, candidates, references[group.index], task, config.seed)
        for group in groups
        for candidates in rotations(sorted(references[group.index]))
    ]


def judged_methods(config: JudgeConfig) -> list[str]:
    """Return the methods asked about: the configured ones and, beside the human ceiling, its floor."""
    return [*config.methods, *([HUMAN_SHUFFLED] if HUMAN in config.methods else [])]


def rotations(candidates: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the cyclic rotations of `candidates`, the unrotated order first."""
    return [(*candidates[start:], *candidates[:start]) for start in range(len(candidates))]


def _build_question(
    group: Group, candidates: tuple[str, ...], references: Mapping[str, Sequence[str]], task: TaskSpec, seed: int
) -> JudgeQuestion:
    messages = render_messages(group.explanations, [references[name] for name in candidates], task, seed)
    content = [PROMPT_VERSION, group.method, group.seed, group.annotator_id, group.item_ids, candidates, messages]
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
    return JudgeQuestion(
        question_id=digest[:16],
        method=group.method,
        seed=group.seed,
        annotator_id=group.annotator_id,
        item_ids=group.item_ids,
        candidates=candidates,
        messages=messages,
    )


def render_messages(
    judged: Sequence[str], references: Sequence[Sequence[str]], task: TaskSpec, seed: int
) -> tuple[Message, ...]:
    """Return the conversation that asks for the author of `judged`.

    References come before the judged group and are fenced with a code of their own: questions that share references
    then share their opening, which a local judge computes once and hosted ones cache.

    Args:
        judged: explanations to attribute.
        references: explanations of each candidate, in the order shown.
        task: the task the annotators did.
        seed: for the fences' codes.
    """
    letters = ascii_uppercase[: len(references)]
    reference_nonce = make_nonce(seed, "references", *(text for texts in references for text in texts))
    blocks = [
        f"Person {letter}\n{fence(texts, 'WRITTEN BY ' + letter, reference_nonce)}"
        for letter, texts in zip(letters, references, strict=True)
    ]
    judged_nonce = make_nonce(seed, "judged", reference_nonce, *judged)
    system, user = _read_template()
    values = {
        "question": task.question.strip(),
        "references": "\n\n".join(blocks),
        "judged": fence(judged, "TO ATTRIBUTE", judged_nonce),
        "letters": ", ".join(letters),
    }
    return (
        {"role": "system", "content": system.substitute(values)},
        {"role": "user", "content": user.substitute(values)},
    )


def _read_template() -> tuple[Template, Template]:
    """Return the system and user parts of the prompt file."""
    text = files("capo_core.judging").joinpath(f"{PROMPT_VERSION}.txt").read_text(encoding="utf-8")
    system, user = text.removeprefix("[system]\n").split("\n[user]\n")
    return Template(system.strip()), Template(user.strip())
