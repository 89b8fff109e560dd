"""The blinded rating set: tasks that name nobody, and the key that does."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import polars as pl

from capo_core.errors import CorpusError, RatingsError
from capo_core.judging.groups import Group, draw_groups, draw_references, list_candidates
from capo_core.seeding import derive_seed
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_KEY, VALIDATION_TASKS, check_columns
from schemas.human_validation import HumanValidationConfig

MIN_SECRET_BYTES = 16


def build_validation_set(
    corpus: pl.DataFrame,
    generations: pl.DataFrame,
    task: TaskSpec,
    config: HumanValidationConfig,
    *,
    secret: bytes,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the tasks to hand to raters and the key to keep apart: a VALIDATION_TASKS and a VALIDATION_KEY frame.

    Each task asks who of the annotators wrote a group of explanations of held-out items, with references of every
    annotator from training items. Tasks are dealt out over methods and annotators in turn; where a combination has
    no further group the others go on, and where none has there are fewer than `n_tasks`: the key's rows say how many
    of each there are. Candidates stand under letters shuffled per task, tasks in shuffled order. A group of several
    items shows their texts numbered in one field.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items; of several seeds each gets its turn.
        task: names the two texts in errors; its labels are never shown.
        config: methods, sizes and seed.
        secret: key of task ids and signatures, at least 16 bytes, to be kept with the key.

    Raises:
        CorpusError: if no group can be formed; see also `draw_groups` and `draw_references`.
        ValueError: if `secret` is too short.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed")
    annotators = list_candidates(corpus)
    available = draw_groups(corpus, generations, config.methods, group_size=config.group_size, seed=config.seed)
    groups = _deal_groups(available, config.methods, annotators, config.n_tasks)
    if not groups:
        raise CorpusError(
            f"task {task.name}: no method in {list(config.methods)} has {config.group_size} explanations by one "
            "annotator to show: lower human_validation.group_size"
        )
    references = {
        index: draw_references(corpus, n_references=config.n_references, seed=config.seed, index=index)
        for index in {group.index for group in groups}
    }
    texts = {row[0]: row[1:] for row in corpus.select("item_id", "text_a", "text_b").iter_rows()}
    rng = np.random.default_rng(derive_seed(config.seed, "validation tasks"))
    built = [
        _build_task(groups[chosen], position, references[groups[chosen].index], texts, rng, secret)
        for position, chosen in enumerate(rng.permutation(len(groups)), start=1)
    ]
    tasks = pl.DataFrame([shown for shown, _ in built], schema=VALIDATION_TASKS)
    key = pl.DataFrame([hidden for _, hidden in built], schema=VALIDATION_KEY)
    return (
        check_columns(tasks, VALIDATION_TASKS, "validation_tasks"),
        check_columns(key.sort("task_id"), VALIDATION_KEY, "validation_key"),
    )


def sign_task(task: Mapping[str, Any], secret: bytes) -> str:
    """Return HMAC-SHA256 (RFC 2104) in hexadecimal over a task's content as JSON with sorted keys.

    Args:
        task: one VALIDATION_TASKS row.
        secret: key of the signature.
    """
    content = json.dumps({name: task[name] for name in VALIDATION_TASKS}, sort_keys=True, ensure_ascii=True)
    return hmac.new(secret, content.encode(), hashlib.sha256).hexdigest()


def verify_tasks(tasks: pl.DataFrame, key: pl.DataFrame, secret: bytes) -> None:
    """Check that `tasks` are, unchanged, those that `key` was made for.

    Raises:
        RatingsError: if a task is missing, foreign or altered; names each.
    """
    signatures = dict(key.select("task_id", "signature").iter_rows())
    problems = []
    for row in tasks.iter_rows(named=True):
        expected = signatures.pop(row["task_id"], None)
        if expected is None:
            problems.append(f"task {row['task_id']!r} is not in the key or stands twice")
        elif not hmac.compare_digest(expected, sign_task(row, secret)):
            problems.append(f"task {row['task_id']!r} differs from the one signed")
    problems += [f"task {task_id!r} is missing" for task_id in sorted(signatures)]
    if problems:
        raise RatingsError("; ".join(problems))


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


def _build_task(
    group: Group,
    position: int,
    references: Mapping[str, Sequence[str]],
    texts: Mapping[str, tuple[str, str]],
    rng: np.random.Generator,
    secret: bytes,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row shown and the row kept."""
    order = [sorted(references)[i] for i in rng.permutation(len(references))]
    candidates = list(zip(ascii_uppercase, order, strict=False))
    shown = {
        "task_id": _name_task(group, secret),
        "position": position,
        "text_a": _number([texts[item][0] for item in group.item_ids]),
        "text_b": _number([texts[item][1] for item in group.item_ids]),
        "explanations": list(group.explanations),
        "references": [{"candidate": letter, "examples": list(references[who])} for letter, who in candidates],
    }
    hidden = {
        "task_id": shown["task_id"],
        "signature": sign_task(shown, secret),
        "method": group.method,
        "seed": group.seed,
        "annotator_id": group.annotator_id,
        "item_ids": list(group.item_ids),
        "candidate_annotators": [{"candidate": letter, "annotator_id": who} for letter, who in candidates],
    }
    return shown, hidden


def _name_task(group: Group, secret: bytes) -> str:
    """Return an id that tells nothing without `secret`; its first letter keeps spreadsheets from reading a number."""
    content = json.dumps([group.method, group.seed, group.annotator_id, group.item_ids])
    return "t" + hmac.new(secret, b"task id:" + content.encode(), hashlib.sha256).hexdigest()[:15]


def _number(texts: Sequence[str]) -> str:
    """Return the one text, or several numbered as the explanations are."""
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))
