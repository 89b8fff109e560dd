"""One training in several processes: which of them this is, its share of a batch, and sums over all.

Where no process group was joined there is one process, its share is everything and every sum is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from capo_core.layout.prefix_tree import count_columns
from capo_core.training.batch import Family
from capo_core.training.objective import Sums


def in_process_group() -> bool:
    """Return whether this process is one of those that train together."""
    return dist.is_available() and dist.is_initialized()


def n_ranks() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if in_process_group() else 1


def own_rank() -> int:
    """Return the number of this process among them, from 0."""
    return dist.get_rank() if in_process_group() else 0


def join_process_group(device: str) -> None:
    """Join the processes that torchrun started, by gloo on CPU and NCCL on GPUs, each on a GPU of its own."""
    from accelerate import PartialState

    PartialState(cpu=device == "cpu", backend="gloo" if device == "cpu" else None)


def leave_process_group() -> None:
    """Leave the process group, if one was joined."""
    if in_process_group():
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Return when every process has come here."""
    if in_process_group():
        dist.barrier()


def share_families(families: Sequence[Family], rank: int, n: int) -> list[Family]:
    """Return the families that process `rank` of `n` computes, in the order given; none where there are fewer.

    The longest go first, each to the process with the fewest tokens so far (LPT scheduling, Graham 1969), because a
    step lasts as long as its slowest process.
    """
    if n == 1:
        return list(families)
    lengths = [count_columns(family) for family in families]
    loads, shares = [0] * n, [[] for _ in range(n)]
    for index in sorted(range(len(families)), key=lambda i: (-lengths[i], i)):
        least = loads.index(min(loads))
        loads[least] += lengths[index]
        shares[least].append(index)
    return [families[index] for index in sorted(shares[rank])]


def greatest_over_ranks(number: int) -> int:
    """Return the greatest of the processes' numbers, the same in each."""
    if n_ranks() == 1:
        return number
    # On the device that the group's backend (gloo or NCCL) computes on.
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    greatest = torch.tensor(number, device=device)
    dist.all_reduce(greatest, dist.ReduceOp.MAX)
    return int(greatest)


def sum_over_ranks(sums: Sums) -> Sums:
    """Return the sums over every process's groups, the same in each."""
    if n_ranks() == 1:
        return sums
    values = vars(sums)
    packed = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=sums.nll.device) for v in values.values()])
    dist.all_reduce(packed)
    added: dict[str, Any] = {
        name: total if isinstance(value, torch.Tensor) else round(float(total))
        for (name, value), total in zip(values.items(), packed, strict=True)
    }
    return Sums(**added)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every trained parameter's gradient by its sum over the processes, in one message.

    The batch's counts are in the loss already, so the sum is the gradient of the whole batch's mean. A process whose
    share of the batch was empty adds zeros.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if n_ranks() == 1:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
    dist.all_reduce(flat)
    for parameter, summed in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        parameter.grad = summed.view_as(parameter).to(parameter.dtype)
