"""Training in several processes: the same adapter as in one, and an end to all of them when one goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_training
import polars as pl
import psutil
import pytest
import sharded_model
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_model import ADAPTER, FLOAT32, demonstrations, one_thread, preferences, save_tiny_model, tiny

from capo_core.errors import ConfigError, TrainingError
from capo_core.progress import silent
from capo_core.training.adapters import new_adapter
from capo_core.training.batch import count_batch, split_into_parts
from capo_core.training.capo import train_capo
from capo_core.training.collate import PreferenceGroup
from capo_core.training.job import SFTJob
from capo_core.training.launch import processes_to_start, train_in_processes
from capo_core.training.log import TrainingResult
from capo_core.training.ranks import share_families
from capo_core.training.sft import train_sft
from schemas.artifacts import ModelRef
from schemas.training import AdapterConfig, CAPOConfig, SFTConfig

__all__ = ["one_thread", "tiny"]

SFT = SFTConfig(n_epochs=1, batch_size=6, learning_rate=1e-2)


def family(name: str, *lengths: int) -> tuple[PreferenceGroup, ...]:
    """Return a family of one group: a prompt of one token and responses of the given lengths, no token shared."""
    start, responses = 10, []
    for length in lengths:
        responses.append(tuple(range(start, start + length)))
        start += length
    return (PreferenceGroup((1,), responses, (name, "ann1", "yes")),)


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest absolute difference between the weights of two adapters."""
    weights, others = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def assert_equal_logs(one: pl.DataFrame, other: pl.DataFrame) -> None:
    """Compare two training logs row by row, the losses more closely, differences relative to values above 1.

    The others are sums over the tokens of responses, about -150, whose float32 neighbours are 1.5e-5 apart.

    Until the first step with a learning rate above 0, the second, policy and reference are equal, and whether a margin
    is above 0 is rounding.
    """
    one, other = (log.filter((pl.col("metric") != "accuracy") | (pl.col("step") > 2)) for log in (one, other))
    assert one.drop("value").equals(other.drop("value"))
    differences = (one["value"] - other["value"]).abs() / one["value"].abs().clip(lower_bound=1.0)
    assert differences.to_numpy().max() <= 1e-5
    assert differences.filter(one["metric"] == "loss").to_numpy().max() <= 1e-6


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition came to hold within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def workers_below(process: psutil.Process) -> list[psutil.Process]:
    """Return the training processes that a process started, and those that started them."""
    return [child for child in process.children(recursive=True) if "capo_core.training.worker" in child.cmdline()]


def is_gone(process: psutil.Process) -> bool:
    """Return whether a process has ended."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("n", [1, 2, 3])
def test_shares_hold_every_family_once_in_the_order_given(n: int) -> None:
    families = [family(str(i), length) for i, length in enumerate([3, 9, 4, 1, 1])]
    shares = [share_families(families, rank, n) for rank in range(n)]
    names = [[one[0].key[0] for one in share] for share in shares]
    assert sorted(name for share in names for name in share) == ["0", "1", "2", "3", "4"]
    assert all(share == sorted(share) for share in names)


def test_the_longest_families_are_spread_over_the_processes() -> None:
    # With its prompt a family has one token more: 4, 10, 5, 2, 2. The 10 goes to process 0, then 5, 4 to process 1
    # (9), then 2 to process 1 (11), and the last 2 to process 0.
    families = [family(str(i), length) for i, length in enumerate([3, 9, 4, 1, 1])]
    names = [[one[0].key[0] for one in share_families(families, rank, 2)] for rank in range(2)]
    assert names == [["1", "4"], ["0", "2", "3"]]


def test_with_fewer_families_than_processes_some_get_none() -> None:
    shares = [share_families([family("a", 2)], rank, 3) for rank in range(3)]
    assert [len(share) for share in shares] == [1, 0, 0]
    assert split_into_parts(shares[1], torch.float32, 100) == []


def test_a_batch_counts_the_groups_and_chosen_tokens_that_its_parts_hold() -> None:
    families = [family("a", 2, 5), family("b", 3), (*family("c", 4), *family("c", 1, 1))]
    # chosen responses are the first of each group: 2 + 3 + 4 + 1
    assert count_batch(families) == (4, 10)
    parts = split_into_parts(families, torch.float32, 8)
    assert (sum(len(p.groups) for p in parts), sum(p.n_chosen_tokens for p in parts)) == (4, 10)


@pytest.mark.parametrize(
    ("trainer", "n_processes", "n_gpus", "expected"),
    [
        ("grouped", "auto", 0, 0),  # CPU: the caller trains
        ("grouped", "auto", 1, 0),
        ("grouped", "auto", 4, 4),
        ("grouped", 2, 4, 2),
        ("grouped", 2, 0, 2),
        ("grouped", 1, 1, 0),
        ("grouped", 1, 4, 1),  # a process of its own, to which one GPU is visible
        ("trl", "auto", 4, 1),
    ],
)
def test_one_process_per_gpu_unless_configured(trainer: Any, n_processes: Any, n_gpus: int, expected: int) -> None:
    assert processes_to_start(SFTConfig(trainer=trainer, n_processes=n_processes), n_gpus) == expected


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"n_processes is 3, but the number of visible GPUs is 2; set n_processes"):
        processes_to_start(SFTConfig(n_processes=3), 2)


def test_one_process_on_each_of_two_machines_is_started_and_not_by_trl() -> None:
    assert processes_to_start(SFTConfig(), 1, 2) == 1
    with pytest.raises(TrainingError, match=r"trainer trl trains in one process; set trainer: grouped, or unset"):
        processes_to_start(SFTConfig(trainer="trl"), 1, 2)


def test_trl_in_several_processes_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"n_processes is 2, but trainer trl trains in one process; set trainer"):
        SFTConfig(trainer="trl", n_processes=2)


def test_the_number_of_processes_does_not_make_it_another_training() -> None:
    assert SFTConfig(n_processes=2).cache_identity() == SFTConfig().cache_identity()
    assert SFTConfig(batch_size=9).cache_identity() != SFTConfig().cache_identity()


@pytest.mark.slow
def test_two_processes_fine_tune_as_one_does(tiny: ModelRef, tmp_path: Path) -> None:
    # Families of two groups, 7 of them in threes: 3 steps, the last with one family.
    data = pl.concat([demonstrations(7, 3), demonstrations(7, 3).with_columns(annotator_id=pl.lit("ann2"))])
    adapter = AdapterConfig(layout="shared", r=4, alpha=8.0)
    seen: list[tuple[int, int]] = []

    def train(n: int) -> TrainingResult:
        return train_sft(
            data, tiny, FLOAT32, adapter, SFT.model_copy(update={"n_processes": n}), seed=5,
            output_dir=tmp_path / f"out{n}", progress=lambda n_done, n_total: seen.append((n_done, n_total)),
        )  # fmt: skip

    one, two = train(1), train(2)
    assert one.n_steps == two.n_steps == 3
    assert largest_difference(tmp_path / "out1", tmp_path / "out2") <= 1e-6
    assert_equal_logs(one.log, two.log)
    assert seen[:3] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1] == (3, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out1", "out2"]
    names = sorted(path.name for path in (tmp_path / "out2").iterdir())
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_checkpointing": True}, {"max_tokens_per_pass": 64}],
    ids=["plain", "activations computed again", "a pass per family"],
)
def test_processes_that_share_out_the_layers_train_as_one_does(
    tiny: ModelRef, tmp_path: Path, changes: dict[str, Any]
) -> None:
    # 7 families in threes and a validation split of 3: in no batch have both processes as many.
    data = demonstrations(7, 3)
    sft = SFT.model_copy(update=changes)
    capo = CAPOConfig(n_epochs=1, batch_size=6, learning_rate=1e-2, **changes)

    def train(name: str, **processes: Any) -> list[TrainingResult]:
        folder = tmp_path / name
        supervised = train_sft(
            data, tiny, FLOAT32, ADAPTER, sft.model_copy(update=processes), seed=5, output_dir=folder / "sft"
        )
        preferred = train_capo(
            preferences(7), tiny, FLOAT32, ADAPTER, capo.model_copy(update=processes),
            sft_adapter_dir=folder / "sft", seed=5, output_dir=folder / "capo",
        )  # fmt: skip
        return [supervised, preferred]

    alone, sharing = train("alone"), train("sharing", n_processes=2, fsdp=True)
    for method, one, two in zip(("sft", "capo"), alone, sharing, strict=True):
        assert largest_difference(tmp_path / "alone" / method, tmp_path / "sharing" / method) <= 1e-5
        assert one.log.drop("value").equals(two.log.drop("value"))
        losses = (log.filter(metric="loss")["value"] for log in (one.log, two.log))
        assert next(losses).to_numpy() == pytest.approx(next(losses).to_numpy(), abs=1e-5)


@pytest.mark.slow
def test_each_process_holds_its_share_of_the_layers_and_the_whole_adapter(tiny: ModelRef, tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    subprocess.run(
        [sys.executable, *command, str(sharded_model.__file__), tiny.path, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}, check=True,
    )  # fmt: skip
    counted = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for own in counted:
        assert own["trained"] == own["trained_in_all"]
        assert own["frozen_in_layers"] <= 0.55 * own["frozen_in_layers_in_all"]
    assert sum(own["frozen_in_layers"] for own in counted) >= counted[0]["frozen_in_layers_in_all"]


def test_sharing_out_the_layers_does_not_make_it_another_training() -> None:
    assert SFTConfig(fsdp=True).cache_identity() == SFTConfig().cache_identity()


def test_what_cannot_be_shared_out_is_refused(tiny: ModelRef) -> None:
    with pytest.raises(ValidationError, match=r"fsdp is true, but trainer trl trains alone; set trainer: grouped"):
        SFTConfig(trainer="trl", fsdp=True)
    four_bits = FLOAT32.model_copy(update={"quantization": "nf4"})
    with pytest.raises(ConfigError, match=r"model.quantization is nf4, which cannot be shared out; set it to none"):
        new_adapter(tiny, four_bits, ADAPTER, "grouped", fsdp=True)


@pytest.mark.slow
def test_when_one_process_is_killed_all_end_and_the_error_says_so(tiny: ModelRef, tmp_path: Path) -> None:
    config = SFTConfig(n_epochs=500, batch_size=2, n_processes=2)
    killed_at: list[float] = []
    workers: list[psutil.Process] = []

    def kill_one(n_done: int, n_total: int) -> None:
        if not killed_at:
            workers.extend(workers_below(psutil.Process()))
            ranks = [worker for worker in workers if "torch.distributed.run" not in worker.cmdline()]
            assert len(ranks) == 2
            ranks[1].kill()
            killed_at.append(time.monotonic())

    with pytest.raises(TrainingError, match=r"one of 2 training processes failed or was killed(.|\n)*SIGKILL"):
        train_sft(
            demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=tmp_path / "out", progress=kill_one
        )
    assert time.monotonic() - killed_at[0] < 30
    assert len(workers) == 3
    assert all(is_gone(worker) for worker in workers)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_killed_as_a_whole_leaves_no_process_and_goes_on_from_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny = save_tiny_model(tmp_path / "tiny")
    train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, SFT, seed=5, output_dir=tmp_path / "sft")
    search = os.pathsep.join(path for path in sys.path if path)
    parent = psutil.Popen(
        [sys.executable, str(killed_training.__file__), str(tmp_path)], env=os.environ | {"PYTHONPATH": search}
    )
    seal = tmp_path / "checkpoints" / "checkpoint-8" / "capo_seal.json"
    assert wait_until(seal.is_file, 120)
    workers = workers_below(parent)
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    assert len(workers) == 3
    assert wait_until(lambda: all(is_gone(worker) for worker in workers), 20)
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= json.loads(seal.read_text())["files"].keys()
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")
    (tmp_path / "checkpoints" / "checkpoint-23").mkdir()

    whole = killed_training.train(tmp_path, 1, "one", None)
    resumed = killed_training.train(tmp_path, 2, "two", "checkpoints")
    assert "checkpoint-23 is passed over: it was not finished" in caplog.text
    alone = killed_training.train(tmp_path, 1, "alone", "copy")
    assert (whole.resumed_from_step, whole.n_steps) == (0, 24)
    for output, result in (("two", resumed), ("alone", alone)):
        assert result.resumed_from_step in (8, 16)
        assert largest_difference(tmp_path / "one", tmp_path / output) <= 1e-6
        assert_equal_logs(whole.log, result.log)


def test_an_error_of_a_process_reaches_the_caller_as_it_was(tiny: ModelRef, tmp_path: Path) -> None:
    job = SFTJob(
        model=tiny, settings=FLOAT32, adapter=ADAPTER, config=SFT, seed=5, output_dir=tmp_path / "out",
        checkpoint_dir=None,
    )  # fmt: skip
    tables = {"data": demonstrations(0, 2)}
    with pytest.raises(TrainingError, match=r"^no row of the train split among 2; nothing to train on$"):
        train_in_processes(job, tables, 1, silent)
