"""Attribution: which of the annotators wrote this group of explanations?"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

import polars as pl

from capo_core.judging.fencing import fence, make_nonce
from capo_core.judging.groups import HUMAN, HUMAN_SHUFFLED, Group, draw_groups
from capo_core.judging.questions import JudgeQuestion, Setting, fill_prompt, make_question
from capo_core.prompts import Message
from schemas.config import TaskSpec
from schemas.judge import JudgeConfig


def ask_attribution(corpus: pl.DataFrame, generations: pl.DataFrame, setting: Setting) -> list[JudgeQuestion]:
    """Return the attribution questions, sorted by method, seed, annotator, group and order.

    Each group is asked about once per cyclic rotation of the candidates, so that every candidate stands once at every
    position; or once per each of `n_orders` rotations, evenly spaced and starting further on with each group, so that
    positions are balanced over the groups. With `human` among the methods, `human_shuffled` (annotators permuted
    within items) is asked about too: the floor to the ceiling.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items.
        setting: what the questions have in common.

    Raises:
        CorpusError: see `draw_groups`.
    """
    config = setting.config
    groups = draw_attributed(corpus, generations, config)
    questions = []
    for group in groups:
        references = setting.references[group.index]
        judged = setting.normalise(group.explanations)
        for order, candidates in list_rotations(sorted(references), config.n_orders, group.index):
            shown = [references[name] for name in candidates]
            messages = render_attribution(judged, shown, setting.task, config.seed)
            questions.append(make_question("attribution", group, candidates, order, setting.normalisation, messages))
    return questions


def draw_attributed(corpus: pl.DataFrame, generations: pl.DataFrame, config: JudgeConfig) -> list[Group]:
    """Return the groups that attribution asks about, floor included; see `draw_groups`."""
    return draw_groups(
        corpus,
        generations,
        attributed_methods(config),
        group_size=config.group_size,
        n_groups=config.n_groups,
        seed=config.seed,
    )


def attributed_methods(config: JudgeConfig) -> list[str]:
    """Return the methods asked about: the configured ones and, beside the human ceiling, its floor."""
    return [*config.methods, *([HUMAN_SHUFFLED] if HUMAN in config.methods else [])]


def list_rotations(
    candidates: Sequence[str], n_orders: int | None = None, first: int = 0
) -> list[tuple[int, tuple[str, ...]]]:
    """Return cyclic rotations of `candidates`, each after the number of candidates it was turned by, ascending.

    Args:
        candidates: in the unrotated order.
        n_orders: how many rotations, evenly spaced; None, or no fewer than there are candidates, for all.
        first: turn of the first rotation.
    """
    n = len(candidates)
    n_orders = n if n_orders is None else min(n_orders, n)
    turns = sorted({(first + number * n // n_orders) % n for number in range(n_orders)})
    return [(turn, (*candidates[turn:], *candidates[:turn])) for turn in turns]


def render_attribution(
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
    values = {
        "references": "\n\n".join(blocks),
        "judged": fence(judged, "TO ATTRIBUTE", judged_nonce),
        "letters": ", ".join(letters),
    }
    return fill_prompt("attribution", task, values)
