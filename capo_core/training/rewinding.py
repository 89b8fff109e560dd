"""Checkpoint rewinding: a CAPO adapter moved part of the way back to the SFT adapter it started from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from capo_core.errors import TrainingError
from capo_core.models import read_adapter_settings
from capo_core.training.adapters import describe_shape

_WEIGHTS = "adapter_model.safetensors"
_SAME = (
    "base_model_name_or_path",
    "target_modules",
    "use_rslora",
    "use_cayley_neumann",
    "rank_pattern",
    "alpha_pattern",
)
_MAX_DEVIATION = 0.1


def rewind_adapter(sft_adapter_dir: Path, capo_adapter_dir: Path, share: float, output_dir: Path) -> None:
    """Write the adapter θ = (1 − share) θ_capo + share θ_sft, parameter by parameter.

    Interpolating between fine-tuned weights and those they started from trades what training gained (plasticity)
    against what it would have forgotten (stability): WiSE-FT (arXiv 2109.01903), for preference-tuned policies the
    last step of WARP (arXiv 2406.16768).

    - LoRA: the product of the interpolated B and A is not the interpolated product; it lacks
      share (1 − share) (B_capo − B_sft)(A_capo − A_sft), which is of second order in CAPO's step. In nine SFT–CAPO
      pairs of SmolLM2-135M (r = 16, CAPO at 5e-5, 210 matrices each), whose products CAPO had changed by up to 11
      per cent, that was at most 0.15 per cent of the mixture. The exact mixture would need rank 2 r.
    - DoRA: as LoRA, and the norms of the adapted matrix's rows are exactly the interpolated norms.
    - OFT: the generators of the rotations are interpolated, so the result is a rotation, which a mean of two is not.

    The card and the settings are the CAPO adapter's.

    Args:
        sft_adapter_dir: the adapter that CAPO started from.
        capo_adapter_dir: the trained one; with share 0 its weights are copied byte for byte.
        share: from 0 (CAPO) to 1 (SFT).
        output_dir: may be `capo_adapter_dir`.

    Raises:
        ModelError: if a folder has no adapter.
        TrainingError: if the share is out of range, the two adapters differ in type, rank, scale, target modules or
            base model, or are so far apart that one cannot have started from the other.
    """
    if not 0 <= share <= 1:
        raise TrainingError(f"capo.rewind = {share}: the share has to lie between 0 and 1")
    _check_alike(sft_adapter_dir, capo_adapter_dir)
    content = (capo_adapter_dir / _WEIGHTS).read_bytes()
    others = {name: capo_adapter_dir / name for name in ("adapter_config.json", "README.md")}
    texts = {name: path.read_bytes() for name, path in others.items() if path.is_file()}
    if share > 0:
        sft, capo = load((sft_adapter_dir / _WEIGHTS).read_bytes()), load(content)
        _check_distance(sft, capo, share, f"{capo_adapter_dir}: cannot be rewound to {sft_adapter_dir}")
        mixed = {name: torch.lerp(weight, sft[name], share) for name, weight in capo.items()}
        content = save(mixed, metadata={"format": "pt"})
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, data in {_WEIGHTS: content, **texts}.items():
        (output_dir / name).write_bytes(data)


def _check_alike(sft_adapter_dir: Path, capo_adapter_dir: Path) -> None:
    """Raise TrainingError unless the settings of both adapters allow a mixture."""
    sft, capo = (_comparable(read_adapter_settings(folder)) for folder in (sft_adapter_dir, capo_adapter_dir))
    differing = [f"{name}: {sft[name]} and {capo[name]}" for name in sft if sft[name] != capo[name]]
    if differing:
        raise TrainingError(
            f"{capo_adapter_dir}: cannot be rewound to {sft_adapter_dir}, they differ ({'; '.join(differing)}); "
            "give the SFT adapter that it started from"
        )


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    values = {"shape": describe_shape(settings)} | {name: settings.get(name) for name in _SAME}
    if isinstance(values["target_modules"], list):
        values["target_modules"] = sorted(values["target_modules"])
    return values


def _check_distance(
    sft: Mapping[str, torch.Tensor], capo: Mapping[str, torch.Tensor], share: float, problem: str
) -> None:
    """Raise TrainingError where tensors do not match, or B A of the mixture is not the mixture of B A.

    Adapters of which one started from the other stay far below the limit; pairs that had nothing but the random
    numbers of their beginning in common exceeded it in every matrix (14 per cent and more).
    """
    if {name: t.shape for name, t in sft.items()} != {name: t.shape for name, t in capo.items()}:
        raise TrainingError(f"{problem}: their tensors differ in name or shape; give the SFT adapter it started from")
    for name in sorted(capo):
        if name.endswith(".lora_A.weight"):
            other = name.replace(".lora_A.", ".lora_B.")
            deviation = _deviation(sft[other], sft[name], capo[other], capo[name], share)
            if deviation > _MAX_DEVIATION:
                raise TrainingError(
                    f"{problem}: {name.removesuffix('.lora_A.weight')} would be {deviation:.0%} off the mixture of the "
                    "two, so one cannot have started from the other; give the SFT adapter that it started from"
                )


def _deviation(b_sft: torch.Tensor, a_sft: torch.Tensor, b_capo: torch.Tensor, a_capo: torch.Tensor, s: float) -> float:
    """Return ‖s (1 − s) (B_capo − B_sft)(A_capo − A_sft)‖ / ‖(1 − s) B_capo A_capo + s B_sft A_sft‖, 0 for 0 / 0."""
    lacking = s * (1 - s) * _product_norm(b_capo - b_sft, a_capo - a_sft)
    mixture = _product_norm(torch.cat([(1 - s) * b_capo, s * b_sft], dim=1), torch.cat([a_capo, a_sft]))
    return 0.0 if lacking == 0 else lacking / mixture if mixture > 0 else math.inf


def _product_norm(b: torch.Tensor, a: torch.Tensor) -> float:
    """Return the Frobenius norm of B A, √tr(BᵀB · A Aᵀ), without making the product: (out, r), (r, in)."""
    b, a = b.double(), a.double()
    return math.sqrt(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))
