"""Answers per second to questions that come at once for several annotators: `python -m benchmarks.serving`.

Four annotators with a LoRA adapter each (rank 16, all linear layers, small random weights) beside one SmolLM2. As many
questions as `--at-once` says come together, as many for each annotator; every answer has a fixed number of sampled
tokens (temperature .7, no token ends it). Models and adapters are loaded beforehand; reading the prompts is part of the
time. Contestants:

- `mixed`: capo serve's batch, all annotators' rows in it.
- `in turn`: the same, but the annotators one after the other, as if one adapter could be active at a time.
- `merged`: capo predict's way, one after the other, each with weights of its own into which the adapter is merged;
  four times the memory.
- `peft`: transformers' generate, PEFT choosing the adapter by row (`adapter_names`), batches of 8 sorted by length and
  padded on the left.

`wait` is the mean time until a question is answered. `processor` is processor time, which other processes disturb less:
on one thread (OMP_NUM_THREADS=1) it is about what the time would be without them. The corpus is the bundled one, or
with `--corpus varierr` (or `paraphrase`) the published file in CAPO_DATA_DIR.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median

from benchmarks.generation import PEER_ROWS, Workload, load_through_peft, prepare
from benchmarks.machine import describe_machine, time_in_turns
from capo_core.chat import encode_prompt
from capo_core.generation.answering import AnswerBatch, Person, Question
from capo_core.generation.mixed_adapters import load_mixed
from capo_core.generation.responses import generate_responses
from capo_core.models import load_policy, load_tokenizer
from capo_core.prompts import item_text
from schemas.artifacts import ArtifactRef
from schemas.registry import AnsweringRecipe

_NOTHING = ArtifactRef(kind="evaluation", sha256="0" * 64, rows=0, schema_version=1)


@dataclass
class Timed:
    """Questions that come at once, and how long each waited in every round."""

    workload: Workload
    n_questions: int
    waits: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    @property
    def items(self) -> list[tuple[str, str, str]]:
        """As many items as each annotator is asked about."""
        n_each = self.n_questions // len(self.workload.annotators)
        return self.workload.items.select("item_id", "text_a", "text_b").rows()[:n_each]

    def note(self, contestant: str, started: float, n_answers: int = 1) -> None:
        """Note that so many questions were answered just now."""
        self.waits.setdefault(contestant, []).extend([time.perf_counter() - started] * n_answers)


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--corpus", default="example", choices=["example", "varierr", "paraphrase"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[4, 16, 64], help="multiples of four")
    parser.add_argument("--new-tokens", type=int, default=48, help="of every answer")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 questions, 16 new tokens, 1 round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.at_once, arguments.new_tokens, arguments.rounds = [16], 16, 1
    arguments.items, arguments.rows = max(arguments.at_once) // 4, 128
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        workload = prepare(arguments, Path(folder))
        batch, people = _make_batch(workload)
        contestants = {
            "mixed": capo_mixed(batch, people), "in turn": capo_in_turn(batch, people),
            "merged": capo_merged(workload), "peft": peft_mixed(workload),
        }  # fmt: skip
        print(f"smollm2-135m, {arguments.dtype}, {arguments.corpus}: {len(workload.annotators)} annotators, an adapter "
              f"each, {arguments.new_tokens} new tokens, median of {arguments.rounds} rounds")  # fmt: skip
        for n_questions in arguments.at_once:
            compare(Timed(workload, n_questions), contestants, arguments.rounds)


def compare(timed: Timed, contestants: dict[str, Callable[[Timed], None]], n_rounds: int) -> None:
    """Print answers per second of every contestant, its ratio to annotators in turn, and the mean wait."""

    def run(name: str) -> None:
        started = time.process_time()
        contestants[name](timed)
        timed.processor.setdefault(name, []).append(time.process_time() - started)

    seconds = time_in_turns({name: partial(run, name) for name in contestants}, n_rounds)
    wall, processor = ({name: median(times[-n_rounds:]) for name, times in by_name.items()}
                       for by_name in (seconds, timed.processor))  # fmt: skip
    for name in contestants:
        print(f"{timed.n_questions:4d} at once  {name:8s} {timed.n_questions / wall[name]:6.2f} answers/s  "
              f"{wall['in turn'] / wall[name]:5.2f}x  wait {mean(timed.waits[name]):6.2f} s  processor "
              f"{processor[name]:6.2f} s  {processor['in turn'] / processor[name]:5.2f}x", flush=True)  # fmt: skip


def _make_batch(workload: Workload) -> tuple[AnswerBatch, list[Person]]:
    """Return capo serve's batch and the people it answers for."""
    folders = [workload.adapters / name for name in workload.annotators]
    model, route = load_mixed(workload.ref, workload.config.model, folders)
    people = [Person(name, _recipe(workload, name), place) for place, name in enumerate(workload.annotators)]
    tokenizer = load_tokenizer(workload.ref)
    return AnswerBatch(model, route, tokenizer, people, max_rows=128, stop=frozenset()), people


def _recipe(workload: Workload, annotator: str) -> AnsweringRecipe:
    config = workload.config
    return AnsweringRecipe(
        corpus=config.corpus.name, target=annotator, annotators=(annotator,), method="sft", seed=13, task=config.task,
        model=config.model, fingerprint=workload.ref.fingerprint, tag=None, generation=workload.generation,
        adapter=_NOTHING, corpus_version=_NOTHING, evaluation=_NOTHING,
    )  # fmt: skip


def _answer(timed: Timed, name: str, batch: AnswerBatch, people: Sequence[Person], started: float) -> None:
    """Let the batch answer every item in the people's places."""
    generation, task = timed.workload.generation, timed.workload.config.task
    waiting = [
        batch.encode(
            Question(person, item, item_text(task, a, b), "sampled", generation.temperature, 1.0,
                     generation.max_new_tokens, 13)
        )
        for item, a, b in timed.items
        for person in people
    ]  # fmt: skip
    while waiting or batch.n_rows:
        n_joining = 0
        while n_joining < len(waiting) and batch.has_room(waiting[n_joining], waiting[:n_joining]):
            n_joining += 1
        if n_joining:
            batch.join(waiting[:n_joining])
            waiting = waiting[n_joining:]
        timed.note(name, started, len(batch.advance()))


def capo_mixed(batch: AnswerBatch, people: list[Person]) -> Callable[[Timed], None]:
    """Return answering by capo serve's batch, all annotators at once."""
    return lambda timed: _answer(timed, "mixed", batch, people, time.perf_counter())


def capo_in_turn(batch: AnswerBatch, people: list[Person]) -> Callable[[Timed], None]:
    """Return answering by capo serve's batch, annotator by annotator."""

    def answer(timed: Timed) -> None:
        started = time.perf_counter()
        for person in people:
            _answer(timed, "in turn", batch, [person], started)

    return answer


def capo_merged(workload: Workload) -> Callable[[Timed], None]:
    """Return answering as capo predict does it, annotator by annotator, from weights of their own."""
    policies = [
        (name, load_policy(workload.ref, workload.config.model, workload.adapters / name))
        for name in workload.annotators
    ]
    tokenizer = load_tokenizer(workload.ref)

    def answer(timed: Timed) -> None:
        started = time.perf_counter()
        for name, policy in policies:
            requests = workload.requests([name], tagged=False)[: len(timed.items)]
            generate_responses(
                policy, tokenizer, requests, workload.config.task, workload.generation, seed=13, method="sft",
                stop=frozenset(),
            )  # fmt: skip
            timed.note("merged", started, len(requests))

    return answer


def peft_mixed(workload: Workload) -> Callable[[Timed], None]:
    """Return answering by transformers, PEFT choosing the adapter by row."""
    tokenizer = load_tokenizer(workload.ref)
    model = load_through_peft(workload)
    n_new = workload.generation.max_new_tokens

    def answer(timed: Timed) -> None:
        started = time.perf_counter()
        asked = [
            (encode_prompt(request.prompt, tokenizer), name)
            for name in workload.annotators
            for request in workload.requests([name], tagged=False)[: len(timed.items)]
        ]
        asked.sort(key=lambda one: len(one[0]))
        for start in range(0, len(asked), PEER_ROWS):
            part = asked[start : start + PEER_ROWS]
            batch = tokenizer.pad({"input_ids": [tokens for tokens, _ in part]}, return_tensors="pt")
            model.generate(
                **batch, adapter_names=[name for _, name in part], do_sample=True,
                temperature=workload.generation.temperature, top_k=0, top_p=1.0, min_new_tokens=n_new,
                max_new_tokens=n_new, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            timed.note("peft", started, len(part))

    return answer


if __name__ == "__main__":
    main()
