from __future__ import annotations

import re
from collections import Counter

import polars as pl
import pytest
from judging_material import (
    ANNOTATORS,
    TASK,
    find_author,
    item_name,
    make_corpus,
    make_generations,
    read_fences,
    split_of,
)

from capo_core.judging.groups import draw_group_pairs, draw_other_groups
from capo_core.judging.pairwise import list_pairs
from capo_core.judging.question_set import build_questions
from capo_core.judging.questions import JudgeQuestion
from schemas.judge import JudgeConfig

CONFIG = JudgeConfig(
    methods=("human", "sft", "capo"), normalisations=("none",), group_size=2, n_references=2, n_groups=3, seed=5
)


def build(protocol: str, config: JudgeConfig = CONFIG) -> list[JudgeQuestion]:
    generations = make_generations(("sft", "capo"))
    return build_questions(make_corpus(), generations, TASK, config.model_copy(update={"protocols": (protocol,)}))


def test_every_pair_of_methods_is_asked_about_in_both_orders() -> None:
    questions = build("pairwise")
    # 3 annotators x 3 groups x 2 orders = 18 per pair of methods and seed; three pairs with two seeds each, and the
    # calibration with one: 18 x (3 x 2 + 1) = 126.
    assert len(questions) == 126
    asked = Counter((q.method, q.compared_with) for q in questions)
    assert asked == {
        ("capo", "sft"): 36,
        ("capo", "human"): 36,
        ("sft", "human"): 36,
        ("human", "human_other"): 18,
    }
    for first, second in zip(questions[::2], questions[1::2], strict=True):
        assert (first.order, second.order) == (0, 1)
        assert first.candidates == second.candidates[::-1] == (first.method, first.compared_with)
        assert first.item_ids == second.item_ids
    assert len({q.question_id for q in questions}) == 126


def test_capo_against_sft_comes_first_whatever_the_order_of_methods() -> None:
    config = CONFIG.model_copy(update={"methods": ("capo", "human", "sft", "zero_shot")})
    assert list_pairs(config)[0] == ("capo", "sft")
    assert len(list_pairs(config)) == 6


def test_a_pair_stands_under_the_letters_of_its_candidates() -> None:
    for question in build("pairwise"):
        blocks = read_fences(question)
        for letter, method in zip("AB", question.candidates, strict=True):
            text = blocks[f"GROUP {letter}"]
            assert (method in text) if method in ("sft", "capo") else ("explains" in text)
            assert all(item in text for item in question.item_ids)


def test_references_are_the_annotators_own_and_never_of_judged_items() -> None:
    for question in [*build("pairwise"), *build("same_author")]:
        references = read_fences(question)["WRITTEN BY THE PERSON"]
        assert {find_author(line) for line in references.splitlines()} == {question.annotator_id[7:]}
        numbers = [int(number) for number in re.findall(r"item(\d+)", references)]
        assert len(numbers) == 2
        assert all(split_of(number) == "train" for number in numbers)
        assert all(split_of(int(item[4:])) == "test" for item in question.item_ids)


def test_the_calibration_holds_people_against_another_person_on_the_same_items() -> None:
    pairs = draw_other_groups(make_corpus(), make_generations(), group_size=2, n_groups=4, seed=5)
    assert len(pairs) == 12  # 3 annotators x 9 test items in groups of 2
    for own, other in pairs:
        assert own.item_ids == other.item_ids
        assert {find_author(text) for text in own.explanations} == {own.annotator_id[7:]}
        assert len({find_author(text) for text in other.explanations} - {own.annotator_id[7:]}) == 1
    for annotator in ANNOTATORS:
        drawn = [(own, other) for own, other in pairs if own.annotator_id == annotator]
        items = [item for own, _ in drawn for item in own.item_ids]
        assert len(items) == len(set(items)) == 8
        # The two others take turns.
        assert Counter(find_author(other.explanations[0]) for _, other in drawn).most_common()[0][1] == 2


def test_another_person_without_items_in_common_is_passed_over() -> None:
    bo, cy = ANNOTATORS[1:]
    # Of the test items Bo has explained those up to 10, Cy those from 11 on: they have none in common.
    early, late = pl.col("item_id") <= item_name(10), pl.col("item_id") >= item_name(11)
    keep = (pl.col("split") == "train") | ~pl.col("annotator_id").is_in([bo, cy])
    keep |= ((pl.col("annotator_id") == bo) & early) | ((pl.col("annotator_id") == cy) & late)
    pairs = draw_other_groups(make_corpus().filter(keep), make_generations(()), group_size=2, n_groups=3, seed=5)
    found: dict[str, list[str]] = {name: [] for name in ANNOTATORS}
    for own, other in pairs:
        found[own.annotator_id].append(find_author(other.explanations[0]))
    # Bo has 5 items and Cy 4, which they share with Ada alone: two groups each. Ada has enough with either for three.
    assert found[bo] == found[cy] == ["ada", "ada"]
    assert len(found[ANNOTATORS[0]]) == 3
    assert set(found[ANNOTATORS[0]]) == {"bo", "cy"}


def test_groups_of_a_pair_are_of_the_items_both_methods_explained() -> None:
    generations = make_generations(("sft", "capo"), (1,))
    missing = (pl.col("method") == "sft") & (pl.col("item_id") < item_name(9))
    generations = generations.with_columns(pl.when(missing).then(None).otherwise("explanation").alias("explanation"))
    pairs = draw_group_pairs(make_corpus(), generations, [("capo", "sft")], group_size=2, n_groups=9, seed=5)
    # Items 9 to 14 are left: three groups of 2 for each annotator.
    assert len(pairs) == 9
    assert all(item >= item_name(9) for first, _ in pairs for item in first.item_ids)
    assert {(first.method, second.method) for first, second in pairs} == {("capo", "sft")}


def test_peoples_text_meets_every_seed() -> None:
    generations = make_generations(("sft",))
    pairs = draw_group_pairs(make_corpus(), generations, [("sft", "human")], group_size=2, n_groups=1, seed=5)
    assert Counter(first.seed for first, _ in pairs) == {1: 3, 2: 3}
    assert all(first.seed == second.seed for first, second in pairs)


def test_same_author_asks_with_both_orders_of_the_answers() -> None:
    questions = build("same_author")
    # 18 per method and seed: human and human_other once, sft and capo with two seeds.
    assert Counter(q.method for q in questions) == {"human": 18, "human_other": 18, "sft": 36, "capo": 36}
    first, second = questions[:2]
    assert (first.candidates, second.candidates) == (("same", "different"), ("different", "same"))
    assert "A. The same person wrote them.\nB. Another writer wrote them." in first.messages[1]["content"]
    assert "A. Another writer wrote them.\nB. The same person wrote them." in second.messages[1]["content"]


@pytest.mark.parametrize("protocol", ["pairwise", "same_author"])
def test_questions_do_not_depend_on_row_order_nor_on_other_protocols(protocol: str) -> None:
    shuffled = build_questions(
        make_corpus().sample(fraction=1.0, shuffle=True, seed=1),
        make_generations(("sft", "capo")).sample(fraction=1.0, shuffle=True, seed=2),
        TASK,
        CONFIG,
    )
    assert [question for question in shuffled if question.protocol == protocol] == build(protocol)


@pytest.mark.parametrize("protocol", ["pairwise", "same_author"])
def test_without_people_there_is_no_calibration(protocol: str) -> None:
    config = CONFIG.model_copy(update={"methods": ("sft", "capo")})
    assert {q.method for q in build(protocol, config)} <= {"sft", "capo"}


def test_prompts_name_their_version_and_leave_no_place_open() -> None:
    config = CONFIG.model_copy(update={"normalisations": ("none", "surface")})
    for protocol in ("attribution", "pairwise", "same_author"):
        for question in build(protocol, config):
            assert question.prompt_version == f"{protocol}_v1"
            assert not any("$" in message["content"] for message in question.messages)
            assert [message["role"] for message in question.messages] == ["system", "user"]
