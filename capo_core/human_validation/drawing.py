"""What raters are shown: groups to rate, attention checks, and tasks to show twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.judging.groups import HUMAN, Group, draw_groups, draw_references, list_candidates
from capo_core.seeding import derive_seed
from capo_core.text import identity_form
from schemas.config import TaskSpec
from schemas.human_validation import HumanValidationConfig

TaskKind = Literal["rating", "attention", "repeat"]

_TRIES_PER_CHECK = 20
"""Draws of references tried for one attention check before giving up on telling the people apart."""


@dataclass(frozen=True)
class DrawnTask:
    """A group to attribute and what it is attributed by.

    Attributes:
        kind: why raters see it.
        group: the explanations and who is behind them.
        references: every candidate's examples, from training items.
    """

    kind: TaskKind
    group: Group
    references: Mapping[str, tuple[str, ...]]


def draw_rated_tasks(
    corpus: pl.DataFrame, generations: pl.DataFrame, task: TaskSpec, config: HumanValidationConfig
) -> list[DrawnTask]:
    """Return up to `n_tasks` tasks, dealt out over methods and annotators in turn.

    Groups are of items to which all methods gave a readable explanation, so that methods are compared on the same
    groups of items; where that leaves some method fewer tasks than it could have, each method's groups are of
    whatever it explained.

    Args: see `capo_core.human_validation.blinding.build_validation_set`.

    Raises:
        CorpusError: if no group can be formed; see also `draw_groups` and `draw_references`.
    """
    annotators = list_candidates(corpus)
    dealt, dealt_common = (
        _deal_groups(
            draw_groups(corpus, rows, config.methods, group_size=config.group_size, seed=config.seed),
            config.methods,
            annotators,
            config.n_tasks,
        )
        for rows in (generations, _keep_common(generations, config.methods))
    )
    if not dealt:
        raise CorpusError(
            f"task {task.name}: no method in {list(config.methods)} has {config.group_size} explanations by one "
            "annotator to show: lower human_validation.group_size"
        )
    if Counter(g.method for g in dealt_common) == Counter(g.method for g in dealt):
        dealt = dealt_common
    references = {
        index: draw_references(corpus, n_references=config.n_references, seed=config.seed, index=index)
        for index in {group.index for group in dealt}
    }
    return [DrawnTask("rating", group, references[group.index]) for group in dealt]


def draw_attention_checks(corpus: pl.DataFrame, config: HumanValidationConfig) -> list[DrawnTask]:
    """Return `n_attention` tasks whose answer is obvious, the annotators in turn.

    The group to attribute is training explanations that the references of its author show word for word, and nobody
    else's do. Such a group says nothing of a method; who cannot place it has not read.

    Raises:
        CorpusError: if the people's training explanations are too much alike for a check.
    """
    annotators = list_candidates(corpus)
    items = _items_by_text(corpus)
    checks: list[DrawnTask] = []
    for trial in range(_TRIES_PER_CHECK * config.n_attention):
        if len(checks) == config.n_attention:
            break
        author = annotators[len(checks) % len(annotators)]
        references = draw_references(corpus, n_references=config.n_references, seed=config.seed, index=trial)
        others = {text for who, texts in references.items() if who != author for text in texts}
        own = list(dict.fromkeys(text for text in references[author] if text not in others))
        if len(own) < config.group_size:
            continue
        rng = np.random.default_rng(derive_seed(config.seed, "attention", trial))
        chosen = tuple(own[i] for i in rng.permutation(len(own))[: config.group_size])
        of_items = tuple(items[author, text] for text in chosen)
        checks.append(DrawnTask("attention", Group(HUMAN, config.seed, author, trial, of_items, chosen), references))
    if len(checks) < config.n_attention:
        raise CorpusError(
            f"only {len(checks)} of {config.n_attention} attention checks can be made: the annotators' training "
            "explanations repeat or equal one another; lower human_validation.n_attention"
        )
    return checks


def choose_repeats(rated: Sequence[DrawnTask], n_repeated: int, rng: np.random.Generator) -> list[int]:
    """Return the places of the tasks to show twice: at random, but spread over the methods; all if there are fewer."""
    piles: dict[str, list[int]] = {}
    for place in rng.permutation(len(rated)):
        piles.setdefault(rated[place].group.method, []).append(int(place))
    chosen: list[int] = []
    while any(piles.values()) and len(chosen) < n_repeated:
        drawn = [piles[method].pop() for method in sorted(piles) if piles[method]]
        chosen += drawn[: n_repeated - len(chosen)]
    return chosen


def _keep_common(generations: pl.DataFrame, methods: Sequence[str]) -> pl.DataFrame:
    """Return the generations less those of items that another method did not explain as the same annotator.

    Rows that imitate nobody (zero_shot) stay.
    """
    rows = generations.filter((pl.col("decision") == "sampled") & pl.col("method").is_in(list(methods)))
    imitating = rows.filter(pl.col("annotator_id").is_not_null())
    place = ["seed", "annotator_id", "item_id"]
    explained = imitating.filter(pl.col("explanation").str.strip_chars() != "")
    common = (
        explained.group_by(place)
        .agg(pl.col("method").n_unique())
        .filter(pl.col("method") == imitating["method"].n_unique())
    )
    return pl.concat([rows.filter(pl.col("annotator_id").is_null()), explained.join(common, on=place, how="semi")])


def _deal_groups(
    available: Sequence[Group], methods: Sequence[str], annotators: Sequence[str], n_tasks: int
) -> list[Group]:
    """Return up to `n_tasks` groups, taken in turn from every combination of method and annotator.

    A round visits the combinations along diagonals, (method 0, annotator 0), (method 1, annotator 1), …, so that a
    round cut short is still as even as it can be over methods and over annotators.
    """
    piles = {(method, annotator): [] for method in methods for annotator in annotators}
    # Ascending index first, then seed: seeds take turns. Reversed, so that pop() deals from the front.
    for group in sorted(available, key=lambda g: (g.index, g.seed), reverse=True):
        piles[group.method, group.annotator_id].append(group)
    diagonals = [
        (method, annotators[(shift + rank) % len(annotators)])
        for shift in range(len(annotators))
        for rank, method in enumerate(methods)
    ]
    dealt: list[Group] = []
    while any(piles.values()) and len(dealt) < n_tasks:
        drawn = [piles[place].pop() for place in diagonals if piles[place]]
        dealt += drawn[: n_tasks - len(dealt)]
    return dealt


def _items_by_text(corpus: pl.DataFrame) -> dict[tuple[str, str], str]:
    """Return which training item each annotator explained with which text, the first in order of ids."""
    rows = corpus.filter(pl.col("split") == "train").select("annotator_id", "explanation", "item_id")
    items: dict[tuple[str, str], str] = {}
    for annotator, explanation, item in rows.sort("item_id").iter_rows():
        items.setdefault((annotator, identity_form(explanation)), item)
    return items
