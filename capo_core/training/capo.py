"""CAPO: preference optimisation between annotators, from a supervised adapter on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from capo_core.models import check_adapter, choose_device, load_tokenizer
from capo_core.progress import Progress, silent
from capo_core.quiet import quiet_libraries
from capo_core.seeding import isolated_rng
from schemas.artifacts import ModelRef
from schemas.training import AdapterConfig, CAPOConfig, ModelConfig

if TYPE_CHECKING:
    from capo_core.training.collate import EncodedCorpus
    from capo_core.training.job import CAPOJob
    from capo_core.training.log import TrainingResult


def train_capo(
    preferences: pl.DataFrame,
    model: ModelRef,
    model_config: ModelConfig,
    adapter: AdapterConfig,
    config: CAPOConfig,
    *,
    sft_adapter_dir: Path,
    reference: pl.DataFrame | None = None,
    seed: int,
    output_dir: Path,
    checkpoint_dir: Path | None = None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train the SFT adapter further on preferences and return the log and counts; the adapter is left in `output_dir`.

    The loss is the mean over groups (one prompt, one chosen response, k rejected) of a preference loss (`loss.LOSSES`),
    plus sft_weight times the mean negative log-likelihood per token of the chosen. The reference is the SFT adapter
    itself. With `rewind` the weights handed on go back that far towards it; the log describes them before. Where
    several GPUs are visible, or `config.n_processes` says so, new processes train together and this one waits for them.

    Args:
        preferences: PREFERENCES frame, of one target annotator or of several.
        model: base model.
        model_config: dtype and device.
        adapter: LoRA settings; rank and scale must be those of the SFT adapter.
        config: optimisation settings, β and the weight of the anchor.
        sft_adapter_dir: folder of the adapter to start from.
        reference: of `reference.compute_reference`; None computes it here. TRL computes its own.
        seed: of dropout and order.
        output_dir: holds `adapter_model.safetensors`, `adapter_config.json` and `README.md` afterwards.
        checkpoint_dir: scratch folder from whose checkpoints an interrupted run goes on; the caller's to delete.
        progress: called with the step and the number of steps.

    Raises:
        TrainingError: if there is nothing to train on, policy and reference differ at the start, the loss is not
            finite, or the grouped layout does not hold for this model.
        ModelError: if the model or the SFT adapter cannot be loaded.
    """
    from capo_core.training.job import CAPOJob
    from capo_core.training.launch import count_gpus, count_machines, processes_to_start, train_in_processes

    check_adapter(model, sft_adapter_dir)
    job = CAPOJob(
        model=model, settings=model_config, adapter=adapter, config=config, sft_adapter_dir=sft_adapter_dir,
        seed=seed, output_dir=output_dir, checkpoint_dir=checkpoint_dir,
    )  # fmt: skip
    n_processes = processes_to_start(config, count_gpus(choose_device(model_config.device)), count_machines())
    if n_processes:
        tables = {"data": preferences} if reference is None else {"data": preferences, "reference": reference}
        return train_in_processes(job, tables, n_processes, progress)
    return _train(preferences, job, reference, progress)


def _train(
    preferences: pl.DataFrame, job: CAPOJob, reference: pl.DataFrame | None, progress: Progress
) -> TrainingResult:
    """Train in this process, alone or as one of several; the first leaves the adapter."""
    from capo_core.training.adapters import checkpoint_activations, hash_weights, open_adapter
    from capo_core.training.checkpoints import run_identity
    from capo_core.training.collate import encode_preferences
    from capo_core.training.log import summarise
    from capo_core.training.ranks import own_rank
    from capo_core.training.run import checkpoint_folder, run_trainer, trainer_settings
    from capo_core.training.sharding import shares_layers
    from capo_core.versions import library_versions

    config, seed = job.config, job.seed
    tokenizer = load_tokenizer(job.model)
    corpus = encode_preferences(preferences, tokenizer, config)
    identity = run_identity(
        method="capo",
        data=corpus.digest(),
        model=job.model.fingerprint,
        start=hash_weights(job.sft_adapter_dir),
        settings=[job.settings.model_dump(), job.adapter.model_dump(), config.cache_identity()],
        seed=seed,
        libraries=library_versions(),
    )
    with isolated_rng(seed), quiet_libraries(), checkpoint_folder(job.checkpoint_dir, config) as (folder, save):
        about = (job.model, job.settings, job.adapter)
        trainable = open_adapter(*about, job.sft_adapter_dir, config.trainer, fsdp=shares_layers(config))
        if config.gradient_checkpointing:
            checkpoint_activations(trainable)
        batch_size = config.batch_size if config.trainer == "grouped" else _pairs_per_batch(corpus, config.batch_size)
        device = choose_device(job.settings.device)
        settings = trainer_settings(config, folder=folder, device=device, seed=seed, batch_size=batch_size, save=save)
        if config.trainer == "grouped":
            trainer = _prepare_grouped(trainable, corpus, config, settings, reference)
        else:
            trainer = _prepare_trl(trainable, tokenizer, corpus, config, settings, job.settings)
        resumed_from = run_trainer(trainer, config, identity, progress=progress)
    if own_rank() == 0:
        _save(trainable, job, sorted(preferences["annotator_id"].unique()))
    return summarise(trainer, corpus, resumed_from)


def _save(trained: Any, job: CAPOJob, annotators: list[str]) -> None:
    """Leave the adapter in the job's folder, rewound where configured."""
    from capo_core.training.adapters import describe_adapter, save_adapter
    from capo_core.training.rewinding import rewind_adapter

    card = describe_adapter("capo", job.model, job.adapter, job.config, annotators, job.seed)
    save_adapter(trained, job.output_dir, job.model.id, card)
    if job.config.rewind:
        rewind_adapter(job.sft_adapter_dir, job.output_dir, job.config.rewind, job.output_dir)


def _prepare_grouped(
    trainable: Any, corpus: EncodedCorpus, config: CAPOConfig, settings: dict[str, Any], reference: pl.DataFrame | None
) -> Any:
    """Return our trainer; the reference is that of the model as it is now."""
    from capo_core.training.grouped_trainer import grouped_trainer
    from capo_core.training.layout_check import check_layout
    from capo_core.training.objective import Objective
    from capo_core.training.reference import add_reference_logps, check_start, score_groups

    check_layout(trainable, max(corpus.train, key=lambda group: len(group.responses)))
    if reference is None:
        # In several processes each does all of it, which takes no longer than one doing it while the others wait.
        reference = score_groups(trainable, [*corpus.train, *corpus.validation], config.max_tokens_per_pass)
    referenced = replace(
        corpus,
        train=add_reference_logps(corpus.train, reference),
        validation=add_reference_logps(corpus.validation, reference),
    )
    check_start(trainable, referenced.train[: config.batch_size], config.max_tokens_per_pass)
    return grouped_trainer(trainable, referenced, Objective.of(config), config, settings)


def _prepare_trl(
    trainable: Any,
    tokenizer: Any,
    corpus: EncodedCorpus,
    config: CAPOConfig,
    settings: dict[str, Any],
    model_config: ModelConfig,
) -> Any:
    """Return TRL's trainer, which takes its reference from the model as it is now."""
    from capo_core.training.trl_reference import dpo_trainer

    return dpo_trainer(trainable, tokenizer, corpus, config, settings, bf16=model_config.dtype == "bfloat16")


def _pairs_per_batch(corpus: EncodedCorpus, n_groups: int) -> int:
    """Return how many pairs `n_groups` groups have on average: TRL counts its batches in pairs."""
    n_pairs = sum(len(group.rejected) for group in corpus.train)
    return max(1, round(n_groups * n_pairs / len(corpus.train)))
