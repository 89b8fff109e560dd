"""Adapters beside the weights, chosen by row, do what each does merged into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_material import KINDS
from served_material import make_adapter
from tiny_model import BFLOAT16, FLOAT32, one_thread, save_tiny_model

from capo_core.errors import ModelError
from capo_core.generation.mixed_adapters import Route, load_mixed
from capo_core.models import load_policy
from schemas.artifacts import ModelRef

__all__ = ["one_thread"]

ORDER = (*KINDS, "lora")
ROWS = (0, 1, 2, 3, 3, 2, 1, 0, 2)


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny model with biases in half of its layers."""
    return save_tiny_model(tmp_path_factory.mktemp("biased"), attention_bias=True, initializer_range=0.2)


@pytest.fixture(scope="module")
def adapters(biased: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [make_adapter(biased, kind, place + 1, tmp_path_factory.mktemp(kind)) for place, kind in enumerate(ORDER)]


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    n = ids.shape[1]
    mask = torch.full((1, 1, n, n), torch.finfo(model.dtype).min, dtype=model.dtype).triu(1)
    with torch.inference_mode():
        return model(ids, attention_mask=mask).logits.float()


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(2, 258, (len(ROWS), 7), generator=torch.Generator().manual_seed(1))


def test_each_row_goes_through_its_own_adapter_of_any_kind(
    biased: ModelRef, adapters: list[Path], ids: torch.Tensor
) -> None:
    model, route = load_mixed(biased, FLOAT32, adapters)
    plain = logits(load_policy(biased, FLOAT32, None), ids)
    route.send(ROWS)
    mixed = logits(model, ids)
    for place, folder in enumerate(adapters):
        own = [row for row, adapter in enumerate(ROWS) if adapter == place]
        merged = logits(load_policy(biased, FLOAT32, folder), ids[own])
        route.send([place])
        assert (merged - plain[own]).abs().max() > 0.5
        torch.testing.assert_close(mixed[own], merged, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(logits(model, ids[own]), merged, atol=2e-5, rtol=1e-4)


def test_in_bfloat16_rows_are_as_near_to_the_exact_ones_as_merged_weights_bring_them(
    biased: ModelRef, adapters: list[Path], ids: torch.Tensor
) -> None:
    model, route = load_mixed(biased, BFLOAT16, adapters)
    route.send(ROWS)
    mixed = logits(model, ids)
    for place, folder in enumerate(adapters):
        own = [row for row, adapter in enumerate(ROWS) if adapter == place]
        exact = logits(load_policy(biased, FLOAT32, folder), ids[own])
        merged = logits(load_policy(biased, BFLOAT16, folder), ids[own])
        assert (mixed[own] - exact).square().mean() < 1.5 * (merged - exact).square().mean()


def test_an_adapter_alone_and_a_route_without_change() -> None:
    route = Route(torch.device("cpu"))
    route.send([2, 0, 2])
    assert route.only is None
    assert route.mask((1, 2, 2))[:, 0].tolist() == [
        [False, False, False, True, True],
        [True, False, False, False, False],
        [False, False, False, True, True],
    ]
    kept = route.rows
    route.send([2, 0, 2])
    assert route.rows is kept
    route.send([1, 1])
    assert route.only == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modules_to_save": ["lm_head"]}, "more than linear layers .modules_to_save"),
        ({"bias": "all"}, "more than linear layers .bias"),
        ({"base_model_name_or_path": "another"}, "belongs to another"),
    ],
)
def test_what_cannot_be_chosen_by_row_is_refused(
    biased: ModelRef, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    folder = make_adapter(biased, "lora", 1, tmp_path)
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(settings | change), encoding="utf-8")
    with pytest.raises(ModelError, match=says):
        load_mixed(biased, FLOAT32, [folder])
