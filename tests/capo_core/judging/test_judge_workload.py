from __future__ import annotations

from collections import Counter

import pytest
from judging_material import TASK, make_corpus, make_generations

from capo_core.judging.question_set import build_questions
from capo_core.judging.workload import PAIRS, count_questions, narrow_judge, share_budget
from schemas.judge import JudgeConfig, LocalJudge, OpenAIJudge

CONFIG = JudgeConfig(methods=("human", "zero_shot", "sft"), group_size=2, n_references=2, n_groups=3, seed=5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_orders": 2}, {"n_orders": 9}, {"protocols": ("pairwise",)}, {"protocols": ("same_author", "attribution")}],
)
def test_as_many_questions_are_counted_as_there_are(changes: dict) -> None:
    config = CONFIG.model_copy(update=changes)
    asked: Counter[str] = Counter()
    for question in build_questions(make_corpus(), make_generations(), TASK, config):
        method = "human" if question.method.startswith("human") else question.method
        asked[PAIRS if question.protocol == "pairwise" else method] += 1
    assert {name: n for name, n in count_questions(config, 3, 2).items() if n} == asked


def test_shares_of_a_budget_add_up_to_no_more_than_the_budget() -> None:
    backend = OpenAIJudge(
        base_url="http://127.0.0.1/v1", model="m", max_tokens_spent=1001, max_cost=3.0,
        price_per_million_prompt_tokens=1.0, price_per_million_answer_tokens=1.0,
    )  # fmt: skip
    shares = [share_budget(backend, share) for share in (0.25, 0.25, 0.5)]
    assert [one.max_tokens_spent for one in shares] == [250, 250, 500]
    assert [one.max_cost for one in shares] == [0.75, 0.75, 1.5]


def test_without_a_budget_there_is_nothing_to_share() -> None:
    backend = OpenAIJudge(base_url="http://127.0.0.1/v1", model="m")
    assert share_budget(backend, 0.1) == backend


def test_a_part_keeps_what_it_is_asked_and_nothing_else() -> None:
    local = LocalJudge(batch_size=3)
    alone = narrow_judge(CONFIG, local, "sft", 0.5)
    assert (alone.methods, alone.backends, alone.protocols) == (("sft",), (local,), ("attribution", "same_author"))
    pairs = narrow_judge(CONFIG, local, PAIRS, 0.5)
    assert (pairs.methods, pairs.protocols) == (CONFIG.methods, ("pairwise",))
    more = CONFIG.model_copy(update={"methods": (*CONFIG.methods, "capo"), "backends": (local, LocalJudge())})
    assert narrow_judge(more, local, "sft", 0.1) == alone
