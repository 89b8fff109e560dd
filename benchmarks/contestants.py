"""The trainers compared by `benchmarks.trainer`, each a function that trains on the same groups once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

import capo_core
from benchmarks.pairwise_peer import PairwiseTrainer, pairs_of
from capo_core.config_file import load_config
from capo_core.corpora import read_corpus
from capo_core.layout.attention import FOLDED
from capo_core.models import load_model, load_tokenizer, resolve_model
from capo_core.preference_pairs import build_preferences
from capo_core.quiet import quiet_libraries
from capo_core.splits import assign_splits
from capo_core.training.batch import Family, families_per_batch, gather_families, split_into_parts
from capo_core.training.collate import EncodedCorpus, PreferenceGroup, encode_preferences
from capo_core.training.fused.layers import fuse_layers
from capo_core.training.objective import SUPERVISED, Objective, sum_losses
from capo_core.training.reference import add_reference_logps, score_groups
from capo_core.training.run import trainer_settings
from capo_core.training.trl_reference import dpo_trainer, sft_trainer
from schemas.config import ExperimentConfig
from schemas.training import CAPOConfig, SFTConfig
from tasks.storage.home import data_dir, model_cache

TRL_PAIRS = 8
"""Pairs in one of TRL's passes, its default; gradients add up to the batch of the others."""

CAPO = Objective(loss="sigmoid", sft_weight=0.2, beta=0.1)
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-1.7b": {"family": "qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "qwen3-4b": {"family": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "llama-3.2-3b": {"family": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                     "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256},
}  # fmt: skip
"""Shapes of larger models, with random weights: as fast as trained ones."""

_CONFIGS = Path(__file__).parent.parent / "deployments" / "configs"
_BUNDLED = Path(capo_core.__file__).parent / "corpora" / "example"


@dataclass(frozen=True)
class Setting:
    """What is measured: corpus, model, precision, device, sizes. Token budgets hold for every contestant."""

    corpus: str
    model: str
    dtype: str
    device: str
    checkpointing: bool
    n_items: int
    batch_groups: int
    max_tokens: int

    @property
    def config(self) -> ExperimentConfig:
        """The configuration whose corpus, prompts and model are used."""
        name = "example/nli-smollm2-135m" if self.corpus == "example" else f"{self.corpus}/smollm2-135m"
        return load_config(_CONFIGS / f"{name}.yaml")

    def tokenizer(self) -> Any:
        """Return SmolLM2's tokenizer, whatever the shape of the model."""
        return load_tokenizer(resolve_model(self.config.model.id, cache_dir=model_cache()))

    def annotations(self) -> pl.DataFrame:
        """Return the corpus's annotations."""
        config = self.config
        paths = [_BUNDLED / Path(p).name if p.startswith("bundled:") else data_dir() / p for p in config.corpus.paths]
        return read_corpus(paths, config.corpus.format, config.task).annotations

    def groups(self, *, tagged: bool) -> list[PreferenceGroup]:
        """Return the preference groups of all annotators on the first training items that all of them answered."""
        config = self.config
        corpus = assign_splits(self.annotations(), config.splits).filter(pl.col("split") == "train")
        annotators = sorted(corpus["annotator_id"].unique())
        answered = corpus.group_by("item_id").agg(n=pl.col("annotator_id").n_unique())
        complete = answered.filter(pl.col("n") == len(annotators))["item_id"].sort()
        kept = corpus.filter(pl.col("item_id").is_in(complete[: self.n_items].implode()))
        tag = "last" if tagged else None
        frames = [build_preferences(kept, a, config.task, config.pairs, tag=tag)[0] for a in annotators]
        return encode_preferences(pl.concat(frames), self.tokenizer(), config.capo).train

    def base(self, attention: str) -> Any:
        """Return the base model: the bundled weights, or random ones in a larger shape."""
        if self.model not in SHAPES:
            ref = resolve_model(self.config.model.id, cache_dir=model_cache())
            return load_model(ref, self.dtype, self.device, attention)  # pyright: ignore[reportArgumentType]
        from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

        shape = dict(SHAPES[self.model])
        kind = {"qwen3": Qwen3Config, "llama": LlamaConfig}[shape.pop("family")]
        config = kind(**shape, max_position_embeddings=4096, tie_word_embeddings=True)
        dtype = getattr(torch, self.dtype)
        with torch.device(self.device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).eval()


class Adapted:
    """A model with a fresh adapter and its optimiser."""

    def __init__(self, setting: Setting, attention: str) -> None:
        from peft import LoraConfig, get_peft_model

        with torch.random.fork_rng(), quiet_libraries():
            torch.manual_seed(13)
            lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            self.model: Any = get_peft_model(setting.base(attention), lora)
        if setting.checkpointing:
            self.model.enable_input_require_grads()
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trainable, lr=1e-5, fused=True)

    def step(self) -> None:
        """Clip, update, forget the gradients."""
        torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def capo_trainer(setting: Setting, groups: list[PreferenceGroup], objective: Objective) -> Callable[[], None]:
    """Return training with capo: one adapter per annotator if the groups are one annotator's, else one for all."""
    adapted = Adapted(setting, "flex_attention" if setting.device == "cuda" else FOLDED)
    fuse_layers(adapted.model)
    known = groups
    if objective.loss is not None:
        known = add_reference_logps(groups, score_groups(adapted.model, groups, setting.max_tokens))
    batches = fill_batches(gather_families(known), setting.batch_groups)

    def train() -> None:
        adapted.model.train()
        for batch in batches:
            parts = split_into_parts(batch, getattr(torch, setting.dtype), setting.max_tokens)
            n_groups, n_tokens = sum(len(part.groups) for part in parts), sum(part.n_chosen_tokens for part in parts)
            for part in parts:
                sums = sum_losses(adapted.model, part.to(setting.device), objective)
                sums.loss(objective, n_groups, n_tokens).backward()
            adapted.step()

    return train


def fill_batches(families: list[Family], n_groups: int) -> list[list[Family]]:
    """Return the families in batches of equal number with `n_groups` groups on average, as the trainer takes them."""
    n = families_per_batch(families, n_groups)
    return [families[i : i + n] for i in range(0, len(families), n)]


def capo_supervised(setting: Setting, groups: list[PreferenceGroup]) -> Callable[[], None]:
    """Return supervised training with capo on the chosen responses."""
    return capo_trainer(setting, [bare(group) for group in groups], SUPERVISED)


def bare(group: PreferenceGroup) -> PreferenceGroup:
    """Return the group with its chosen response alone."""
    return PreferenceGroup(group.prompt, group.responses[:1], group.key)


def pairwise_trainer(setting: Setting, groups: list[PreferenceGroup], attention: str) -> Callable[[], None]:
    """Return training pair by pair."""
    adapted = Adapted(setting, attention)
    trainer = PairwiseTrainer(adapted.model, setting.max_tokens, beta=CAPO.beta, sft_weight=CAPO.sft_weight)
    n = setting.batch_groups
    batches = [trainer.add_references(pairs_of(groups[i : i + n])) for i in range(0, len(groups), n)]

    def train() -> None:
        adapted.model.train()
        for batch in batches:
            trainer.backward(batch)
            adapted.step()

    return train


def trl_capo(setting: Setting, groups: list[PreferenceGroup]) -> Callable[[], None]:
    """Return training with TRL's DPOTrainer: passes of similar length, precomputed references, mixed precision."""
    adapted = Adapted(setting, "sdpa")
    config = CAPOConfig(beta=CAPO.beta, sft_weight=CAPO.sft_weight)
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        settings = _trl_settings(setting, config, Path(folder), TRL_PAIRS)
        half = setting.dtype == "bfloat16"
        corpus = EncodedCorpus(groups)
        trainer: Any = dpo_trainer(adapted.model, setting.tokenizer(), corpus, config, settings, bf16=half)
    rows = sorted(trainer.train_dataset, key=lambda row: sum(map(len, row.values())))
    passes = []
    for start in range(0, len(rows), TRL_PAIRS):
        batch = trainer._prepare_inputs(trainer.data_collator(rows[start : start + TRL_PAIRS]))
        with torch.no_grad():
            chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
        passes.append({**batch, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected})
    trainer.precompute_ref_logps = True
    per_step = setting.batch_groups * len(rows) / len(groups) / TRL_PAIRS
    return _trl_training(trainer, adapted, passes, round(per_step))


def trl_supervised(setting: Setting, groups: list[PreferenceGroup], max_length: int) -> Callable[[], None]:
    """Return training with TRL's SFTTrainer, responses packed into rows of `max_length` tokens."""
    from datasets import disable_progress_bars

    disable_progress_bars()  # of packing
    adapted = Adapted(setting, "sdpa")
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        settings = _trl_settings(setting, SFTConfig(), Path(folder), 1)
        packing = {"packing": True, "max_length": max_length}
        trainer: Any = sft_trainer(
            adapted.model, setting.tokenizer(), EncodedCorpus([bare(group) for group in groups]), settings,
            bf16=setting.dtype == "bfloat16", **packing,
        )  # fmt: skip
    batches = [trainer._prepare_inputs(trainer.data_collator([row])) for row in trainer.train_dataset]
    return _trl_training(trainer, adapted, batches, 1)


def _trl_settings(setting: Setting, config: SFTConfig | CAPOConfig, folder: Path, batch_size: int) -> dict[str, Any]:
    return trainer_settings(config, folder=folder, device=setting.device, seed=1, batch_size=batch_size, save=False) | {
        "gradient_checkpointing": setting.checkpointing
    }


def _trl_training(
    trainer: Any, adapted: Adapted, passes: list[dict[str, Any]], passes_per_step: int
) -> Callable[[], None]:
    def train() -> None:
        trainer.model.train()
        for number, batch in enumerate(passes, start=1):
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, dict(batch))
            loss.backward()
            if number % passes_per_step == 0 or number == len(passes):
                adapted.step()

    return train
