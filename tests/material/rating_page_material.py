"""A small rating set whose texts say which task they stand in, for the tests of the rating page."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from schemas.config import NominalLabels, TaskSpec
from schemas.frames import VALIDATION_KEY, VALIDATION_TASKS

TASK = TaskSpec(
    name="nli",
    question="Does the context entail the statement?",
    text_a_name="Context",
    text_b_name="Statement",
    labels=NominalLabels(names=("entailment", "neutral", "contradiction")),
)
CONSENT = """# Taking part

You help to find out **whether people can be told apart** by how they explain a choice.

- What you enter stays in this browser until you send the file.
- Taking part is voluntary; you can stop at any time.

Questions go to [the team](mailto:team@example.org).
"""
INSTRUCTIONS = """# Who wrote this?

Read what each person wrote elsewhere, then the explanations to attribute. Go by *manner*:

1. what is attended to,
2. how it is argued,
3. the wording and the length.

| You see | It is |
| --- | --- |
| Person A, B, … | somebody else in every task |
"""
LETTERS = "ABCD"


def make_tasks(
    n_tasks: int = 6, *, letters: str = LETTERS, n_explanations: int = 3, n_examples: int = 3, spice: str = ""
) -> pl.DataFrame:
    """Return VALIDATION_TASKS t0, t1, …; `spice` is appended to every text."""

    def number(texts: Sequence[str]) -> str:
        return texts[0] if len(texts) == 1 else "\n".join(f"[{i}] {text}" for i, text in enumerate(texts, start=1))

    rows = [
        {
            "task_id": f"t{task}",
            "position": task + 1,
            "text_a": number([f"A man in a red coat crosses street {task}.{i}.{spice}" for i in range(n_explanations)]),
            "text_b": number([f"Somebody is outside in town {task}.{i}.{spice}" for i in range(n_explanations)]),
            "explanations": [
                f"Task {task}: crossing street {i} means to be outside.{spice}" for i in range(n_explanations)
            ],
            "references": [
                {
                    "candidate": letter,
                    "examples": [
                        f"As {letter} sees example {task}.{i}, the text says so, and so it follows.{spice}"
                        for i in range(n_examples)
                    ],
                }
                for letter in letters
            ],
            "signature": f"{task:064x}",
        }
        for task in range(n_tasks)
    ]
    return pl.DataFrame(rows, schema=VALIDATION_TASKS)


def make_key(tasks: pl.DataFrame) -> pl.DataFrame:
    """Return the VALIDATION_KEY of the tasks: under every letter stands the person of that letter, A wrote all."""
    rows = [
        {
            "task_id": row["task_id"],
            "signature": row["signature"],
            "kind": "rating",
            "repeats": None,
            "method": "human",
            "seed": 1,
            "annotator_id": "person-A",
            "item_ids": [f"item-{row['task_id']}"],
            "candidate_annotators": [
                {"candidate": shown["candidate"], "annotator_id": f"person-{shown['candidate']}"}
                for shown in row["references"]
            ],
        }
        for row in tasks.iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=VALIDATION_KEY)
