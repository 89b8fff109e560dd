"""What a figure was measured on, and how fast that can multiply at all."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch


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


def time_in_turns(contestants: dict[str, Callable[[], object]], n_rounds: int) -> dict[str, list[float]]:
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
