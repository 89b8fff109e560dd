"""Pairwise: which of two groups of explanations about the same items is closer to an annotator's references?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import get_args

import polars as pl

from capo_core.judging.fencing import fence, make_nonce
from capo_core.judging.groups import HUMAN, Group, draw_group_pairs, draw_other_groups
from capo_core.judging.questions import JudgeQuestion, Setting, fill_prompt, make_question
from capo_core.prompts import Message
from schemas.config import TaskSpec
from schemas.judge import JudgeConfig
from schemas.section import Source


def ask_pairwise(corpus: pl.DataFrame, generations: pl.DataFrame, setting: Setting) -> list[JudgeQuestion]:
    """Return the pairwise questions, by pair of methods (`list_pairs`), seed, annotator, group and order.

    Each pair of groups is asked about in both orders; a judge that names another method in the other order is
    undecided. With `human` among the methods, each annotator's own explanations are held against another annotator's
    of the same items (`human_other`) as well: the calibration.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items.
        setting: what the questions have in common.

    Raises:
        CorpusError: see `draw_groups`.
    """
    config = setting.config
    size, n_groups, seed = config.group_size, config.n_groups, config.seed
    pairs = draw_group_pairs(corpus, generations, list_pairs(config), group_size=size, n_groups=n_groups, seed=seed)
    if HUMAN in config.methods:
        pairs += draw_other_groups(corpus, generations, group_size=size, n_groups=n_groups, seed=seed)
    return [question for pair in pairs for question in _ask_about(pair, setting)]


def list_pairs(config: JudgeConfig) -> list[tuple[str, str]]:
    """Return every pair of the configured methods, the later on the ladder first: capo against sft before all."""
    ladder = [method for method in get_args(Source) if method in config.methods]
    return list(combinations(reversed(ladder), 2))


def _ask_about(pair: tuple[Group, Group], setting: Setting) -> list[JudgeQuestion]:
    """Return the questions about one pair of groups, in both orders."""
    references = setting.references[pair[0].index][pair[0].annotator_id]
    groups = tuple(setting.normalise(group.explanations) for group in pair)
    methods = (pair[0].method, pair[1].method)
    questions = []
    for order, step in enumerate((1, -1)):
        messages = render_pairwise(groups[::step], references, setting.task, setting.config.seed)
        questions.append(
            make_question("pairwise", pair[0], methods[::step], order, setting.normalisation, messages, methods[1])
        )
    return questions


def render_pairwise(
    groups: Sequence[Sequence[str]], references: Sequence[str], task: TaskSpec, seed: int
) -> tuple[Message, ...]:
    """Return the conversation that asks which of two groups is closer to the references.

    Args:
        groups: the two groups of explanations in the order shown.
        references: the annotator's training explanations.
        task: the task the annotators did.
        seed: for the fences' codes.
    """
    reference_nonce = make_nonce(seed, "references", *references)
    judged_nonce = make_nonce(seed, "judged", reference_nonce, *(text for group in groups for text in group))
    values = {
        "references": fence(references, "WRITTEN BY THE PERSON", reference_nonce),
        "first": fence(groups[0], "GROUP A", judged_nonce),
        "second": fence(groups[1], "GROUP B", judged_nonce),
        "letters": "A, B",
    }
    return fill_prompt("pairwise", task, values)
