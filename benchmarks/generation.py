"""Tokens per second of generation for several annotators against PEFT: `python -m benchmarks.generation`.

Every contestant answers the same items as each of four annotators, one sampled response of a fixed number of tokens
each (no token ends a response), with LoRA adapters of rank 16 on all linear layers and small random weights. Generated
tokens are counted; reading the prompts is part of the time.

- `peft`: transformers' generate in a loop over annotators, the annotator's adapter beside the weights (in the model's
  dtype, all adapters loaded beforehand), batches of 8 sorted by length and padded on the left.
- `per annotator`: capo with an adapter for each; loading and merging it is part of the time and stated.
- `shared`: capo with one adapter for all, its prompts naming the annotator last; loaded and merged once.
- `vllm`, where CAPO_VLLM names its command: the prompts of `shared` through a vLLM server with the same adapter as LoRA
  module, as many calls at a time as capo decodes rows; starting the server is not part of the time.
- `llama.cpp`, where the package xllamacpp is installed: the same prompts one by one, the bundled four-bit weights that
  the model was converted from, without an adapter. Beside the others rather than against them.

The corpus is the bundled one, or with `--corpus varierr` (or `paraphrase`) the published file in CAPO_DATA_DIR.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from benchmarks.contestants import Setting
from benchmarks.machine import describe_machine, time_in_turns
from capo_core.bundled_models import find_smollm2
from capo_core.chat import encode_prompt
from capo_core.generation.requests import GenerationRequest
from capo_core.generation.responses import generate_responses
from capo_core.generation.vllm.server import COMMAND_VARIABLE, VLLMServer, serve_vllm
from capo_core.models import load_model, load_policy, load_tokenizer, resolve_model
from capo_core.prompts import AnnotatorTag, build_prompt
from capo_core.quiet import quiet_libraries
from schemas.artifacts import ModelRef
from schemas.config import ExperimentConfig, GenerationConfig
from tasks.storage.home import model_cache

N_ANNOTATORS = 4
PEER_ROWS = 8
SHARED = "shared"


@dataclass
class Workload:
    """What is asked of whom, and how; `merging` takes the seconds spent on loading and merging adapters."""

    config: ExperimentConfig
    ref: ModelRef
    generation: GenerationConfig
    items: pl.DataFrame
    annotators: list[str]
    adapters: Path
    merging: dict[str, list[float]] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Tokens generated in one turn."""
        return self.items.height * len(self.annotators) * self.generation.max_new_tokens

    def requests(self, annotators: list[str], *, tagged: bool) -> list[GenerationRequest]:
        """Return a request for each item and annotator."""
        return [
            GenerationRequest(
                item,
                annotator,
                build_prompt(self.config.task, a, b, tag=AnnotatorTag(annotator, "last") if tagged else None),
            )
            for annotator in annotators
            for item, a, b in self.items.select("item_id", "text_a", "text_b").iter_rows()
        ]

    def prompts(self, annotators: list[str], *, tagged: bool) -> list[list[int]]:
        """Return the prompts of `requests` as tokens."""
        tokenizer = load_tokenizer(self.ref)
        return [encode_prompt(request.prompt, tokenizer) for request in self.requests(annotators, tagged=tagged)]


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--corpus", default="example", choices=["example", "varierr", "paraphrase"])
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--new-tokens", type=int, default=48, help="of every response")
    parser.add_argument("--rows", type=int, default=128, help="responses that capo decodes at a time")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 items, 32 new tokens, 1 round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.items, arguments.new_tokens, arguments.rounds = 16, 32, 1
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        workload = prepare(arguments, Path(folder))
        server = None
        if os.environ.get(COMMAND_VARIABLE):
            adapter, n_at_once = workload.adapters / SHARED, workload.generation.batch_size
            server = servers.enter_context(serve_vllm(workload.ref, arguments.dtype, adapter, n_at_once=n_at_once))
        compare(workload, arguments.rounds, server)


def prepare(arguments: argparse.Namespace, folder: Path) -> Workload:
    """Return the workload, adapters of random weights written to `folder`."""
    setting = Setting(arguments.corpus, "smollm2-135m", arguments.dtype, "cpu", False, arguments.items, 8, 2048)
    config = setting.config.model_copy(
        update={"model": setting.config.model.model_copy(update={"dtype": arguments.dtype, "device": "cpu"})}
    )
    ref = resolve_model(config.model.id, cache_dir=model_cache())
    annotations = setting.annotations()
    items = annotations.unique("item_id").sort("item_id")[: arguments.items]
    annotators = sorted(annotations["annotator_id"].unique())[:N_ANNOTATORS]
    generation = config.generation.model_copy(
        update={"decisions": ("sampled",), "max_new_tokens": arguments.new_tokens, "batch_size": arguments.rows}
    )
    for number, name in enumerate([*annotators, SHARED]):
        write_adapter(ref, arguments.dtype, number, folder / name)
    return Workload(config, ref, generation, items, annotators, folder)


def write_adapter(ref: ModelRef, dtype: str, seed: int, folder: Path) -> None:
    """Write an adapter that changes the weights a little: some hundredth of their size."""
    with quiet_libraries(), torch.random.fork_rng():
        torch.manual_seed(seed)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted: Any = get_peft_model(load_model(ref, dtype, "cpu", "sdpa"), lora)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.005)
        adapted.save_pretrained(folder)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"base_model_name_or_path": ref.id}), encoding="utf-8")


def compare(workload: Workload, n_rounds: int, server: VLLMServer | None) -> None:
    """Print tokens per second of every contestant and its ratio to PEFT's."""
    contestants: dict[str, Callable[[], object]] = {
        "peft": peft_loop(workload),
        "per annotator": capo_per_annotator(workload),
        "shared": capo_shared(workload),
    }
    if server is not None:
        contestants[f"vllm {server.version}"] = vllm_shared(workload, server)
    if find_spec("xllamacpp") is not None:
        contestants["llama.cpp"] = llama_cpp(workload)
    seconds = {name: median(times) for name, times in time_in_turns(contestants, n_rounds).items()}
    print(f"smollm2-135m, {workload.config.model.dtype}, {workload.config.corpus.name}: {workload.items.height} items, "
          f"{len(workload.annotators)} annotators, {workload.generation.max_new_tokens} new tokens each, up to "
          f"{workload.generation.batch_size} rows (peft {PEER_ROWS}), median of {n_rounds} rounds")  # fmt: skip
    rates = {name: workload.n_tokens / taken for name, taken in seconds.items()}
    for name, rate in rates.items():
        merging = workload.merging.get(name)
        share = f"   merging takes {median(merging[1:]) / seconds[name]:.0%} of the time" if merging else ""
        print(f"  {name:<16} {rate:8.0f} tokens/s   peft {rate / rates['peft']:5.2f}x{share}")
    print(f"per annotator/peft {rates['per annotator'] / rates['peft']:.2f}, shared/peft "
          f"{rates['shared'] / rates['peft']:.2f}")  # fmt: skip


def load_through_peft(workload: Workload) -> Any:
    """Return the model as transformers and PEFT load it, every annotator's adapter beside its weights."""
    with quiet_libraries():
        model: Any = load_model(workload.ref, workload.config.model.dtype, "cpu", "sdpa")
        for name in workload.annotators:
            folder = str(workload.adapters / name)
            if isinstance(model, PeftModel):
                model.load_adapter(folder, name, autocast_adapter_dtype=False)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name, autocast_adapter_dtype=False)
    return model.eval()


def peft_loop(workload: Workload) -> Callable[[], None]:
    """Return generation by transformers and PEFT, annotator by annotator."""
    tokenizer = load_tokenizer(workload.ref)
    model = load_through_peft(workload)
    n_new = workload.generation.max_new_tokens
    prompts = sorted(workload.prompts(["anyone"], tagged=False), key=len)

    def generate() -> None:
        for name in workload.annotators:
            model.set_adapter(name)
            for start in range(0, len(prompts), PEER_ROWS):
                batch = tokenizer.pad({"input_ids": prompts[start : start + PEER_ROWS]}, return_tensors="pt")
                answered = model.generate(
                    **batch, do_sample=True, temperature=workload.generation.temperature, top_k=0, top_p=1.0,
                    min_new_tokens=n_new, max_new_tokens=n_new, pad_token_id=tokenizer.pad_token_id,
                )  # fmt: skip
                assert answered.shape[1] == batch["input_ids"].shape[1] + n_new

    return generate


def capo_per_annotator(workload: Workload) -> Callable[[], None]:
    """Return generation by capo, an adapter for each annotator."""

    def generate() -> None:
        spent = sum(_generate(workload, name, [name], tagged=False) for name in workload.annotators)
        workload.merging.setdefault("per annotator", []).append(spent)

    return generate


def capo_shared(workload: Workload) -> Callable[[], None]:
    """Return generation by capo, one adapter and one call for all annotators."""

    def generate() -> None:
        spent = _generate(workload, SHARED, workload.annotators, tagged=True)
        workload.merging.setdefault("shared", []).append(spent)

    return generate


def vllm_shared(workload: Workload, server: VLLMServer) -> Callable[[], None]:
    """Return generation by vLLM, one adapter for all annotators."""
    prompts = workload.prompts(workload.annotators, tagged=True)
    n_new = workload.generation.max_new_tokens

    def answer(prompt: list[int]) -> None:
        (choice,) = server.complete(
            prompt=prompt, max_tokens=n_new, ignore_eos=True, temperature=workload.generation.temperature
        )
        assert len(choice["token_ids"]) == n_new

    def generate() -> None:
        with ThreadPoolExecutor(workload.generation.batch_size) as pool:
            list(pool.map(answer, prompts))

    return generate


def llama_cpp(workload: Workload) -> Callable[[], None]:
    """Return generation by llama.cpp, one prompt after the other."""
    import xllamacpp  # pyright: ignore[reportMissingImports]

    prompts = workload.prompts(workload.annotators, tagged=True)
    n_new = workload.generation.max_new_tokens
    settings: Any = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel = str(find_smollm2()), 4096, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    server: Any = xllamacpp.Server(settings)

    def generate() -> None:
        for prompt in prompts:
            answered = server.handle_completions(
                {
                    "prompt": prompt,
                    "max_tokens": n_new,
                    "ignore_eos": True,
                    "temperature": workload.generation.temperature,
                }
            )
            assert answered["usage"]["completion_tokens"] == n_new

    return generate


def _generate(workload: Workload, adapter: str, annotators: list[str], *, tagged: bool) -> float:
    """Let capo answer as the annotators; return the seconds that loading and merging took."""
    start = time.perf_counter()
    policy = load_policy(workload.ref, workload.config.model, workload.adapters / adapter)
    spent = time.perf_counter() - start
    requests = workload.requests(annotators, tagged=tagged)
    found = generate_responses(
        policy, load_tokenizer(workload.ref), requests, workload.config.task, workload.generation, seed=13,
        method="sft", stop=frozenset(),
    )  # fmt: skip
    assert found["n_tokens"].sum() == len(requests) * workload.generation.max_new_tokens
    return spent


if __name__ == "__main__":
    main()
