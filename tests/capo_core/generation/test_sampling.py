"""Drawing over more tokens than one block: the same as a running sum over the whole vocabulary."""

from __future__ import annotations

import pytest
import torch

from capo_core.generation.sampling import Sampling, draw


def sampling(top_p: float = 1.0) -> Sampling:
    return Sampling(temperature=1.0, top_p=top_p, max_new_tokens=1, stop=frozenset())


@pytest.mark.parametrize("size", [255, 256, 257, 1000, 1024])
def test_blocks_draw_what_one_running_sum_draws(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = 3 * torch.randn(500, size, generator=generator)
    # in the middle of each token's interval, where rounding decides nothing
    running = torch.softmax(logits, dim=-1).double().cumsum(dim=-1)
    wanted = torch.randint(1, size, (500, 1), generator=generator)
    uniforms = ((running.gather(1, wanted - 1) + running.gather(1, wanted)) / 2 / running[:, -1:])[:, 0]
    clear = (running.gather(1, wanted) - running.gather(1, wanted - 1))[:, 0] > 1e-6
    assert clear.sum() > 200
    assert draw(logits, uniforms, sampling())[clear].tolist() == wanted[clear, 0].tolist()


def test_no_number_draws_an_impossible_token() -> None:
    # Only tokens 300 and 700 of 1000 are possible, with probability .5 each: first and last interval, other blocks.
    logits = torch.full((6, 1000), -torch.inf)
    logits[:, [300, 700]] = 0.0
    uniforms = torch.tensor([0.0, 0.4999, 0.5, 0.75, 1 - 1e-16, 1.0], dtype=torch.float64)
    assert draw(logits, uniforms, sampling()).tolist() == [300, 300, 700, 700, 700, 700]
    # The nucleus of .9: 700 has .98 and stands alone.
    logits[:, 700] = 4.0
    assert draw(logits, uniforms, sampling(top_p=0.9)).tolist() == [700] * 6


def test_logits_are_left_as_they_are() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    draw(logits, torch.tensor([0.5]), Sampling(temperature=0.5, top_p=1.0, max_new_tokens=1, stop=frozenset()))
    assert logits.tolist() == [[1.0, 2.0, 3.0]]
