"""Annotators as models of an OpenAI-compatible endpoint, asked with OpenAI's own client."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import polars as pl
import pytest
from served_material import N_NEW, SEED, make_adapter, make_recipe, register, running, store_adapter, write_item
from tiny_model import TASK, one_thread, save_tiny_model

from capo_core.errors import ModelError, RegistryError, ServeError
from capo_core.models import resolve_model
from capo_core.prompts import AnnotatorTag, build_prompt
from deployments.models import answer, find_answering
from deployments.serve.served_models import Served, find_served
from deployments.serve.server import check_exposure, listen, make_server
from deployments.serve.vllm import write_vllm_command
from schemas.artifacts import ModelRef
from tasks.registry import promote

__all__ = ["one_thread"]

PEOPLE = ("ada", "ben", "chi", "dov")
ITEMS = [(f"item{i}", "a cat sat " * (1 + i % 3), f"dog {i}") for i in range(4)]
LOOPBACK = ["127.0.0.1", "localhost"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    folder = tmp_path_factory.mktemp("served")
    save_tiny_model(folder)
    return resolve_model(str(folder), cache_dir=folder)


@pytest.fixture(scope="module")
def registered(base: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A shared LoRA adapter for four people, one of whom has an adapter of his own (DoRA); eve's is no champion."""
    for target, people, kind, tag, start in (
        ("shared", PEOPLE, "lora", "last", 1),
        ("dov", ("dov",), "dora", None, 2),
        ("eve", ("eve",), "lora", None, 3),
    ):
        adapter = store_adapter(make_adapter(base, kind, start, tmp_path_factory.mktemp(target)))
        version = register(make_recipe(base, target, people, adapter, tag=tag))
        if target != "eve":
            promote(version.name, version.number, "for the test")


@pytest.fixture(scope="module")
def served(registered: None) -> Served:
    return find_served(["served"], "champion")


@pytest.fixture(scope="module")
def url(served: Served) -> Iterator[str]:
    server, queue = make_server(served, allowed_hosts=LOOPBACK, api_key=None, max_waiting=64, timeout_seconds=60)
    with running(server) as address:
        yield address
    queue.stop()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, who: str, content: Any, decision: str | None = None, **fields: Any) -> Any:
    return client.chat.completions.create(
        model=f"served.{who}",
        messages=[{"role": "user", "content": content}],
        extra_body={} if decision is None else {"decision": decision},
        **fields,
    )


def text_of(completion: Any) -> str:
    return completion.choices[0].message.content


def test_four_people_of_two_adapters_are_models_and_one_without_a_champion_is_left_out_with_the_reason(
    served: Served, client: openai.OpenAI
) -> None:
    assert [model.id for model in client.models.list()] == [f"served.{who}" for who in PEOPLE]
    assert client.models.retrieve("served.ada").owned_by == "served"
    assert len(served.adapters) == 2
    assert [served.models[f"served.{who}"].adapter for who in PEOPLE] == [1, 1, 1, 0]
    assert served.models["served.dov"].version.name == "served.dov"
    (reason,) = served.left_out
    assert "served.eve: no version 'champion'" in reason


@pytest.mark.parametrize("decision", ["constrained", "sampled", "greedy"])
def test_answers_asked_at_once_are_those_of_capo_predict(client: openai.OpenAI, decision: Any) -> None:
    asked = [(who, *item) for item in ITEMS for who in PEOPLE]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: ask(client, one[0], write_item(one[2], one[3], one[1]), decision), asked))
    items = pl.DataFrame(ITEMS, schema=["item_id", "text_a", "text_b"], orient="row")
    for who in PEOPLE:
        version, annotators = find_answering("served", who, "champion")
        wanted = {row["item_id"]: row for row in answer(version, annotators, items, decision).iter_rows(named=True)}
        for (name, item_id, *_), completion in zip(asked, found, strict=True):
            if name == who:
                said = completion.choices[0].capo
                assert {key: wanted[item_id][key] for key in said} == said
                assert completion.capo["registered_model"] == version.name
    assert len({text_of(completion) for completion in found}) > len(ITEMS)


def test_a_constrained_label_is_the_same_to_the_last_bit_alone_and_among_others(client: openai.OpenAI) -> None:
    item_id, text_a, text_b = ITEMS[2]
    content = write_item(text_a, text_b, item_id)
    alone = ask(client, "ben", content)
    with ThreadPoolExecutor(12) as pool:
        others = [pool.submit(ask, client, who, write_item(a, b, i)) for i, a, b in ITEMS for who in PEOPLE]
        among = ask(client, "ben", content)
        assert all(other.result() for other in others)
    assert alone.capo == among.capo
    assert sum(pow(2.718281828459045, p) for p in alone.capo["label_logprobs"].values()) == pytest.approx(1)
    assert text_of(alone) == text_of(among)
    best = max(alone.capo["label_logprobs"], key=alone.capo["label_logprobs"].get)
    assert text_of(alone).startswith(f"Label: {best}\nExplanation:")


def test_capos_own_prompt_and_plain_text_ask_the_same_as_an_item(client: openai.OpenAI) -> None:
    _, text_a, text_b = ITEMS[1]
    as_item = ask(client, "chi", write_item(text_a, text_b), seed=3)
    plain = ask(client, "chi", f"A: {text_a.strip()}\nB: {text_b}", seed=3)
    parts = ask(client, "chi", [{"type": "text", "text": f"A: {text_a.strip()}\nB: {text_b}"}], seed=3)
    prompt: Any = build_prompt(TASK, text_a, text_b, tag=AnnotatorTag("chi", "last"))
    whole = client.chat.completions.create(model="served.chi", messages=prompt, seed=3)
    assert len({text_of(one) for one in (as_item, plain, parts, whole)}) == 1
    assert whole.capo == as_item.capo
    with pytest.raises(openai.BadRequestError, match="the prompt names annotator chi, the model is ben"):
        client.chat.completions.create(model="served.ben", messages=prompt)


def test_what_a_request_leaves_open_is_as_in_the_evaluated_run(client: openai.OpenAI) -> None:
    content = write_item(*ITEMS[0][1:], ITEMS[0][0])
    usual = ask(client, "ada", content)
    said = ask(client, "ada", content, "constrained", seed=SEED, temperature=0.9, top_p=1, max_tokens=N_NEW, n=1)
    assert text_of(usual) == text_of(said)
    assert said.capo["seed"] == SEED
    assert usual.usage.completion_tokens <= N_NEW
    texts = {text_of(ask(client, "ada", content, "sampled", seed=seed)) for seed in range(4)}
    assert len(texts) == 4


def test_every_field_is_honoured(client: openai.OpenAI) -> None:
    content = write_item(*ITEMS[3][1:], "item3")
    greedy = text_of(ask(client, "dov", content, "greedy"))
    assert text_of(ask(client, "dov", content, "sampled", temperature=0)) == greedy
    # All but the most probable token lie beyond so small a share.
    assert text_of(ask(client, "dov", content, "sampled", top_p=1e-6)) == greedy
    assert text_of(ask(client, "dov", content, "sampled", temperature=2)) != greedy
    short = ask(client, "dov", content, "greedy", max_completion_tokens=5)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 5)
    assert greedy.startswith(text_of(short))
    several = ask(client, "dov", content, "sampled", n=3)
    assert text_of(several) == text_of(ask(client, "dov", content, "sampled"))
    assert len({choice.message.content for choice in several.choices}) == 3
    assert several.usage.completion_tokens == sum(min(N_NEW, 16) for _ in several.choices)
    stop = greedy[4:6]
    stopped = ask(client, "dov", content, "greedy", stop=["never there", stop])
    assert text_of(stopped) == greedy[: greedy.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    # A stop that stands in the label's line only does not cut the line off.
    assert text_of(ask(client, "dov", content, stop="Label")).startswith("Label: ")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, None, "two names of one limit"),
        ({"n": 17}, "n", "less than or equal to 16"),
        ({"stop": list("abcde")}, "stop", "at most 4 items"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stream": True}, "stream", "Input should be False"),
        ({"logprobs": True}, "logprobs", "Input should be False"),
        ({"presence_penalty": 0.5}, "presence_penalty", "Input should be 0"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported; fields are model, messages"),
        ({"extra_body": {"top_k": 5}}, "top_k", "not supported"),
        ({"extra_body": {"decision": "best"}}, "decision", "'sampled', 'greedy' or 'constrained'"),
        ({"extra_body": {"decision": "greedy"}, "temperature": 0.5}, "temperature", "greedy draws nothing"),
        ({"max_tokens": 5000}, "messages", "do not fit the model's 1024"),
        ({"n": 13}, "messages", "ask for fewer, or for shorter ones"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="served.ada", messages=[{"role": "user", "content": "a"}], **fields)
    assert says in refused.value.message
    assert (refused.value.param or "").split(".")[0] == (param or "")


def test_values_that_ask_for_nothing_else_are_taken(client: openai.OpenAI) -> None:
    neutral: dict[str, Any] = {
        "stream": False, "presence_penalty": 0.0, "frequency_penalty": 0, "logprobs": False, "user": "me",
        "metadata": {"a": "b"}, "stop": [], "logit_bias": {},
    }  # fmt: skip
    content = write_item("a", "b")
    assert text_of(ask(client, "ada", content, **neutral)) == text_of(ask(client, "ada", content))


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "at least 1 item"),
        ([{"role": "user", "content": ""}], "the item is empty"),
        ([{"role": "user", "content": '{"text_a": "x"}'}], "text_b: Field required"),
        ([{"role": "user", "content": '{"text_a": "x", "text_b": "y", "z": 1}'}], "z: Extra inputs"),
        ([{"role": "user", "content": "{not JSON"}], "the item as JSON has text_a, text_b"),
        ([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "a"}], "leave the message out"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}], "one part of type text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}], "one part of type text"),
        ([{"role": "user", "content": "a"}] * 2, "one user message"),
        ([{"role": "assistant", "content": "a"}], "'system', 'developer' or 'user'"),
    ],
)
def test_messages_that_are_no_item_are_refused(client: openai.OpenAI, messages: Any, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="served.ada", messages=messages)
    assert says in refused.value.message


def test_an_unknown_model_is_named_with_those_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, "eve", "a")
    assert (
        "served.eve: no such model; there are served.ada, served.ben, served.chi, served.dov" in refused.value.message
    )
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.models.retrieve("served.eve")


def test_a_foreign_host_other_content_and_other_paths_are_refused(url: str) -> None:
    body = {"model": "served.ada", "messages": [{"role": "user", "content": "a"}]}
    path = f"{url}/v1/chat/completions"
    assert httpx.post(path, json=body, headers={"Host": "evil.example"}).status_code == 400
    # What a page of another site may send without being asked first.
    plain = httpx.post(path, content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert plain.status_code == 400
    assert httpx.post(path, json=body, headers={"Host": "localhost:1"}).status_code == 200
    broken = httpx.post(path, content="{", headers={"Content-Type": "application/json"}).json()["error"]
    assert (broken["type"], broken["code"]) == ("invalid_request_error", "invalid_json")
    assert httpx.get(f"{url}/v1/completions").json()["error"]["message"] == "GET /v1/completions: Not Found"
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "n_waiting": 0, "n_running": 0}


def test_other_machines_may_ask_with_a_key_only() -> None:
    assert check_exposure("127.0.0.1", None) == ["127.0.0.1", "localhost", "127.0.0.1"]
    assert "::1" in check_exposure("::1", None)
    for host in ("0.0.0.0", "192.168.1.5", "::", "somewhere.example"):
        with pytest.raises(ServeError, match="set CAPO_SERVE_API_KEY"):
            check_exposure(host, None)
        with pytest.raises(ServeError, match="set CAPO_SERVE_API_KEY"):
            check_exposure(host, "")
        assert check_exposure(host, "key") == ["*"]
    with listen("127.0.0.1", 0) as bound, pytest.raises(ServeError, match=r"cannot be had .*another --port"):
        listen("127.0.0.1", bound.getsockname()[1])


def test_corpora_without_versions_and_with_other_models_are_refused(
    registered: None, base: ModelRef, tmp_path: Path
) -> None:
    with pytest.raises(RegistryError, match=r"nowhere: no registered model to serve as 'champion': there are .*served"):
        find_served(["nowhere"], "champion")
    with pytest.raises(RegistryError, match=r"served\.ada.*|no version '7'"):
        find_served(["served"], "7")
    other = store_adapter(make_adapter(base, "lora", 9, tmp_path))
    version = register(make_recipe(base, "ada", ("ada",), other, corpus="served-half", dtype="bfloat16"))
    assert find_served(["served-half"], "1").models["served-half.ada"].version == version
    with pytest.raises(ServeError, match=r"float32 .*served-half\.ada of .* bfloat16 .*start one for each"):
        find_served(["served", "served-half"], "1")


def test_vllm_serves_each_adapter_once_at_an_allowed_rank(
    registered: None, served: Served, base: ModelRef, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"served\.dov: vLLM does not take this adapter: it is DoRA"):
        write_vllm_command(served, host="127.0.0.1", port=8000)
    adapter = store_adapter(make_adapter(base, "lora", 7, tmp_path / "a"))
    for target in ("x", "y=z"):
        register(make_recipe(base, target, (target,), adapter, corpus="plain"))
    plain = find_served(["plain"], "challenger")
    written = write_vllm_command(plain, host="127.0.0.1", port=8001)
    command = shlex.split(written, comments=True)
    assert command[:3] == ["vllm", "serve", base.path]
    options = dict(re.findall(r"(--[a-z-]+) ([^-]\S*)", " ".join(command)))
    assert options["--max-lora-rank"] == "8"  # the least allowed that is not below 4
    assert options["--max-loras"] == "2"
    assert options["--generation-config"] == "vllm"
    assert options["--dtype"] == "float32"
    (folder,) = plain.adapters
    place = command.index("--lora-modules")
    # y=z is escaped in the registered model's name: y%3Dz
    assert command[place + 1 : place + 3] == [f"plain.x={folder}", f"plain.y%3Dz={folder}"]
    assert "# - Random numbers are vLLM's" in written


def test_the_command_serves_until_interrupted(registered: None) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", "serve", "--corpus", "served", "--port", "0"],
        cwd=Path(__file__).parent.parent.parent, env={**os.environ, "CAPO_SERVE_API_KEY": "secret", "COLUMNS": "200"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        lines = []
        while not lines or " models on one " not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        address = re.findall(r"http://[^:]+:\d+/v1", lines[-1])[0]
        with openai.OpenAI(base_url=address, api_key="secret") as client:
            assert ask(client, "ada", "a cat").choices[0].capo["label"] in TASK.labels.names
        with (
            openai.OpenAI(base_url=address, api_key="guess") as client,
            pytest.raises(openai.AuthenticationError, match="wrong or missing API key"),
        ):
            client.models.list()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        rest = process.stderr.read()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert any("left out: served.eve" in line for line in lines)
