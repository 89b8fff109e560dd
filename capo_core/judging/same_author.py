"""Same author: did the author of the references write this group of explanations?"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from capo_core.judging.fencing import fence, make_nonce
from capo_core.judging.groups import HUMAN, Group, draw_groups, draw_other_groups
from capo_core.judging.questions import JudgeQuestion, Setting, fill_prompt, make_question
from capo_core.prompts import Message
from schemas.config import TaskSpec

SAME, DIFFERENT = "same", "different"

_STATEMENTS = {SAME: "The same person wrote them.", DIFFERENT: "Another writer wrote them."}


def ask_same_author(corpus: pl.DataFrame, generations: pl.DataFrame, setting: Setting) -> list[JudgeQuestion]:
    """Return the same-author questions, sorted by method, seed, annotator, group and order.

    Each group is asked about with both orders of the two answers. With `human` among the methods, another annotator's
    groups (`human_other`) are held against the references too: what a judge should refuse.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items.
        setting: what the questions have in common.

    Raises:
        CorpusError: see `draw_groups`.
    """
    config = setting.config
    size, n_groups, seed = config.group_size, config.n_groups, config.seed
    groups = draw_groups(corpus, generations, config.methods, group_size=size, n_groups=n_groups, seed=seed)
    if HUMAN in config.methods:
        others = draw_other_groups(corpus, generations, group_size=size, n_groups=n_groups, seed=seed)
        groups += [other for _, other in others]
    return [question for group in groups for question in _ask_about(group, setting)]


def _ask_about(group: Group, setting: Setting) -> list[JudgeQuestion]:
    """Return the questions about one group, with both orders of the answers."""
    references = setting.references[group.index][group.annotator_id]
    judged = setting.normalise(group.explanations)
    questions = []
    for order, answers in enumerate(((SAME, DIFFERENT), (DIFFERENT, SAME))):
        messages = render_same_author(judged, references, answers, setting.task, setting.config.seed)
        questions.append(make_question("same_author", group, answers, order, setting.normalisation, messages))
    return questions


def render_same_author(
    judged: Sequence[str], references: Sequence[str], answers: Sequence[str], task: TaskSpec, seed: int
) -> tuple[Message, ...]:
    """Return the conversation that asks whether the author of `references` wrote `judged`.

    Args:
        judged: explanations in question.
        references: the annotator's training explanations.
        answers: `same` and `different` in the order shown.
        task: the task the annotators did.
        seed: for the fences' codes.
    """
    reference_nonce = make_nonce(seed, "references", *references)
    judged_nonce = make_nonce(seed, "judged", reference_nonce, *judged)
    values = {
        "references": fence(references, "WRITTEN BY THE PERSON", reference_nonce),
        "judged": fence(judged, "IN QUESTION", judged_nonce),
        "first": _STATEMENTS[answers[0]],
        "second": _STATEMENTS[answers[1]],
        "letters": "A, B",
    }
    return fill_prompt("same_author", task, values)
