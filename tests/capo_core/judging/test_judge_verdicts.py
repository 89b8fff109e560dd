from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from judging_material import TASK, ScriptedJudge, ask_made_corpus, make_corpus, make_generations, say_first

from capo_core.errors import JudgeError
from capo_core.judging.backends import JudgeAnswer
from capo_core.judging.question_set import build_questions
from capo_core.judging.questions import JudgeQuestion
from capo_core.judging.verdicts import collect_verdicts
from schemas.frames import VERDICTS
from schemas.judge import JudgeConfig

CONFIG = JudgeConfig(methods=("human", "sft"), group_size=2, n_references=2, n_groups=2, seed=5)


def build(config: JudgeConfig = CONFIG) -> list[JudgeQuestion]:
    return build_questions(make_corpus(), make_generations(("sft",), (1,)), TASK, config)


def test_verdicts_stand_in_the_order_of_the_questions() -> None:
    questions = build()
    told: list[tuple[int, int]] = []
    verdicts = collect_verdicts(
        questions, ScriptedJudge(say_first), lambda n_done, n_total: told.append((n_done, n_total))
    )
    assert dict(verdicts.schema) == VERDICTS
    assert verdicts["question_id"].to_list() == [q.question_id for q in questions]
    assert verdicts["verdict"].to_list() == [q.candidates[0] for q in questions]
    assert verdicts["judge"].unique().to_list() == ["scripted"]
    assert told == [(i, len(questions)) for i in range(1, len(questions) + 1)]


def test_a_verdict_carries_its_question_and_its_cost() -> None:
    class Priced(ScriptedJudge):
        def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
            for question in questions:
                yield JudgeAnswer(question.question_id, 1, "ok", "Answer: B", (0.25, 0.75), 90, 4, 2, 1.5)

    questions = [q for q in build() if q.protocol == "pairwise" and q.normalisation == "surface"]
    row = collect_verdicts(questions, Priced(say_first)).row(1, named=True)
    assert (row["protocol"], row["method"], row["compared_with"]) == ("pairwise", "sft", "human")
    assert (row["order"], row["normalisation"], row["prompt_version"]) == (1, "surface", "pairwise_v1")
    assert (row["candidates"], row["verdict"]) == (["human", "sft"], "sft")
    assert (row["n_prompt_tokens"], row["n_answer_tokens"], row["n_attempts"], row["seconds"]) == (90, 4, 2, 1.5)


def test_a_judge_that_never_answers_is_an_error_with_the_reason() -> None:
    with pytest.raises(JudgeError, match="scripted did not answer any of the first 10 questions: HTTP 500"):
        ask_made_corpus(lambda question: "failed", CONFIG)


def test_a_spent_budget_is_no_failure_of_the_judge() -> None:
    verdicts = ask_made_corpus(lambda question: "not_asked", CONFIG)
    assert verdicts["status"].unique().to_list() == ["not_asked"]
    assert verdicts["n_attempts"].sum() == 0


def test_answers_that_do_not_fit_the_questions_are_refused() -> None:
    questions = build(CONFIG.model_copy(update={"protocols": ("attribution",), "methods": ("human",)}))

    class Broken(ScriptedJudge):
        def __init__(self, answers: list[JudgeAnswer]) -> None:
            super().__init__(say_first)
            self.answers = answers

        def answer(self, questions: Sequence[JudgeQuestion]) -> Iterator[JudgeAnswer]:
            yield from self.answers

    good = JudgeAnswer(questions[0].question_id, 0, "ok", "A")
    with pytest.raises(JudgeError, match="twice or without being asked"):
        collect_verdicts(questions, Broken([good, good]))
    with pytest.raises(JudgeError, match=f"left {len(questions) - 1} of {len(questions)} questions unanswered"):
        collect_verdicts(questions, Broken([good]))
    with pytest.raises(JudgeError, match="position 3 of ABC"):
        collect_verdicts(questions, Broken([JudgeAnswer(questions[0].question_id, 3, "ok", "D")]))
    with pytest.raises(JudgeError, match="not_asked with position 0"):
        collect_verdicts(questions, Broken([JudgeAnswer(questions[0].question_id, 0, "not_asked", "")]))
