"""Supervised fine-tuning: one adapter on the responses of one annotator, or of several told apart by a tag."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from capo_core.models import choose_device, load_tokenizer
from capo_core.progress import Progress, silent
from capo_core.quiet import quiet_libraries
from capo_core.seeding import isolated_rng
from schemas.artifacts import ModelRef
from schemas.training import AdapterConfig, ModelConfig, SFTConfig

if TYPE_CHECKING:
    from capo_core.training.collate import EncodedCorpus
    from capo_core.training.job import SFTJob
    from capo_core.training.log import TrainingResult


def train_sft(
    demonstrations: pl.DataFrame,
    model: ModelRef,
    model_config: ModelConfig,
    adapter: AdapterConfig,
    config: SFTConfig,
    *,
    start_dir: Path | None = None,
    seed: int,
    output_dir: Path,
    checkpoint_dir: Path | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Fine-tune an adapter, fresh or begun, and return the log and counts; it is left in `output_dir`.

    The loss is the mean negative log-likelihood per response token, the token that ends the turn included. The
    validation split is measured before the first step and after every epoch. Where several GPUs are visible, or
    `config.n_processes` says so, new processes train together and this one waits for them.

    Args:
        demonstrations: DEMONSTRATIONS frame, of one annotator or of several.
        model: base model.
        model_config: dtype and device.
        adapter: LoRA settings.
        config: optimisation settings.
        start_dir: folder of the adapter to go on with, of the same settings; None begins with a fresh one.
        seed: of the adapter's initial weights, dropout and order.
        output_dir: holds `adapter_model.safetensors`, `adapter_config.json` and `README.md` afterwards.
        checkpoint_dir: scratch folder from whose checkpoints an interrupted run goes on; the caller's to delete.
        progress: called with the step and the number of steps.

    Raises:
        TrainingError: if there is nothing to train on, the loss is not finite, or the grouped layout does not hold
            for this model.
        ModelError: if the model, or the adapter to go on with, cannot be loaded.
    """
    from capo_core.training.job import SFTJob
    from capo_core.training.launch import count_gpus, count_machines, processes_to_start, train_in_processes

    job = SFTJob(
        model=model, settings=model_config, adapter=adapter, config=config, start_dir=start_dir, seed=seed,
        output_dir=output_dir, checkpoint_dir=checkpoint_dir,
    )  # fmt: skip
    n_processes = processes_to_start(config, count_gpus(choose_device(model_config.device)), count_machines())
    if n_processes:
        return train_in_processes(job, {"data": demonstrations}, n_processes, progress)
    return _train(demonstrations, job, progress)


def _train(demonstrations: pl.DataFrame, job: SFTJob, progress: Progress) -> TrainingResult:
    """Train in this process, alone or as one of several; the first leaves the adapter."""
    from capo_core.training.adapters import (
        checkpoint_activations,
        describe_adapter,
        hash_weights,
        new_adapter,
        open_adapter,
        save_adapter,
    )
    from capo_core.training.checkpoints import run_identity
    from capo_core.training.collate import encode_demonstrations
    from capo_core.training.log import summarise
    from capo_core.training.ranks import own_rank
    from capo_core.training.run import checkpoint_folder, run_trainer, trainer_settings
    from capo_core.training.sharding import shares_layers
    from capo_core.versions import library_versions

    config = job.config
    tokenizer = load_tokenizer(job.model)
    corpus = encode_demonstrations(demonstrations, tokenizer, config)
    identity = run_identity(
        method="sft",
        data=corpus.digest(),
        model=job.model.fingerprint,
        start=hash_weights(job.start_dir) if job.start_dir else None,
        settings=[job.settings.model_dump(), job.adapter.model_dump(), config.cache_identity()],
        seed=job.seed,
        libraries=library_versions(),
    )
    with isolated_rng(job.seed), quiet_libraries(), checkpoint_folder(job.checkpoint_dir, config) as (folder, save):
        about = (job.model, job.settings, job.adapter)
        fsdp = shares_layers(config)
        trainable = (
            open_adapter(*about, job.start_dir, config.trainer, fsdp=fsdp)
            if job.start_dir
            else new_adapter(*about, config.trainer, fsdp=fsdp)
        )
        if config.gradient_checkpointing:
            checkpoint_activations(trainable)
        device = choose_device(job.settings.device)
        settings = trainer_settings(
            config, folder=folder, device=device, seed=job.seed, batch_size=config.batch_size, save=save
        )
        trainer = _prepare(trainable, tokenizer, corpus, config, settings, bf16=job.settings.dtype == "bfloat16")
        resumed_from = run_trainer(trainer, config, identity, progress=progress)
    if own_rank() == 0:
        annotators = sorted(demonstrations["annotator_id"].unique())
        card = describe_adapter("sft", job.model, job.adapter, config, annotators, job.seed)
        save_adapter(trainable, job.output_dir, job.model.id, card)
    return summarise(trainer, corpus, resumed_from)


def _prepare(
    trainable: Any, tokenizer: Any, corpus: EncodedCorpus, config: SFTConfig, settings: dict[str, Any], *, bf16: bool
) -> Any:
    """Return the configured trainer."""
    if config.trainer == "trl":
        from capo_core.training.trl_reference import sft_trainer

        return sft_trainer(trainable, tokenizer, corpus, settings, bf16=bf16)
    from capo_core.training.grouped_trainer import grouped_trainer
    from capo_core.training.layout_check import check_layout
    from capo_core.training.objective import SUPERVISED

    check_layout(trainable, corpus.train[0])
    return grouped_trainer(trainable, corpus, SUPERVISED, config, settings)
