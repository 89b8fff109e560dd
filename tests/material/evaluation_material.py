"""Tasks, small corpora and generations for the tests of capo_core; nobody wrote these texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from schemas.config import EvaluationConfig, NominalLabels, OrdinalLabels, TaskSpec
from schemas.frames import CORPUS, GENERATIONS

NLI = TaskSpec(
    name="nli",
    question="Does the statement follow from the context?",
    text_a_name="Context",
    text_b_name="Statement",
    labels=NominalLabels(names=("entailment", "neutral", "contradiction")),
    multiple_labels=True,
)
ONE_LABEL = NLI.model_copy(update={"multiple_labels": False})
SCORES = TaskSpec(
    name="scores",
    question="How alike are the two questions?",
    text_a_name="Question 1",
    text_b_name="Question 2",
    labels=OrdinalLabels(minimum=-5, maximum=5),
)
QUICK = EvaluationConfig(group_sizes=(1, 3), n_groups=20, n_bootstrap=100)

HABITS = {
    "ana": ("One can see that", "which settles it"),
    "ben": ("nope, nothing about", "lol"),
    "cem": ("The text (quite plainly) mentions", "; hence my choice"),
    "dee": ("I guess we don't know", "or do we?"),
}
"""How each persona opens and closes an explanation, whatever it is about."""

_SUBJECTS = (
    "the river",
    "a kitchen",
    "two horses",
    "the mayor",
    "old bread",
    "a violin",
    "the harbour",
    "some letters",
)
_EVENTS = ("was sold", "fell apart", "won a prize", "went missing", "is on fire", "arrived late")


def explain(annotator: str, item: int) -> str:
    """Return what a persona writes about an item."""
    opening, closing = HABITS[annotator]
    return f"{opening} {_SUBJECTS[item % len(_SUBJECTS)]} {_EVENTS[item % len(_EVENTS)]} {closing}"


def corpus_row(item: str, annotator: str, label: str, explanation: str, split: str = "train", **more: str) -> dict:
    """Return one CORPUS row; the context is the item's own unless given."""
    return {
        "item_id": item,
        "context_id": more.get("context_id", f"context of {item}"),
        "text_a": more.get("text_a", f"first text of {item}"),
        "text_b": more.get("text_b", "second text"),
        "annotator_id": annotator,
        "label": label,
        "explanation": explanation,
        "source_file": "made.csv",
        "source_line": 1,
        "source_id": item,
        "metadata": "{}",
        "split": split,
    }


def corpus_frame(rows: Sequence[dict]) -> pl.DataFrame:
    """Return a CORPUS frame."""
    return pl.DataFrame(list(rows), schema=CORPUS)


def persona_corpus(n_train: int = 24, n_validation: int = 0, n_test: int = 8, seed: int = 0) -> pl.DataFrame:
    """Return a corpus in which every persona labels at random and explains every item in its own manner."""
    rng = np.random.default_rng(seed)
    splits = ["train"] * n_train + ["validation"] * n_validation + ["test"] * n_test
    rows = [
        corpus_row(f"i{n:03d}", name, str(rng.choice(NLI.labels.names)), explain(name, n), split)
        for n, split in enumerate(splits)
        for name in HABITS
    ]
    return corpus_frame(rows)


def styleless_corpus() -> pl.DataFrame:
    """Return 16 contexts of two items in which nobody has a style: each annotator's text is made up per context.

    Both items of a context repeat it, so that who has read one of them knows the other.
    """
    rng = np.random.default_rng(0)
    rows = []
    for context in range(16):
        words = {name: " ".join("".join(rng.choice(list("abcdefgh"), 6)) for _ in range(4)) for name in HABITS}
        rows += [
            corpus_row(f"c{context}-{k}", name, "neutral", words[name], context_id=f"c{context}")
            for k in range(2)
            for name in HABITS
        ]
    return corpus_frame(rows)


def generation(
    method: str,
    annotator: str | None,
    item: str,
    label: str | None = "neutral",
    explanation: str | None = "because",
    *,
    seed: int = 1,
    decision: str = "sampled",
) -> dict:
    """Return one GENERATIONS row; its parse status follows from what is there."""
    status = "no_label" if label is None else "no_explanation" if explanation is None else "ok"
    return {
        "method": method,
        "seed": seed,
        "annotator_id": annotator,
        "item_id": item,
        "decision": decision,
        "text": "as generated",
        "label": label,
        "explanation": explanation,
        "parse_status": status,
        "label_logprobs": None,
        "n_prompt_tokens": 10,
        "n_tokens": 5,
        "truncated": False,
    }


def generations_frame(rows: Sequence[dict]) -> pl.DataFrame:
    """Return a GENERATIONS frame."""
    return pl.DataFrame(list(rows), schema=GENERATIONS)


def find(metrics: pl.DataFrame, **wanted: object) -> dict:
    """Return the one row of a METRICS or COMPARISONS frame with these values; None means null."""
    for column, value in wanted.items():
        metrics = metrics.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    assert metrics.height == 1, f"{metrics.height} rows for {wanted}"
    return metrics.row(0, named=True)


def embed_by_letters(texts: Sequence[str]) -> np.ndarray:
    """Return counts of the letters a to z, [n, 26]: a sentence encoder small enough to compute by hand."""
    return np.array([[text.lower().count(chr(ord("a") + k)) for k in range(26)] for text in texts], dtype=float)
