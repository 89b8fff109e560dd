"""SFT adapters from demonstrations; from them and preferences the reference and CAPO adapters."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial

from capo_core.training.capo import train_capo
from capo_core.training.sft import train_sft
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.training import AdapterConfig, CAPOConfig, ModelConfig, SFTConfig, TokenLimits
from tasks.step import Step, step

SHARED = "shared"
"""Target of an adapter that serves every annotator."""


@step("train-sft", version=3, uses_models=True)
def train_sft_adapter(
    step: Step,
    demonstrations: list[ArtifactRef],
    target: str,
    base: ModelRef,
    model: ModelConfig,
    adapter: AdapterConfig,
    sft: SFTConfig,
    seed: int,
    start: ArtifactRef | None = None,
) -> ArtifactRef:
    """Return the adapter fine-tuned on the target's responses, a fresh one or from `start` on."""
    train = partial(
        train_sft, step.read_all(demonstrations), base, model, adapter, sft,
        start_dir=step.folder(start) if start else None, seed=seed,
    )  # fmt: skip
    return _store_adapter(step, train, {"method": "sft", "target": target, "seed": seed})


@step("reference", version=2, uses_models=True)
def score_reference(
    step: Step,
    preferences: list[ArtifactRef],
    sft_adapter: ArtifactRef,
    target: str,
    base: ModelRef,
    model: ModelConfig,
    adapter: AdapterConfig,
    limits: TokenLimits,
    seed: int,
) -> ArtifactRef:
    """Return the SFT adapter's log-probability of every response of the preferences."""
    from capo_core.training.reference import compute_reference

    frame = compute_reference(
        step.read_all(preferences), base, model, adapter, limits,
        sft_adapter_dir=step.folder(sft_adapter), progress=step.progress,
    )  # fmt: skip
    return step.write("reference", {"data.parquet": frame}, metadata={"target": target, "seed": seed})


@step("train-capo", version=3, uses_models=True)
def train_capo_adapter(
    step: Step,
    preferences: list[ArtifactRef],
    sft_adapter: ArtifactRef,
    reference: ArtifactRef | None,
    target: str,
    base: ModelRef,
    model: ModelConfig,
    adapter: AdapterConfig,
    capo: CAPOConfig,
    seed: int,
) -> ArtifactRef:
    """Return the adapter that prefers the target's responses over the other annotators', from the SFT adapter on."""
    train = partial(
        train_capo,
        step.read_all(preferences),
        base,
        model,
        adapter,
        capo,
        sft_adapter_dir=step.folder(sft_adapter),
        reference=step.read(reference) if reference else None,
        seed=seed,
    )
    return _store_adapter(step, train, {"method": "capo", "target": target, "seed": seed})


def _store_adapter(step: Step, train: partial, identity: dict) -> ArtifactRef:
    """Train into a scratch folder, resuming from its checkpoints if a run was cut short, and store what came out."""
    output = step.scratch / "adapter"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    result = train(output_dir=output, checkpoint_dir=step.scratch / "checkpoints", progress=step.progress)
    step.log_training(result.log)
    counts = {name: value for name, value in asdict(result).items() if isinstance(value, int)}
    step.log_metrics({name: float(value) for name, value in counts.items()})
    del counts["resumed_from_step"]  # how it came about; a run that was killed leaves the same artifact
    ref = step.write(
        "adapter",
        {"training_log.parquet": result.log},
        fill=lambda folder: shutil.copytree(output, folder, dirs_exist_ok=True),
        metadata={**identity, **counts},
    )
    shutil.rmtree(step.scratch)
    return ref
