"""Questions to several people in one batch: the same answers as alone, joining late and leaving early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from served_material import N_NEW, SEED, make_adapter, make_recipe
from tiny_model import BFLOAT16, FLOAT32, TASK, one_thread, tiny

from capo_core.errors import ModelError
from capo_core.generation import answering, row_decoder
from capo_core.generation.answering import Answer, AnswerBatch, Choice, Person, Question
from capo_core.generation.mixed_adapters import load_mixed
from capo_core.generation.predicting import predict
from capo_core.models import load_tokenizer
from capo_core.prompts import item_text
from schemas.artifacts import ModelRef

__all__ = ["one_thread", "tiny"]

ITEMS = [(f"item{i}", "cat " * (1 + i % 3), f"dog {i}") for i in range(4)]


@pytest.fixture(scope="module")
def adapters(tiny: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [make_adapter(tiny, kind, place + 1, tmp_path_factory.mktemp(kind)) for place, kind in
            enumerate(("lora", "dora", "oft"))]  # fmt: skip


@pytest.fixture(scope="module")
def people(tiny: ModelRef) -> list[Person]:
    """Two of a shared adapter that names them first, one of one that names them last, one of an own."""
    first, last = (make_recipe(tiny, "shared", people, tag=tag) for people, tag in
                   ((("ada", "ben"), "first"), (("chi",), "last")))  # fmt: skip
    own = make_recipe(tiny, "dov", ("dov",))
    return [Person("ada", first, 0), Person("ben", first, 0), Person("chi", last, 1), Person("dov", own, 2)]


def make_batch(tiny: ModelRef, adapters: list[Path], people: list[Person], dtype: Any = FLOAT32) -> AnswerBatch:
    model, route = load_mixed(tiny, dtype, adapters)
    model.generation_config.eos_token_id = [1, 40, 90, 200]  # so that lengths differ
    return AnswerBatch(model, route, load_tokenizer(tiny), people, max_rows=64)


@pytest.fixture(scope="module")
def batch(tiny: ModelRef, adapters: list[Path], people: list[Person]) -> AnswerBatch:
    return make_batch(tiny, adapters, people)


def questions(people: Sequence[Person], decision: Any, **changes: Any) -> list[Question]:
    settings = {"temperature": 0.9, "top_p": 1.0, "max_new_tokens": N_NEW, "seed": SEED} | changes
    return [
        Question(person, item, item_text(TASK, a, b), decision, **settings) for item, a, b in ITEMS for person in people
    ]


def run(batch: AnswerBatch, asked: Sequence[Question], at_once: int = 100) -> list[tuple[Answer, list[Choice]]]:
    """Return the answers in order; `at_once` join before the first token, then one more with each."""
    waiting = [batch.encode(question) for question in asked]
    found: dict[int, tuple[Answer, list[Choice]]] = {}
    places = {id(encoded.question): place for place, encoded in enumerate(waiting)}
    while waiting or batch.n_rows:
        joining, waiting = waiting[:at_once], waiting[at_once:]
        at_once = 1
        if joining:
            batch.join(joining)
        for answer in batch.advance():
            found[places[id(answer.encoded.question)]] = (answer, batch.read_choices(answer))
    return [found[place] for place in range(len(asked))]


@pytest.mark.parametrize("decision", ["constrained", "sampled", "greedy"])
def test_a_mixed_batch_joined_bit_by_bit_answers_as_predict_does_for_each(
    tiny: ModelRef, adapters: list[Path], people: list[Person], decision: Any
) -> None:
    model, route = load_mixed(tiny, FLOAT32, adapters)
    batch = AnswerBatch(model, route, load_tokenizer(tiny), people, max_rows=64)
    asked = questions(people, decision)
    together, trickling = run(batch, asked), run(batch, asked, at_once=3)
    items = pl.DataFrame(ITEMS, schema=["item_id", "text_a", "text_b"], orient="row")
    wanted = {}
    for person in people:
        frame = predict(items, [person.annotator_id], person.recipe, tiny, adapters[person.adapter], decision=decision)
        wanted |= {(row["annotator_id"], row["item_id"]): row for row in frame.iter_rows(named=True)}
    for found in (together, trickling):
        for question, (answer, (choice,)) in zip(asked, found, strict=True):
            row = wanted[question.person.annotator_id, question.item_id]
            assert choice.text == row["text"]
            assert (choice.parsed.label, choice.parsed.status) == (row["label"], row["parse_status"])
            assert (choice.n_tokens, choice.truncated) == (row["n_tokens"], row["truncated"])
            assert len(answer.encoded.tokens) == row["n_prompt_tokens"]
            if decision == "constrained":
                assert answer.label_logprobs is not None
                assert list(answer.label_logprobs.values()) == pytest.approx(row["label_logprobs"], abs=1e-4)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_labels_are_the_same_bits_whoever_else_is_asked(
    tiny: ModelRef, adapters: list[Path], people: list[Person], dtype: Any
) -> None:
    batch = make_batch(tiny, adapters, people, dtype)
    asked = questions(people, "constrained")
    together = run(batch, asked)
    alone = [run(batch, [question])[0] for question in asked]
    late = run(batch, asked[::-1], at_once=2)[::-1]
    for one, two, three in zip(together, alone, late, strict=True):
        assert one[0].label_logprobs == two[0].label_logprobs == three[0].label_logprobs
        assert one[1][0].parsed.label == two[1][0].parsed.label == three[1][0].parsed.label
        # What follows the label begins with the same token.
        assert one[0].continuations[0].tokens[:1] == two[0].continuations[0].tokens[:1]


def test_choices_are_drawn_apart_and_the_first_is_that_of_a_single_one(
    batch: AnswerBatch, people: list[Person]
) -> None:
    several, single = (run(batch, questions(people[:1], "sampled", n_choices=n)) for n in (3, 1))
    for (_, choices), (_, (choice,)) in zip(several, single, strict=True):
        assert choices[0] == choice
        assert len({one.text for one in choices}) == 3


def test_rows_of_different_temperatures_are_drawn_each_at_its_own(batch: AnswerBatch, people: list[Person]) -> None:
    ways = [
        {"temperature": 0.0}, {"temperature": 0.5}, {"temperature": 1.5}, {"temperature": 1.5, "top_p": 0.5},
        {"max_new_tokens": 3}, {"seed": 6},
    ]  # fmt: skip
    asked = [questions(people, "sampled", **way)[place] for place, way in enumerate(ways)]
    texts = [choices[0].text for _, choices in run(batch, asked)]
    assert texts == [run(batch, [question])[0][1][0].text for question in asked]
    greedy = run(batch, questions(people, "greedy"))[0][1][0].text
    assert texts[0] == greedy


def test_an_answer_ends_before_its_stop_and_a_dropped_one_leaves_the_others_alone(
    batch: AnswerBatch, people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_decoder, "_MAX_ENDED", 0.01)
    asked = questions(people, "constrained")
    whole = [choices[0] for _, choices in run(batch, asked)]
    place = max(range(len(whole)), key=lambda i: whole[i].n_tokens)
    stop = whole[place].text[-4:-1]
    cut = run(batch, [Question(**(vars(asked[place]) | {"stop": ("not there", stop)}))])[0][1][0]
    opening = whole[place].text.index("Explanation:") + len("Explanation:")
    assert cut.text == whole[place].text[: whole[place].text.index(stop, opening)]
    assert not cut.truncated
    assert cut.n_tokens < whole[place].n_tokens or whole[place].text.endswith(stop[-1])
    joined = batch.join([batch.encode(question) for question in asked])
    batch.advance()
    dropped = [answer for answer in joined[::2] if not answer.is_complete]
    for answer in dropped:
        batch.drop(answer)
    while batch.n_rows:
        for answer in batch.advance():
            assert answer not in dropped
    for answer, wanted in zip(joined[1::2], whole[1::2], strict=True):
        assert batch.read_choices(answer)[0] == wanted


def test_only_as_many_join_as_there_is_room_for(
    batch: AnswerBatch, people: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = [batch.encode(question) for question in questions(people, "greedy")]
    width = max(one.n_cached for one in encoded)
    monkeypatch.setattr(answering, "MAX_CACHED_TOKENS", 3 * width)
    assert batch.has_room(encoded[0])
    assert batch.has_room(encoded[2], encoded[:2])
    assert not batch.has_room(encoded[3], encoded[:3])
    with pytest.raises(ModelError, match=r"4 answers of up to 16 tokens .* ask for fewer"):
        batch.encode(questions(people, "greedy", n_choices=4, max_new_tokens=N_NEW)[8])
    with pytest.raises(ModelError, match="do not fit the model's 1024; ask for a shorter answer"):
        batch.encode(questions(people, "greedy", max_new_tokens=1000)[0])
    monkeypatch.setattr(answering, "MAX_CACHED_TOKENS", 1)
    assert batch.has_room(encoded[0])  # a single one always finds room
