"""Time, memory and efficiency of training against TRL and a careful pairwise trainer: `python -m benchmarks.trainer`.

Every contestant trains the same adapter (LoRA, rank 16, all linear layers) on the same preference groups: forward,
backward, clipping, AdamW step. CAPO groups have one chosen and all other annotators' responses rejected; figures are
milliseconds per pair, those of SFT per response. Reference log-probabilities are precomputed for all.

- `trl`: TRL's DPOTrainer, batches of similar length, and SFTTrainer, packing, the fastest of several row lengths; mixed
  precision for bfloat16.
- `pairwise`: what can be had without sharing: chosen and rejected as rows sorted by length, no row longer than its
  batch's longest, the vocabulary head at response positions only and in chunks, the faster of SDPA and eager.
- `grouped`: capo with one adapter per annotator. `item`: capo with one adapter for all annotators.

They take turns, each time in a new process, as in use: what one leaves in memory would slow those after it. A process
trains three times, and the first does not count: it is when heap and kernels are set up.

The corpus is the bundled one, or with `--corpus varierr` (or `paraphrase`) the published file in CAPO_DATA_DIR.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks.contestants import (
    CAPO,
    SHAPES,
    Setting,
    capo_supervised,
    capo_trainer,
    fill_batches,
    pairwise_trainer,
    trl_capo,
    trl_supervised,
)
from benchmarks.machine import describe_machine, matmul_rate, time_in_turns
from benchmarks.pairwise_peer import pairs_of
from capo_core.layout.prefix_tree import count_columns
from capo_core.training.batch import gather_families
from capo_core.training.collate import PreferenceGroup
from tasks.memory import give_memory_back

PACK_LENGTHS = (256, 512, 1024, 2048)
"""Rows that TRL packs: long ones save steps, short ones attention; the fastest is what ratios are taken against."""

RESPONSES_A_STEP = (8, 16)
"""Of supervised training with capo; TRL's rows hold between 2 and 18."""

Contestant = Callable[[Setting], Callable[[], object]]
"""Builds what trains once when called."""

CAPO_CONTESTANTS: dict[str, Contestant] = {
    "trl": lambda setting: trl_capo(setting, groups_of_one(setting)),
    "pairwise sdpa": lambda setting: pairwise_trainer(setting, groups_of_one(setting), "sdpa"),
    "pairwise eager": lambda setting: pairwise_trainer(setting, groups_of_one(setting), "eager"),
    "grouped": lambda setting: capo_trainer(setting, groups_of_one(setting), CAPO),
    "item": lambda setting: capo_trainer(setting, setting.groups(tagged=True), CAPO),
}
SUPERVISED_CONTESTANTS: dict[str, Contestant] = {
    **{f"trl {n}": lambda setting, n=n: trl_supervised(setting, groups_of_one(setting), n) for n in PACK_LENGTHS},
    **{
        f"{layout} {n}": lambda setting, layout=layout, n=n: capo_supervised(
            replace(setting, batch_groups=n),
            setting.groups(tagged=True) if layout == "item" else groups_of_one(setting),
        )
        for layout in ("flat", "item")
        for n in RESPONSES_A_STEP
    },
}


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer", description=__doc__)
    parser.add_argument("--corpus", default="example", choices=["example", "varierr", "paraphrase"])
    parser.add_argument("--model", default="smollm2-135m", choices=["smollm2-135m", *SHAPES])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--items", type=int, default=24, help="items, each answered by all annotators")
    parser.add_argument("--batch-groups", type=int, default=8, help="groups per optimiser step of CAPO")
    parser.add_argument("--max-tokens", type=int, default=2048, help="token budget of a pass, of every contestant")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, for all contestants")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant, two figures a turn")
    parser.add_argument("--parts", nargs="+", default=["capo", "sft", "memory"], choices=["capo", "sft", "memory"])
    parser.add_argument("--quick", action="store_true", help="8 items, 2 rounds, CAPO only: 8 minutes on 2 cores")
    parser.add_argument("--alone", nargs=2, metavar=("PART", "CONTESTANT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = "cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu"
    setting = Setting(
        arguments.corpus, arguments.model, arguments.dtype, device, arguments.checkpointing,
        8 if arguments.quick else arguments.items, arguments.batch_groups, arguments.max_tokens,
    )  # fmt: skip
    if arguments.alone:
        run_alone(setting, *arguments.alone)
        return
    print(describe_machine())
    print(f"{setting.model}, {setting.dtype}, {setting.corpus}, LoRA r = 16 on all linear layers, AdamW")
    n_rounds = 2 if arguments.quick else arguments.rounds
    parts = ["capo"] if arguments.quick else arguments.parts
    if "sft" in parts:
        compare_supervised(setting, n_rounds)
    if "memory" in parts:
        compare_memory(setting)
    if "capo" in parts:
        print(f"capo/trl {compare_capo(setting, n_rounds):.2f}")


def run_alone(setting: Setting, part: str, name: str) -> None:
    """Be one contestant: print the seconds of training twice, once warm, or the memory of training once, as JSON."""
    with redirect_stdout(sys.stderr):
        train = (SUPERVISED_CONTESTANTS if part == "sft" else CAPO_CONTESTANTS)[name](setting)
        measured = measure_memory(setting, train) if part == "memory" else time_in_turns({name: train}, 2)[name]
    print(json.dumps(measured))


def ask_alone(part: str, name: str) -> Any:
    """Return what a contestant measures of itself, in a process of its own with this process's settings."""
    command = [sys.executable, "-m", "benchmarks.trainer", *sys.argv[1:], "--alone", part, name]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def time_alone(part: str, contestants: Iterable[str], n_rounds: int) -> dict[str, list[float]]:
    """Return seconds by contestant, two of each round; they take turns, so that a slow minute hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(n_rounds):
        for name, times in seconds.items():
            times += ask_alone(part, name)
    return seconds


def compare_capo(setting: Setting, n_rounds: int) -> float:
    """Print the CAPO step of every contestant; return how many times as long TRL takes as the grouped layout."""
    apart, together = groups_of_one(setting), setting.groups(tagged=True)
    seconds = time_alone("capo", CAPO_CONTESTANTS, n_rounds)
    n_pairs = {name: len(pairs_of(together if name == "item" else apart)) for name in seconds}
    per_pair = {name: median(times) / n_pairs[name] * 1000 for name, times in seconds.items()}
    fair = min(per_pair[name] for name in per_pair if name.startswith("pairwise"))
    ours = {"grouped": apart, "item": together}
    columns = {name: unique_columns(setting, groups) / n_pairs[name] for name, groups in ours.items()}
    pairwise_tokens = sum(len(p) + len(r) for pair in pairs_of(apart) for p, r in pair) / n_pairs["grouped"]
    print(f"\nCAPO step, {n_pairs['grouped']} pairs ({n_pairs['item']} for item), median of {n_rounds} rounds")
    print(f"tokens per pair: pairwise {pairwise_tokens:.1f}, " + ", ".join(f"{k} {v:.1f}" for k, v in columns.items()))
    rates = {name: efficiency(setting, groups, median(seconds[name])) for name, groups in ours.items()}
    for name, value in per_pair.items():
        of_peak = f", {rates[name]:.0%} of the matmul rate" if name in rates else ""
        print(f"  {name:<16} {value:8.1f} ms/pair   trl {per_pair['trl'] / value:5.2f}x   "
              f"pairwise {fair / value:5.2f}x{of_peak}")  # fmt: skip
    return per_pair["trl"] / per_pair["grouped"]


def groups_of_one(setting: Setting) -> list[PreferenceGroup]:
    """Return the groups of the annotator whose responses are neither the longest nor the shortest."""
    groups = setting.groups(tagged=False)
    annotators = sorted({group.key[1] for group in groups})
    lengths = {a: sum(len(g.responses[0]) for g in groups if g.key[1] == a) for a in annotators}
    chosen = sorted(annotators, key=lambda a: lengths[a])[len(annotators) // 2]
    return [group for group in groups if group.key[1] == chosen]


def compare_supervised(setting: Setting, n_rounds: int) -> None:
    """Print the SFT step of TRL and of both layouts."""
    apart, together = groups_of_one(setting), setting.groups(tagged=True)
    seconds = time_alone("sft", SUPERVISED_CONTESTANTS, n_rounds)
    print(f"\nSFT step, {len(apart)} responses ({len(together)} for item); TRL packs rows of so many tokens, "
          "capo takes so many responses a step")  # fmt: skip
    per_response = {name: median(t) / len(together if name.startswith("item") else apart) * 1000
                    for name, t in seconds.items()}  # fmt: skip
    best = min(value for name, value in per_response.items() if name.startswith("trl"))
    for name, value in per_response.items():
        print(f"  {name:<16} {value:8.1f} ms/response   best trl {best / value:5.2f}x")


def compare_memory(setting: Setting) -> None:
    """Print the peak memory of a CAPO step above the loaded model, each contestant in a process of its own."""
    print(f"\npeak memory above the loaded model, checkpointing {'on' if setting.checkpointing else 'off'}")
    peaks = {}
    for name in ("trl", "pairwise sdpa", "grouped", "item"):
        peaks[name] = ask_alone("memory", name)
        print(f"  {name:<16} {peaks[name] / 2**20:8.0f} MiB   of trl {peaks[name] / peaks['trl']:5.2f}")


def measure_memory(setting: Setting, train: Callable[[], object]) -> int:
    """Return the bytes that training needs above the loaded model, in this process."""
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train()
        return torch.cuda.max_memory_allocated() - before
    reset_peak()
    before = _status("VmRSS")
    train()
    return _status("VmHWM") - before


def reset_peak() -> None:
    """Give freed memory back and let the kernel count this process's peak from now on (Linux)."""
    give_memory_back()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
        handle.write("5")


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as handle:
        return next(int(line.split()[1]) * 1024 for line in handle if line.startswith(f"{key}:"))


def unique_columns(setting: Setting, groups: list[PreferenceGroup]) -> int:
    """Return the tokens computed in an epoch: in each batch, every distinct beginning once."""
    batches = fill_batches(gather_families(groups), setting.batch_groups)
    return sum(count_columns([group for family in batch for group in family]) for batch in batches)


def efficiency(setting: Setting, groups: list[PreferenceGroup], seconds: float) -> float:
    """Return the work of matrix products on unique tokens over what the machine multiplies in that time.

    Per token twice the layers' weights forward and as much backward (frozen weights need no gradient of their own),
    per scored column the same with the vocabulary head. Attention, the adapter and everything elementwise count as
    loss.
    """
    model = setting.base("sdpa")
    linear = [m.weight for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
    head = model.get_output_embeddings().weight
    scored = sum(
        len({(*g.prompt, *r[: n + 1]) for g in family for r in g.responses for n in range(len(r))})
        for family in gather_families(groups)
    )
    work = 4.0 * (sum(w.numel() for w in linear) * unique_columns(setting, groups) + head.numel() * scored)
    layer = list({(2048, w.shape[1], w.shape[0]) for w in linear})
    rate = matmul_rate(getattr(torch, setting.dtype), setting.device, layer)
    return work / seconds / rate


if __name__ == "__main__":
    main()
