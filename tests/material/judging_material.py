"""A small corpus with generations, for the tests of judging and human validation."""

from __future__ import annotations

import json

import polars as pl

from schemas.config import NominalLabels, TaskSpec
from schemas.frames import CORPUS, GENERATIONS

ANNOTATORS = ("person-ada", "person-bo", "person-cy")
TASK = TaskSpec(
    name="nli",
    question="Does the context entail the statement?",
    text_a_name="Context",
    text_b_name="Statement",
    labels=NominalLabels(names=("entailment", "neutral", "contradiction")),
)
N_TRAIN, N_TEST = 6, 9


def split_of(number: int) -> str:
    return "train" if number < N_TRAIN else "test"


def item_name(number: int) -> str:
    return f"item{number:02d}"


def make_corpus(n_items: int = N_TRAIN + N_TEST, annotators: tuple[str, ...] = ANNOTATORS) -> pl.DataFrame:
    """Return a corpus in which everybody explains every item and every explanation names its author and item."""
    rows = [
        {
            "item_id": item_name(number),
            "context_id": f"context{number}",
            "text_a": f"first text {number}",
            "text_b": f"second text {number}",
            "annotator_id": annotator,
            "label": "neutral",
            "explanation": f" {annotator.removeprefix('person-').upper()} explains   {item_name(number)}. ",
            "source_file": "made.jsonl",
            "source_line": number + 1,
            "source_id": str(number),
            "metadata": json.dumps({}),
            "split": split_of(number),
        }
        for number in range(n_items)
        for annotator in annotators
    ]
    return pl.DataFrame(rows, schema=CORPUS)


def make_generations(methods: tuple[str, ...] = ("zero_shot", "sft"), seeds: tuple[int, ...] = (1, 2)) -> pl.DataFrame:
    """Return a sampled and a constrained response per method, seed, annotator and test item."""
    rows = [
        {
            "method": method,
            "seed": seed,
            "annotator_id": annotator,
            "item_id": item_name(number),
            "decision": decision,
            "text": "",
            "label": "neutral",
            "explanation": f"{decision} {method} {seed} as {str(annotator)[7:].upper()} on {item_name(number)}",
            "parse_status": "ok",
            "label_logprobs": None,
            "n_prompt_tokens": 10,
            "n_tokens": 10,
            "truncated": False,
        }
        for method in methods
        for seed in seeds
        for annotator in ([None] if method == "zero_shot" else ANNOTATORS)
        for number in range(N_TRAIN, N_TRAIN + N_TEST)
        for decision in ("sampled", "constrained")
    ]
    return pl.DataFrame(rows, schema=GENERATIONS)
