"""What a figure was measured on, and how fast that can multiply at all."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from statistics import median

import torch

from tasks.memory import give_memory_back


def describe_machine() -> str:
    """Return processor or GPU, threads and versions in one line."""
    import transformers
    import trl

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else name_processor()
    return (
        f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"trl {trl.__version__}"
    )


def name_processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as handle:
            names = [line.partition(":")[2].strip() for line in handle if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def time_in_turns(contestants: Mapping[str, Callable[[], object]], n_rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round by contestant; they take turns, so that a slow minute hits all alike.

    One round before the first is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(n_rounds + 1):
        for name, run in contestants.items():
            synchronise()
            start = time.perf_counter()
            run()
            synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@contextmanager
def in_processes(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Callable[[], None]]]:
    """Give a function by contestant that runs it once in a process of its own, to be timed with `time_in_turns`.

    What a contestant leaves behind in memory would slow those after it: on a CPU by a third.

    Args:
        commands: by contestant; each calls `run_when_asked`.
    """
    with ExitStack() as stack:
        yield {
            name: _asking(name, stack.enter_context(_start(command))) for name, command in commands.items()
        }  # leaving closes their standard input, which ends them


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _asking(name: str, process: subprocess.Popen[str]) -> Callable[[], None]:
    asked, answers = process.stdin, process.stdout
    assert asked is not None
    assert answers is not None

    def run() -> None:
        try:
            print(file=asked, flush=True)
            answer = answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"{name} ended with {process.wait()}; what it said stands above")

    return run


def run_when_asked(run: Callable[[], object]) -> None:
    """Run once for every line of standard input, each answered with a line, until it ends.

    In between, those whose turn it is have the memory.
    """
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        for _ in sys.stdin:
            run()
            synchronise()
            print(file=answers, flush=True)
            give_memory_back()


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_rate(dtype: torch.dtype, device: str, sizes: Sequence[tuple[int, int, int]]) -> float:
    """Return floating-point operations per second of x Wᵀ over the given (rows, inputs, outputs), weighted by work."""
    seconds, work = 0.0, 0.0
    for rows, inputs, outputs in sizes:
        x = torch.randn(rows, inputs, dtype=dtype, device=device)
        w = torch.randn(outputs, inputs, dtype=dtype, device=device)
        n_calls = max(3, int(2e10 / (2 * rows * inputs * outputs)))

        def multiply(x: torch.Tensor = x, w: torch.Tensor = w, n_calls: int = n_calls) -> None:
            for _ in range(n_calls):
                torch.nn.functional.linear(x, w)

        seconds += median(time_in_turns({"": multiply}, 3)[""])
        work += 2.0 * rows * inputs * outputs * n_calls
    return work / seconds
