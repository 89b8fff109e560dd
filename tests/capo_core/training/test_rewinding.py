"""Rewinding: between the CAPO adapter and the SFT adapter that it started from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_material import KINDS, adapter_config, perturb, trained_adapter, write_adapter
from safetensors.torch import load_file, save_file
from tiny_model import FLOAT32, one_thread, tiny

from capo_core.errors import ModelError, TrainingError
from capo_core.models import load_model, load_policy
from capo_core.training.adapters import open_adapter
from capo_core.training.rewinding import rewind_adapter
from schemas.artifacts import ModelRef

__all__ = ["one_thread", "tiny"]

SETTINGS: dict[str, Any] = {
    "base_model_name_or_path": "tiny",
    "lora_alpha": 1,
    "peft_type": "LORA",
    "r": 1,
    "target_modules": ["k_proj", "q_proj"],
    "use_dora": False,
}
FILES = ("README.md", "adapter_config.json", "adapter_model.safetensors")


def write_rank_one(folder: Path, b: float, a: float, **changes: Any) -> Path:
    """Write an adapter of one matrix with one element: B = (b), A = (a)."""
    folder.mkdir()
    save_file(
        {"q_proj.lora_A.weight": torch.tensor([[a]]), "q_proj.lora_B.weight": torch.tensor([[b]])},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | changes))
    (folder / "README.md").write_text(f"card of {folder.name}")
    return folder


def product(folder: Path) -> float:
    weights = load_file(folder / "adapter_model.safetensors")
    return float(weights["q_proj.lora_B.weight"] @ weights["q_proj.lora_A.weight"])


def trained_pair(tiny: ModelRef, kind: str, folder: Path) -> tuple[Path, Path]:
    """Return an SFT adapter and one that went on from it, a tenth as far again."""
    model = trained_adapter(tiny, adapter_config(kind))
    sft = write_adapter(model, adapter_config(kind), tiny, folder / "sft")
    perturb(model, 0.005, 9)
    return sft, write_adapter(model, adapter_config(kind), tiny, folder / "capo")


def matrices(tiny: ModelRef, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights with the adapter merged."""
    return {name: p.detach() for name, p in load_policy(tiny, FLOAT32, folder).named_parameters() if "_proj" in name}


def test_share_zero_leaves_every_byte(tmp_path: Path) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 1.0, 1.0), write_rank_one(tmp_path / "capo", 1.1, 1.1)
    (capo / "training_log.parquet").write_text("not part of the adapter")
    rewind_adapter(sft, capo, 0.0, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (capo / name).read_bytes()


def test_parameters_are_interpolated_and_card_and_settings_kept(tmp_path: Path) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 2.0, 1.0), write_rank_one(tmp_path / "capo", 4.0, 1.0)
    rewind_adapter(sft, capo, 0.25, tmp_path / "out")
    # A is the same, so the mixture of the products is exact: 0.75 · 4 + 0.25 · 2
    assert product(tmp_path / "out") == pytest.approx(3.5, abs=1e-6)
    assert (tmp_path / "out" / "README.md").read_text() == "card of capo"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text()) == SETTINGS


def test_the_product_lacks_only_the_second_order_term(tmp_path: Path) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 2.0, 2.0), write_rank_one(tmp_path / "capo", 2.2, 2.2)
    rewind_adapter(sft, capo, 0.5, tmp_path / "out")
    # products 4 and 4.84, mean 4.42; 2.1 · 2.1 = 4.41 = 4.42 − 0.5 · 0.5 · 0.2 · 0.2
    assert product(tmp_path / "out") == pytest.approx(4.41, abs=1e-5)


def test_adapters_without_a_common_start_are_refused(tmp_path: Path) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 1.0, 1.0), write_rank_one(tmp_path / "capo", 3.0, 3.0)
    # 0.5 · 0.5 · 2 · 2 = 1 is lacking from (1 + 9) / 2 = 5
    with pytest.raises(TrainingError, match="q_proj would be 20% off the mixture of the two"):
        rewind_adapter(sft, capo, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # at share 0.01 it is 0.01 · 0.99 · 4 = 0.04 of 8.92
    rewind_adapter(sft, capo, 0.01, tmp_path / "out")
    opposite = write_rank_one(tmp_path / "opposite", -1.0, 1.0)
    # B is opposite, A the same: the mixture is 0 and nothing is lacking
    rewind_adapter(sft, opposite, 0.5, tmp_path / "out")
    assert product(tmp_path / "out") == 0.0


def test_adapters_of_different_starts_are_refused(tiny: ModelRef, tmp_path: Path) -> None:
    first, second = (
        write_adapter(
            trained_adapter(tiny, adapter_config("lora"), start=start), adapter_config("lora"), tiny,
            tmp_path / str(start),
        )
        for start in (1, 2)
    )  # fmt: skip
    with pytest.raises(TrainingError, match="give the SFT adapter that it started from"):
        rewind_adapter(first, second, 0.5, tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_share_one_is_the_sft_adapter_and_near_one_is_near_it(tiny: ModelRef, tmp_path: Path, kind: str) -> None:
    sft, capo = trained_pair(tiny, kind, tmp_path)
    rewind_adapter(sft, capo, 1.0, tmp_path / "whole")
    weights = load_file(sft / "adapter_model.safetensors")
    for name, weight in load_file(tmp_path / "whole" / "adapter_model.safetensors").items():
        assert torch.equal(weight, weights[name]), name
    rewind_adapter(sft, capo, 0.999, tmp_path / "nearly")
    ids = torch.arange(2, 42).reshape(2, 20)
    with torch.no_grad():
        logits = [load_policy(tiny, FLOAT32, folder)(ids).logits for folder in (sft, tmp_path / "nearly", capo)]
    assert float((logits[1] - logits[0]).norm() / (logits[2] - logits[0]).norm()) < 2e-3


@pytest.mark.parametrize("kind", KINDS)
def test_weights_lie_between_those_of_both(tiny: ModelRef, tmp_path: Path, kind: str) -> None:
    sft, capo = trained_pair(tiny, kind, tmp_path)
    rewind_adapter(sft, capo, 0.5, tmp_path / "half")
    # capable of being trained on: rank, scale and type are as configured
    open_adapter(tiny, FLOAT32, adapter_config(kind), tmp_path / "half", "grouped")
    start, half, end = (matrices(tiny, folder) for folder in (sft, tmp_path / "half", capo))
    for name, weight in half.items():
        mean = (start[name] + end[name]) / 2
        # the step is a tenth of what came before, so what is of second order is at most about a tenth of the step
        assert float((weight - mean).norm() / (end[name] - start[name]).norm()) < 0.1, name


def test_rewound_rotations_are_rotations(tiny: ModelRef, tmp_path: Path) -> None:
    sft, capo = trained_pair(tiny, "oft", tmp_path)
    rewind_adapter(sft, capo, 0.5, tmp_path / "half")
    rotated = matrices(tiny, tmp_path / "half")
    for name, weight in load_model(tiny, "float32", "cpu", "sdpa").named_parameters():
        if name in rotated:
            assert torch.allclose(rotated[name] @ rotated[name].T, weight @ weight.T, atol=1e-5), name


def test_rewound_dora_rows_have_the_interpolated_norms(tiny: ModelRef, tmp_path: Path) -> None:
    sft, capo = trained_pair(tiny, "dora", tmp_path)
    rewind_adapter(sft, capo, 0.25, tmp_path / "out")
    start, mixed, end = (matrices(tiny, folder) for folder in (sft, tmp_path / "out", capo))
    for name, weight in mixed.items():
        expected = 0.25 * start[name].norm(dim=1) + 0.75 * end[name].norm(dim=1)
        assert torch.allclose(weight.norm(dim=1), expected, rtol=1e-5), name


def test_the_folder_of_the_capo_adapter_may_be_the_output(tmp_path: Path) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 2.0, 1.0), write_rank_one(tmp_path / "capo", 4.0, 1.0)
    rewind_adapter(sft, capo, 0.5, capo)
    assert product(capo) == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "shape: r = 1, alpha = 1, type = lora and r = 1, alpha = 1, type = dora"),
        ({"r": 2}, "shape: r = 1, .* and r = 2,"),
        ({"lora_alpha": 2}, "alpha = 1, type = lora and r = 1, alpha = 2,"),
        ({"use_rslora": True}, "use_rslora: None and True"),
        ({"target_modules": ["q_proj"]}, r"target_modules: \['k_proj', 'q_proj'\] and \['q_proj'\]"),
        ({"base_model_name_or_path": "other"}, "base_model_name_or_path: tiny and other"),
    ],
)
def test_adapters_that_are_not_alike_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 1.0, 1.0), write_rank_one(tmp_path / "capo", 1.0, 1.0, **changes)
    with pytest.raises(TrainingError, match=message):
        rewind_adapter(sft, capo, 0.5, tmp_path / "out")


def test_the_order_of_target_modules_does_not_matter(tmp_path: Path) -> None:
    sft = write_rank_one(tmp_path / "sft", 1.0, 1.0, target_modules=["q_proj", "k_proj"])
    rewind_adapter(sft, write_rank_one(tmp_path / "capo", 1.2, 1.0), 0.5, tmp_path / "out")
    assert product(tmp_path / "out") == pytest.approx(1.1, abs=1e-6)


def test_tensors_that_do_not_match_are_refused(tmp_path: Path) -> None:
    sft, capo = write_rank_one(tmp_path / "sft", 1.0, 1.0), write_rank_one(tmp_path / "capo", 1.0, 1.0)
    save_file({"q_proj.lora_A.weight": torch.ones(1, 2)}, sft / "adapter_model.safetensors")
    with pytest.raises(TrainingError, match="their tensors differ in name or shape"):
        rewind_adapter(sft, capo, 0.5, tmp_path / "out")


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(TrainingError, match=r"capo\.rewind = .*: the share has to lie between 0 and 1"):
        rewind_adapter(tmp_path, tmp_path, share, tmp_path / "out")


def test_a_folder_without_adapter_is_refused(tmp_path: Path) -> None:
    sft = write_rank_one(tmp_path / "sft", 1.0, 1.0)
    with pytest.raises(ModelError, match="train the adapter first"):
        rewind_adapter(sft, tmp_path, 0.5, tmp_path / "out")
