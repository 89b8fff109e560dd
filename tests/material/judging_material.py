"""A small corpus with generations, for the tests of judging and human validation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.question_set import build_questions
from capo_core.judging.questions import JudgeQuestion
from capo_core.judging.verdicts import collect_verdicts
from schemas.config import NominalLabels, TaskSpec
from schemas.frames import CORPUS, GENERATIONS
from schemas.judge import JudgeConfig

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


Script = Callable[[JudgeQuestion], int | str]
"""What a judge makes of a question: a position, `failed`, `not_asked`, or an answer without a verdict."""


class ScriptedJudge:
    """Answers as `script(question)` says, the last question first."""

    def __init__(self, script: Script, name: str = "scripted") -> None:
        self.script = script
        self.name = name

    def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
        for question in reversed(questions):
            said = self.script(question)
            if isinstance(said, int):
                yield JudgeAnswer(question.question_id, said, "ok", f"Answer: {question.letters[said]}")
            elif said == "failed":
                yield JudgeAnswer(question.question_id, None, "failed", "HTTP 500")
            elif said == "not_asked":
                yield JudgeAnswer(question.question_id, None, "not_asked", "budget spent", n_attempts=0)
            else:
                yield JudgeAnswer(question.question_id, None, "unparseable", said)


def say_first(question: JudgeQuestion) -> int:
    return 0


def find_author(text: str) -> str:
    """Return who is named in a text, as every made explanation names its author; "" for nobody."""
    found = re.search(r"\b(ada|bo|cy)\b", text.casefold())
    return found.group() if found else ""


def read_fences(question: JudgeQuestion) -> dict[str, str]:
    """Return the text between each pair of fences by the opening fence's name."""
    blocks = re.findall(
        r"^<<<([^\n]+) \w{12}>>>\n(.*?)\n<<<END", question.messages[1]["content"], re.DOTALL | re.MULTILINE
    )
    return dict(blocks)


def know_authors(question: JudgeQuestion) -> int:
    """Answer by who is named in the texts; where that does not decide, name the first."""
    blocks = {name: find_author(text) for name, text in read_fences(question).items()}
    if question.protocol == "attribution":
        shown = [blocks[f"WRITTEN BY {letter}"] for letter in question.letters]
        return shown.index(blocks["TO ATTRIBUTE"]) if blocks["TO ATTRIBUTE"] in shown else 0
    person = blocks["WRITTEN BY THE PERSON"]
    if question.protocol == "same_author":
        return question.candidates.index("same" if blocks["IN QUESTION"] == person else "different")
    matches = [blocks[name] == person for name in ("GROUP A", "GROUP B")]
    return matches.index(True) if sum(matches) == 1 else 0


def ask_made_corpus(
    script: Script, config: JudgeConfig, seeds: tuple[int, ...] = (1, 2), name: str = "scripted"
) -> pl.DataFrame:
    """Return the verdicts of a scripted judge on the made corpus and its generations."""
    methods = tuple(method for method in config.methods if method != "human")
    questions = build_questions(make_corpus(), make_generations(methods, seeds), TASK, config)
    return collect_verdicts(questions, ScriptedJudge(script, name))


def find_figure(
    metrics: pl.DataFrame, metric: str, method: str = "sft", who: str = "all", condition: str = "raw"
) -> dict:
    """Return the one row of a METRICS frame that fits."""
    rows = metrics.filter(metric=metric, method=method, annotator_id=who, condition=condition)
    assert rows.height == 1, f"{rows.height} rows of {metric}"
    return rows.to_dicts()[0]
