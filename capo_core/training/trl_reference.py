"""TRL's SFTTrainer and DPOTrainer behind the same configuration: what the grouped trainer is held against.

Both get our tokens, so that prompts, cuts and the end of a turn are the same. What differs by TRL's design: a pair is
the unit of a batch (an item with more annotators weighs more), the prompt is computed twice per pair, and validation
figures are means over batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from capo_core.errors import TrainingError
from capo_core.training.collate import EncodedCorpus, PreferenceGroup
from schemas.training import CAPOConfig

# Full precision for float32 models; mixed for bfloat16 ones, the adapter staying in float32.
_COMMON: dict[str, Any] = {"gradient_checkpointing": False, "max_length": None}


class _TokenisedDPOTrainer(DPOTrainer):
    """TRL's DPOTrainer on rows of tokens instead of text."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def sft_trainer(
    model: Any, tokenizer: Any, corpus: EncodedCorpus, settings: dict[str, Any], *, bf16: bool, **changes: Any
) -> SFTTrainer:
    """Return TRL's SFTTrainer over the corpus's chosen responses, the loss on their tokens alone.

    Args:
        model: PEFT model.
        tokenizer: of the base model.
        corpus: groups of tokens.
        settings: from `run.trainer_settings`.
        bf16: mixed precision.
        changes: of TRL's own settings, e.g. packing.
    """
    arguments: dict[str, Any] = {
        **_COMMON,
        "bf16": bf16,
        "dataset_kwargs": {"skip_prepare_dataset": not changes.get("packing")},
        "eval_strategy": "epoch" if corpus.validation else "no",
    }
    return SFTTrainer(
        model=model,
        args=SFTConfig(**(arguments | settings | changes)),
        train_dataset=_demonstrations(corpus.train),
        eval_dataset=_demonstrations(corpus.validation) if corpus.validation else None,
        processing_class=tokenizer,
    )


def dpo_trainer(
    model: Any, tokenizer: Any, corpus: EncodedCorpus, config: CAPOConfig, settings: dict[str, Any], *, bf16: bool
) -> DPOTrainer:
    """Return TRL's DPOTrainer over the corpus's pairs; the reference is a frozen copy of the model's adapter.

    Args:
        model: PEFT model with the SFT adapter.
        tokenizer: of the base model.
        corpus: groups of tokens.
        config: β and the weight of the SFT anchor.
        settings: from `run.trainer_settings`.
        bf16: mixed precision.

    Raises:
        TrainingError: if pairs of a group weigh differently.
    """
    _refuse_uneven_weights(corpus)
    arguments: dict[str, Any] = {
        **_COMMON,
        "bf16": bf16,
        "eval_strategy": "epoch" if corpus.validation else "no",
        "beta": config.beta,
        "label_smoothing": config.label_smoothing,
        "loss_type": [config.loss, "sft"] if config.sft_weight else [config.loss],
        "loss_weights": [1.0, config.sft_weight] if config.sft_weight else [1.0],
        # Our LoRA dropout is part of the configuration, so TRL must not switch it off.
        "disable_dropout": False,
    }
    return _TokenisedDPOTrainer(
        model=model,
        args=DPOConfig(**(arguments | settings)),
        train_dataset=_pairs(corpus.train),
        eval_dataset=_pairs(corpus.validation) if corpus.validation else None,
        processing_class=tokenizer,
    )


def _refuse_uneven_weights(corpus: EncodedCorpus) -> None:
    uneven = next((g for g in corpus.train if g.weights and max(g.weights) - min(g.weights) > 1e-9), None)
    if uneven is not None:
        raise TrainingError(
            f"the pairs of {uneven.key} weigh {', '.join(f'{w:.3g}' for w in uneven.weights)}; TRL knows no weights; "
            "set capo.trainer: grouped, or pairs.weighting: uniform"
        )


def _demonstrations(groups: Sequence[PreferenceGroup]) -> Dataset:
    rows = [(list(group.prompt), list(group.responses[0])) for group in groups]
    return Dataset.from_dict(
        {
            "input_ids": [prompt + response for prompt, response in rows],
            "labels": [[-100] * len(prompt) + response for prompt, response in rows],
        }
    )


def _pairs(groups: Sequence[PreferenceGroup]) -> Dataset:
    rows = [(group, place) for group in groups for place in group.rejected]
    return Dataset.from_dict(
        {
            "prompt_ids": [list(group.prompt) for group, _ in rows],
            "chosen_ids": [list(group.responses[0]) for group, _ in rows],
            "rejected_ids": [list(group.responses[place]) for group, place in rows],
        }
    )
