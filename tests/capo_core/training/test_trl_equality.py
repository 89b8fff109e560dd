"""The grouped trainer against TRL's: same data, same start, no dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import ADAPTER, FLOAT32, demonstrations, one_thread, preferences, tiny

from capo_core.models import load_tokenizer
from capo_core.quiet import quiet_libraries
from capo_core.training.adapters import open_adapter
from capo_core.training.batch import gather_families, split_into_parts
from capo_core.training.capo import train_capo
from capo_core.training.collate import EncodedCorpus, encode_preferences
from capo_core.training.objective import Objective, sum_losses
from capo_core.training.reference import add_reference_logps, score_groups
from capo_core.training.run import trainer_settings
from capo_core.training.sft import train_sft
from capo_core.training.trl_reference import dpo_trainer
from schemas.artifacts import ModelRef
from schemas.training import CAPOConfig, SFTConfig

__all__ = ["one_thread", "tiny"]

N_GROUPS, K = 5, 3
STEPS: dict[str, Any] = {"n_epochs": 3, "batch_size": N_GROUPS, "warmup_ratio": 0.0, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def sft_adapter(tiny: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT adapter, trained hard enough that both its factors matter."""
    folder = tmp_path_factory.mktemp("sft")
    config = SFTConfig(n_epochs=4, batch_size=2, learning_rate=1e-2, n_checkpoints=0)
    train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=folder)
    return folder


def open_both(tiny: ModelRef, sft_adapter: Path, corpus: EncodedCorpus, folder: Path) -> tuple[Any, Any, dict]:
    """Return our model, TRL's trainer with its own, and the batch of all pairs as TRL lays it out."""
    ours = open_adapter(tiny, FLOAT32, ADAPTER, sft_adapter, "grouped")
    theirs = open_adapter(tiny, FLOAT32, ADAPTER, sft_adapter, "trl")
    config = CAPOConfig(trainer="trl", beta=0.1, sft_weight=0.2)
    settings = trainer_settings(config, folder=folder, device="cpu", seed=1, batch_size=N_GROUPS * K, save=False)
    with quiet_libraries():
        trainer = dpo_trainer(theirs, load_tokenizer(tiny), corpus, config, settings, bf16=False)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(N_GROUPS * K)])
    return ours, trainer, batch


def move_away(model: Any) -> None:
    """Change the policy a little, the same way every time, so that it differs from its reference."""
    generator = torch.Generator().manual_seed(11)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".default." in name:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)


def test_log_probabilities_loss_and_gradients_equal_trl(tiny: ModelRef, sft_adapter: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    corpus = encode_preferences(preferences(N_GROUPS, 0, K), tokenizer, CAPOConfig())
    ours, trainer, batch = open_both(tiny, sft_adapter, corpus, tmp_path)
    groups = add_reference_logps(corpus.train, score_groups(ours, corpus.train, 100_000))
    move_away(ours)
    move_away(trainer.model)
    objective = Objective(loss="sigmoid", sft_weight=0.2, beta=0.1)
    (part,) = split_into_parts(gather_families(groups), torch.float32, 100_000)
    sums = sum_losses(ours, part, objective)
    our_loss = sums.loss(objective, N_GROUPS, part.n_chosen_tokens)
    their_loss = trainer.compute_loss(trainer.model, batch)
    assert abs(float(our_loss.detach()) - 0.693147) > 0.05  # the policy has left its reference
    assert float(our_loss.detach()) == pytest.approx(float(their_loss.detach()), abs=1e-6)

    figures = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    means = sums.detach().means(objective)
    assert means["chosen_logps"] == pytest.approx(figures["logps/chosen"], abs=1e-4)
    assert means["rejected_logps"] == pytest.approx(figures["logps/rejected"], abs=1e-4)
    assert means["margin"] == pytest.approx(figures["rewards/margins"], abs=1e-4)
    assert means["accuracy"] == pytest.approx(figures["rewards/accuracies"], abs=1e-6)

    our_loss.backward()
    their_loss.backward()
    theirs = dict(trainer.model.named_parameters())
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            difference = float((parameter.grad - theirs[name].grad).norm() / theirs[name].grad.norm())
            assert difference < 1e-4, name
            compared += 1
    assert compared == 28  # two factors, two layers, seven linear maps


def test_references_equal_trl(tiny: ModelRef, sft_adapter: Path, tmp_path: Path) -> None:
    corpus = encode_preferences(preferences(N_GROUPS, 0, K), load_tokenizer(tiny), CAPOConfig())
    ours, trainer, batch = open_both(tiny, sft_adapter, corpus, tmp_path)
    groups = add_reference_logps(corpus.train, score_groups(ours, corpus.train, 100_000))
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    assert [g.reference_logps[0] for g in groups for _ in g.rejected] == pytest.approx(chosen.tolist(), abs=1e-4)
    assert [g.reference_logps[i] for g in groups for i in g.rejected] == pytest.approx(rejected.tolist(), abs=1e-4)


def weights_after(folder: Path) -> torch.Tensor:
    return torch.cat(
        [tensor.flatten() for _, tensor in sorted(load_file(folder / "adapter_model.safetensors").items())]
    )


def test_three_capo_steps_agree_with_trl(tiny: ModelRef, sft_adapter: Path, tmp_path: Path) -> None:
    results = {}
    for trainer in ("grouped", "trl"):
        results[trainer] = train_capo(
            preferences(N_GROUPS, 2, K), tiny, FLOAT32, ADAPTER, CAPOConfig(trainer=trainer, **STEPS),
            sft_adapter_dir=sft_adapter, seed=1, output_dir=tmp_path / trainer,
        )  # fmt: skip
    start, ours, theirs = (
        weights_after(sft_adapter),
        weights_after(tmp_path / "grouped"),
        weights_after(tmp_path / "trl"),
    )
    assert float((ours - start).norm()) > 0.01
    assert float((ours - theirs).norm() / (ours - start).norm()) < 1e-3
    # At step 0 and after each epoch: loss, log-probabilities, margin, accuracy on train and validation.
    ours_log, theirs_log = (results[name].log.sort("step", "split", "metric") for name in ("grouped", "trl"))
    assert ours_log.select("step", "split", "metric").equals(theirs_log.select("step", "split", "metric"))
    assert ours_log["value"].to_list() == pytest.approx(theirs_log["value"].to_list(), abs=2e-4, rel=2e-4)


def test_three_sft_steps_agree_with_trl(tiny: ModelRef, tmp_path: Path) -> None:
    logs = {}
    for trainer in ("grouped", "trl"):
        logs[trainer] = train_sft(
            demonstrations(N_GROUPS, 2), tiny, FLOAT32, ADAPTER, SFTConfig(trainer=trainer, **STEPS),
            seed=1, output_dir=tmp_path / trainer,
        ).log.filter(metric="loss", split="train")  # fmt: skip
    assert logs["grouped"]["value"].to_list() == pytest.approx(logs["trl"]["value"].to_list(), abs=1e-5)
    ours, theirs = weights_after(tmp_path / "grouped"), weights_after(tmp_path / "trl")
    assert float((ours - theirs).norm() / ours.norm()) < 1e-4
