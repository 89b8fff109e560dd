"""The blinded rating set: tasks that name nobody, and the key that does."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

import numpy as np
import polars as pl

from capo_core.errors import RatingsError
from capo_core.human_validation.drawing import DrawnTask, choose_repeats, draw_attention_checks, draw_rated_tasks
from capo_core.seeding import derive_seed
from schemas.config import TaskSpec
from schemas.frames import VALIDATION_KEY, VALIDATION_TASKS, check_columns
from schemas.human_validation import HumanValidationConfig

_SIGNED = tuple(name for name in VALIDATION_TASKS if name != "signature")

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
    of each there are. Among them, told apart by the key only, stand attention checks (the answer is in the references)
    and repeats (a rated task under another id, every candidate under another letter). Candidates stand under letters
    shuffled per task, tasks in shuffled order. A group of several items shows their texts numbered in one field.

    Args:
        corpus: CORPUS.
        generations: GENERATIONS of held-out items; of several seeds each gets its turn.
        task: names the two texts in errors; its labels are never shown.
        config: methods, sizes and seed.
        secret: key of task ids and signatures, at least 16 bytes, to be kept with the key.

    Raises:
        CorpusError: if no group can be formed; see also `draw_groups`, `draw_references` and `draw_attention_checks`.
        ValueError: if `secret` is too short.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed")
    rated = draw_rated_tasks(corpus, generations, task, config)
    rng = np.random.default_rng(derive_seed(config.seed, "validation tasks"))
    repeated = [rated[place] for place in choose_repeats(rated, config.n_repeated, rng)]
    drawn = [*rated, *draw_attention_checks(corpus, config)]
    letters = [_order_candidates(one, rng) for one in drawn]
    # Every candidate moves by the same number of places, so that none keeps its letter.
    for again in repeated:
        order, shift = letters[rated.index(again)], int(rng.integers(1, len(again.references)))
        drawn.append(DrawnTask("repeat", again.group, again.references))
        letters.append([*order[shift:], *order[:shift]])
    texts = {row[0]: row[1:] for row in corpus.select("item_id", "text_a", "text_b").iter_rows()}
    built = [
        _build_task(drawn[chosen], letters[chosen], position, texts, secret)
        for position, chosen in enumerate(rng.permutation(len(drawn)), start=1)
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
        task: the columns of one VALIDATION_TASKS row; its own signature does not enter.
        secret: key of the signature.
    """
    content = json.dumps({name: task[name] for name in _SIGNED}, sort_keys=True, ensure_ascii=True)
    return hmac.new(secret, content.encode(), hashlib.sha256).hexdigest()


def name_set(tasks: pl.DataFrame) -> str:
    """Return a name for a set of tasks, 12 hexadecimal digits of sha256 over its signatures."""
    return hashlib.sha256("".join(sorted(tasks["signature"])).encode()).hexdigest()[:12]


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
        elif not all(hmac.compare_digest(expected, found) for found in (row["signature"], sign_task(row, secret))):
            problems.append(f"task {row['task_id']!r} differs from the one signed")
    problems += [f"task {task_id!r} is missing" for task_id in sorted(signatures)]
    if problems:
        raise RatingsError("; ".join(problems))


def _order_candidates(drawn: DrawnTask, rng: np.random.Generator) -> list[str]:
    """Return the candidates in the order of the letters they stand under."""
    candidates = sorted(drawn.references)
    return [candidates[i] for i in rng.permutation(len(candidates))]


def _build_task(
    drawn: DrawnTask, order: Sequence[str], position: int, texts: Mapping[str, tuple[str, str]], secret: bytes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row shown and the row kept."""
    group = drawn.group
    candidates = list(zip(ascii_uppercase, order, strict=False))
    shown = {
        "task_id": _name_task(drawn, secret),
        "position": position,
        "text_a": _number([texts[item][0] for item in group.item_ids]),
        "text_b": _number([texts[item][1] for item in group.item_ids]),
        "explanations": list(group.explanations),
        "references": [{"candidate": letter, "examples": list(drawn.references[who])} for letter, who in candidates],
    }
    shown["signature"] = sign_task(shown, secret)
    hidden = {
        "task_id": shown["task_id"],
        "signature": shown["signature"],
        "kind": drawn.kind,
        "repeats": _name_task(replace(drawn, kind="rating"), secret) if drawn.kind == "repeat" else None,
        "method": group.method,
        "seed": group.seed,
        "annotator_id": group.annotator_id,
        "item_ids": list(group.item_ids),
        "candidate_annotators": [{"candidate": letter, "annotator_id": who} for letter, who in candidates],
    }
    return shown, hidden


def _name_task(drawn: DrawnTask, secret: bytes) -> str:
    """Return an id that tells nothing without `secret`; its first letter keeps spreadsheets from reading a number."""
    group = drawn.group
    content = json.dumps([drawn.kind, group.method, group.seed, group.annotator_id, group.index, group.item_ids])
    return "t" + hmac.new(secret, b"task id:" + content.encode(), hashlib.sha256).hexdigest()[:15]


def _number(texts: Sequence[str]) -> str:
    """Return the one text, or several numbered as the explanations are."""
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))
