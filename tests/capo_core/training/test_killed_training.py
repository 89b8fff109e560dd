"""A training that is killed, at any moment or while it saves, ends with the weights of one that was not."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from forks import processes, run_alone
from killed_training import train_alone, train_and_be_killed
from rounds import n_rounds
from tiny_model import ADAPTER, FLOAT32, demonstrations, one_thread, save_tiny_model

from capo_core.training.checkpoints import newest_intact_checkpoint
from capo_core.training.sft import train_sft
from schemas.training import SFTConfig

__all__ = ["one_thread", "processes"]

pytestmark = pytest.mark.torture
METHODS = ("sft", "capo")
N_KILLS = -(-n_rounds(30) // len(METHODS))  # of a method; every other one while a checkpoint is saved
N_RESUMED = n_rounds(20)
FILES = ("README.md", "adapter_config.json", "adapter_model.safetensors", "log.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny model and its SFT adapter are."""
    found = tmp_path_factory.mktemp("killed")
    tiny = save_tiny_model(found / "tiny")
    config = SFTConfig(n_epochs=1, batch_size=6, learning_rate=1e-2)
    train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=found / "sft")
    return found


@dataclass(frozen=True)
class Undisturbed:
    """A training that nobody killed: its method, where its adapter is, and how long its process took."""

    method: str
    output: Path
    seconds: float


@pytest.fixture(scope="module", params=METHODS)
def whole(request: pytest.FixtureRequest, folder: Path, processes: ForkServerContext) -> Undisturbed:
    """What a method trains undisturbed."""
    run_alone(processes, time.sleep, 0)  # starts the server of forks
    output, started = f"whole-{request.param}", time.monotonic()
    assert run_alone(processes, train_alone, folder, request.param, output, f"{output}-checkpoints") == 0
    return Undisturbed(request.param, folder / output, time.monotonic() - started)


def _assert_equal(one: Path, other: Path) -> None:
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_however_often_it_is_killed_the_weights_are_the_same(
    whole: Undisturbed, folder: Path, processes: ForkServerContext
) -> None:
    randomness, n_kills, n_lives = random.Random(13), 0, 0
    while n_kills < N_KILLS:
        n_lives += 1
        output = folder / f"{whole.method}-{n_lives}"
        training = (folder, whole.method, output.name, f"{output.name}-checkpoints")
        exitcode: int | None = -signal.SIGKILL
        for _ in range(randomness.randint(1, 3)):
            if exitcode == 0 or n_kills == N_KILLS:  # it came through before its time
                break
            if n_kills % 2 == 0:
                exitcode = run_alone(processes, train_and_be_killed, *training, randomness.randrange(12))
            else:
                lives = randomness.uniform(0, whole.seconds)
                exitcode = run_alone(processes, train_alone, *training, lives_seconds=lives)
            assert exitcode in (0, -signal.SIGKILL)
            n_kills += exitcode != 0
        if exitcode != 0:
            assert run_alone(processes, train_alone, *training) == 0
        assert (output / "resumed_from").read_text() in ("0", "8", "16")
        _assert_equal(output, whole.output)
    print(f"{whole.method}: {n_kills} kills in {n_lives} trainings, all equal")


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class StoppedError(Exception):
    """Raised in place of a killed process."""


def _stop(n_done: int, n_total: int) -> None:
    if n_done == 18:
        raise StoppedError


def test_a_checkpoint_with_any_damaged_file_is_refused_for_the_one_before(whole: Undisturbed, folder: Path) -> None:
    method, expected = whole.method, whole.output
    own = folder / f"checkpoints-{method}"
    with pytest.raises(StoppedError):
        train_alone(folder, method, f"part-{method}", own.name, _stop)
    before, newest = own / "checkpoint-8", own / "checkpoint-16"
    identity = json.loads((newest / "capo_seal.json").read_text())["identity"]
    assert newest_intact_checkpoint(own, identity) == newest
    names = sorted(path.name for path in newest.iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {
        *names
    }
    damages = [(name, harm) for name in names for harm in (_remove, _truncate, _flip)]
    resumed = set(random.Random(13).sample(range(len(damages)), min(len(damages), N_RESUMED // len(METHODS))))
    shutil.copytree(own, folder / f"copy-{method}")
    for number, (name, harm) in enumerate(damages):
        shutil.rmtree(own)
        shutil.copytree(folder / f"copy-{method}", own)
        harm(newest / name)
        assert newest_intact_checkpoint(own, identity) == before, (name, harm)
        if number in resumed:
            train_alone(folder, method, f"part-{method}", own.name)
            assert (folder / f"part-{method}" / "resumed_from").read_text() == "8"
            _assert_equal(folder / f"part-{method}", expected)
