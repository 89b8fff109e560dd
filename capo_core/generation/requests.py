"""Which prompts a method asks: the difference between zero-shot, history, value profile and tuned models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from capo_core.errors import ConfigError, CorpusError
from capo_core.prompts import AnnotatorTag, Example, Message, build_prompt
from schemas.config import GenerationConfig, TaskSpec
from schemas.section import Method, TagPosition


@dataclass(frozen=True)
class GenerationRequest:
    """What to ask: an item's prompt, and who is imitated (None: nobody)."""

    item_id: str
    annotator_id: str | None
    prompt: Sequence[Message]


def build_requests(
    corpus: pl.DataFrame,
    method: Method,
    annotators: Sequence[str | None],
    task: TaskSpec,
    config: GenerationConfig,
    *,
    tag: TagPosition | None,
    seed: int,
    profiles: Mapping[str, str] | None = None,
) -> list[GenerationRequest]:
    """Return one request per annotator and held-out item, in the order given and by item_id.

    A person is imitated on every item of the held-out split, also on those that person left out: whether the
    person answered must not decide what the model is asked.

    Args:
        corpus: CORPUS frame.
        method: `history` shows the annotator's own training annotations, `profile` the description of the annotator;
            the others the item alone.
        annotators: whom to imitate, one after the other; None for `zero_shot`, which imitates nobody.
        task: the task asked.
        config: which split, how many examples.
        tag: where the prompt names the annotator (an adapter shared by several), or None.
        seed: draws the examples.
        profiles: what the model wrote of each annotator, for `profile` and no other method.

    Raises:
        CorpusError: if `history` finds no training annotation of the annotator.
        ConfigError: if `profile` has no profile to show, or another method is given one.
    """
    items = corpus.filter(pl.col("split") == config.split).unique("item_id").sort("item_id")
    texts = items.select("item_id", "text_a", "text_b").rows()
    requests = []
    for annotator in annotators:
        profile = (profiles or {}).get(annotator or "")
        if (method == "profile") != (profile is not None):
            raise ConfigError(
                f"method {method!r} was asked {'with' if profile is not None else 'without'} a value profile of "
                f"{annotator!r}; give one to method 'profile' and to no other"
            )
        history = _draw_history(corpus, annotator, config.n_history, seed) if method == "history" else ()
        named = AnnotatorTag(annotator, tag) if tag and annotator and method in ("sft", "capo") else None
        requests += [
            GenerationRequest(
                item_id=item_id,
                annotator_id=annotator,
                prompt=build_prompt(task, text_a, text_b, tag=named, history=history, profile=profile),
            )
            for item_id, text_a, text_b in texts
        ]
    return requests


def _draw_history(corpus: pl.DataFrame, annotator_id: str | None, n_history: int, seed: int) -> tuple[Example, ...]:
    """Return up to `n_history` of the annotator's training annotations as turns of the conversation."""
    drawn = draw_annotations(corpus, annotator_id, n_history, seed)
    return tuple(Example(*row) for row in drawn.select("text_a", "text_b", "label", "explanation").iter_rows())


def draw_annotations(corpus: pl.DataFrame, annotator_id: str | None, n: int, seed: int) -> pl.DataFrame:
    """Return up to `n` of the annotator's training annotations, drawn without replacement, in the order drawn.

    Fewer are the first of more: the same seed draws 10 and then 40 others for 50.

    Args:
        corpus: CORPUS frame.
        annotator_id: whose.
        n: how many at most.
        seed: of the draw, together with the annotator's id.

    Returns:
        Rows of `corpus`.

    Raises:
        CorpusError: if the annotator has no training annotation.
    """
    own = corpus.filter((pl.col("split") == "train") & (pl.col("annotator_id") == annotator_id)).sort(
        "item_id", "label", "explanation"
    )
    if own.is_empty():
        raise CorpusError(f"annotator {annotator_id!r} has no training annotation to show to the model")
    digest = hashlib.sha256(f"{seed}:{annotator_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return own[rng.permutation(own.height)[:n].tolist()]
