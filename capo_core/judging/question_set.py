"""Everything a judge is asked: every protocol, under every normalisation."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from capo_core.judging.attribution import ask_attribution
from capo_core.judging.groups import draw_references
from capo_core.judging.pairwise import ask_pairwise
from capo_core.judging.questions import JudgeQuestion, Setting, normalise_texts
from capo_core.judging.same_author import ask_same_author
from schemas.config import TaskSpec
from schemas.judge import JudgeConfig, Protocol

_ASK: dict[Protocol, Callable[[pl.DataFrame, pl.DataFrame, Setting], list[JudgeQuestion]]] = {
    "attribution": ask_attribution,
    "pairwise": ask_pairwise,
    "same_author": ask_same_author,
}


def build_questions(
    corpus: pl.DataFrame, generations: pl.DataFrame, task: TaskSpec, config: JudgeConfig
) -> list[JudgeQuestion]:
    """Return every question to ask, by protocol and normalisation in the order configured.

    The same groups and references are asked about under every normalisation. References are training explanations,
    judged groups are of held-out items, so that no item stands on both sides. Fewer explanations than
    `n_groups * group_size` make fewer groups, which the figures count as a shortfall.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items.
        task: the task the annotators did.
        config: protocols, methods, normalisations, sizes and seed.

    Raises:
        CorpusError: see `draw_groups` and `draw_references`.
    """
    drawn = [
        draw_references(corpus, n_references=config.n_references, seed=config.seed, index=index)
        for index in range(config.n_groups)
    ]
    settings = []
    for normalisation in config.normalisations:
        shown = [{who: normalise_texts(texts, normalisation, task) for who, texts in of.items()} for of in drawn]
        settings.append(Setting(task, config, normalisation, shown))
    return [
        question
        for protocol in config.protocols
        for setting in settings
        for question in _ASK[protocol](corpus, generations, setting)
    ]
