"""Whole training runs on a tiny model: what they leave behind, what they log, and how they go on after a stop."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tiny_model import ADAPTER, BFLOAT16, FLOAT32, demonstrations, one_thread, preferences, tiny

from capo_core.errors import ModelError, TrainingError
from capo_core.training.adapters import new_adapter, open_adapter
from capo_core.training.capo import train_capo
from capo_core.training.checkpoints import checkpoint_steps, newest_intact_checkpoint
from capo_core.training.collate import encode_demonstrations
from capo_core.training.grouped_trainer import grouped_trainer
from capo_core.training.log import TrainingResult
from capo_core.training.objective import SUPERVISED
from capo_core.training.run import trainer_settings
from capo_core.training.sft import train_sft
from schemas.artifacts import ModelRef
from schemas.frames import TRAINING_LOG
from schemas.training import AdapterConfig, CAPOConfig, SFTConfig

__all__ = ["one_thread", "tiny"]

SFT = SFTConfig(n_epochs=3, batch_size=2, learning_rate=1e-2)
CAPO = CAPOConfig(n_epochs=2, batch_size=2, learning_rate=5e-3)


class StoppedError(Exception):
    """Raised in place of a killed process."""


def stop_at(step: int) -> Any:
    """Return a progress function that ends the run after `step` optimiser steps."""

    def progress(n_done: int, n_total: int) -> None:
        if n_done == step:
            raise StoppedError

    return progress


@pytest.fixture(scope="module")
def sft_run(tiny: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """A finished SFT run: its folder and its result."""
    folder = tmp_path_factory.mktemp("sft")
    return folder, train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, SFT, seed=5, output_dir=folder)


def run_capo(
    tiny: ModelRef, sft: Path, output: Path, checkpoints: Path | None = None, **changes: Any
) -> TrainingResult:
    settings: dict[str, Any] = {"config": CAPO, "seed": 5, "data": preferences(), "progress": lambda *_: None} | changes
    return train_capo(
        settings["data"], tiny, FLOAT32, ADAPTER, settings["config"], sft_adapter_dir=sft, seed=settings["seed"],
        output_dir=output, checkpoint_dir=checkpoints, progress=settings["progress"],
    )  # fmt: skip


def test_adapter_folder_holds_three_files_and_no_path_of_this_machine(
    sft_run: tuple[Path, TrainingResult], tiny: ModelRef
) -> None:
    folder, _ = sft_run
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny"
    written = (folder / "README.md").read_text() + (folder / "adapter_config.json").read_text()
    assert tiny.path not in written
    assert 'base_model: "tiny"' in written
    assert "| learning_rate | 0.01 |" in written
    assert {tensor.dtype for tensor in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}


def test_sft_log_has_every_step_and_every_evaluation(sft_run: tuple[Path, TrainingResult]) -> None:
    _, result = sft_run
    assert dict(result.log.schema) == TRAINING_LOG
    losses = result.log.filter(metric="loss")
    assert losses.filter(split="train")["step"].to_list() == list(range(1, 10))  # 6 examples in twos, 3 epochs
    assert losses.filter(split="validation")["step"].to_list() == [0, 3, 6, 9]
    assert losses.filter(split="validation")["epoch"].to_list() == [0.0, 1.0, 2.0, 3.0]
    validation = losses.filter(split="validation")["value"].to_list()
    assert validation[-1] < validation[0] - 0.5
    assert (result.n_examples, result.n_validation_examples, result.n_pairs, result.n_steps) == (6, 2, 0, 9)
    assert (result.n_truncated_prompts, result.n_truncated_responses, result.resumed_from_step) == (0, 0, 0)


def test_capo_starts_at_log_two_and_raises_margin_and_accuracy(
    sft_run: tuple[Path, TrainingResult], tiny: ModelRef, tmp_path: Path
) -> None:
    config = CAPOConfig(n_epochs=4, batch_size=2, learning_rate=1e-2, sft_weight=0.0)
    result = run_capo(tiny, sft_run[0], tmp_path / "out", config=config)
    validation = result.log.filter(split="validation").pivot("metric", index="step", values="value").sort("step")
    assert validation["loss"][0] == pytest.approx(0.693147, abs=1e-5)
    assert validation["margin"][0] == pytest.approx(0.0, abs=1e-5)
    train = result.log.filter(split="train").pivot("metric", index="step", values="value").sort("step")
    assert train["loss"][-1] < 0.6
    assert train["margin"][-1] > 0.1
    assert train["accuracy"][-1] > 0.8
    assert (result.n_pairs, result.n_steps) == (18, 12)
    assert {"learning_rate", "grad_norm", "chosen_logps", "rejected_logps"} <= set(train.columns)


def test_equal_runs_leave_equal_files_whatever_the_order_of_rows(
    sft_run: tuple[Path, TrainingResult], tiny: ModelRef, tmp_path: Path
) -> None:
    data = preferences().sample(fraction=1.0, shuffle=True, seed=1)
    run_capo(tiny, sft_run[0], tmp_path / "a")
    run_capo(tiny, sft_run[0], tmp_path / "b", data=data)
    run_capo(tiny, sft_run[0], tmp_path / "c", seed=6)
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = (tmp_path / "c" / "adapter_model.safetensors").read_bytes()
    assert other != (tmp_path / "a" / "adapter_model.safetensors").read_bytes()


def test_training_leaves_the_callers_random_state_alone(tiny: ModelRef, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    config = SFTConfig(n_epochs=1, batch_size=6)
    train_sft(demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=9, output_dir=tmp_path / "out")
    assert torch.equal(torch.rand(1), expected)


def test_training_prints_nothing_and_reports_progress(
    tiny: ModelRef, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_sft(
            demonstrations(), tiny, FLOAT32, ADAPTER, SFTConfig(n_epochs=2, batch_size=3), seed=9,
            output_dir=tmp_path / "out", progress=lambda done, total: seen.append((done, total)),
        )  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_interrupted_capo_run_resumes_bit_by_bit(
    sft_run: tuple[Path, TrainingResult], tiny: ModelRef, tmp_path: Path, dropout: float
) -> None:
    adapter = AdapterConfig(r=ADAPTER.r, alpha=ADAPTER.alpha, dropout=dropout)

    def run(output: str, checkpoints: str, progress: Any = lambda *_: None) -> TrainingResult:
        return train_capo(
            preferences(), tiny, FLOAT32, adapter, CAPO, sft_adapter_dir=sft_run[0], seed=5,
            output_dir=tmp_path / output, checkpoint_dir=tmp_path / checkpoints, progress=progress,
        )  # fmt: skip

    whole = run("whole", "ck-whole")
    with pytest.raises(StoppedError):
        run("part", "ck-part", stop_at(5))
    resumed = run("part", "ck-part")
    # 6 steps, two checkpoints: after 2 and after 4, in the second epoch
    assert resumed.resumed_from_step == 4
    assert (whole.resumed_from_step, whole.n_steps, resumed.n_steps) == (0, 6, 6)
    assert resumed.log.equals(whole.log)
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny: ModelRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(progress: Any = lambda *_: None) -> TrainingResult:
        return train_sft(
            demonstrations(), tiny, FLOAT32, ADAPTER, SFT, seed=5, output_dir=tmp_path / "out",
            checkpoint_dir=tmp_path / "ck", progress=progress,
        )  # fmt: skip

    whole = run()
    expected = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "ck")
    with pytest.raises(StoppedError):
        run(stop_at(8))
    # 9 steps in epochs of 3: 3 and 6 end an epoch, so checkpoints are after 2 and 5
    assert sorted(path.name for path in (tmp_path / "ck").iterdir()) == ["checkpoint-2", "checkpoint-5"]
    optimizer = tmp_path / "ck" / "checkpoint-5" / "optimizer.pt"
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="capo_core"):
        resumed = run()
    assert resumed.resumed_from_step == 2
    assert "checkpoint-5 is passed over: optimizer.pt changed" in caplog.text
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == expected
    assert resumed.log.equals(whole.log)


def test_checkpoints_of_another_run_or_unfinished_ones_are_not_continued(
    tiny: ModelRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(seed: int, progress: Any = lambda *_: None) -> TrainingResult:
        return train_sft(
            demonstrations(), tiny, FLOAT32, ADAPTER, SFT, seed=seed, output_dir=tmp_path / "out",
            checkpoint_dir=tmp_path / "ck", progress=progress,
        )  # fmt: skip

    with pytest.raises(StoppedError):
        run(5, stop_at(4))
    (tmp_path / "ck" / "checkpoint-7").mkdir()
    assert run(6).resumed_from_step == 0
    assert "checkpoint-2 is passed over: it belongs to a run with other data, settings" in caplog.text
    assert "checkpoint-7 is passed over: it was not finished" in caplog.text


def test_no_checkpoints_are_written_where_none_are_wanted(tiny: ModelRef, tmp_path: Path) -> None:
    config = SFTConfig(n_epochs=1, batch_size=2, n_checkpoints=0)
    train_sft(
        demonstrations(), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=tmp_path / "out",
        checkpoint_dir=tmp_path / "ck",
    )  # fmt: skip
    assert not (tmp_path / "ck").exists()
    assert newest_intact_checkpoint(tmp_path / "ck", "any") is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2, 9, 3), {2, 5}),  # thirds of 9 are 3 and 6, both the end of an epoch
        ((2, 10, 10), {3, 7}),
        ((0, 10, 5), set()),
        ((3, 4, 1), set()),  # every step ends an epoch
        ((5, 3, 3), {1, 2}),  # more wanted than there are steps
    ],
)
def test_checkpoints_are_spaced_and_never_at_the_end_of_an_epoch(
    arguments: tuple[int, int, int], expected: set[int]
) -> None:
    assert checkpoint_steps(*arguments) == expected


def test_without_validation_rows_only_training_is_logged(tiny: ModelRef, tmp_path: Path) -> None:
    config = SFTConfig(n_epochs=1, batch_size=2)
    result = train_sft(
        demonstrations(n_validation=0), tiny, FLOAT32, ADAPTER, config, seed=5, output_dir=tmp_path / "out"
    )
    assert result.log["split"].unique().to_list() == ["train"]
    assert result.n_validation_examples == 0


def test_bfloat16_trains_a_float32_adapter_from_a_reference_of_its_own(tiny: ModelRef, tmp_path: Path) -> None:
    train_sft(demonstrations(), tiny, BFLOAT16, ADAPTER, SFT, seed=5, output_dir=tmp_path / "sft")
    result = train_capo(
        preferences(), tiny, BFLOAT16, ADAPTER, CAPO, sft_adapter_dir=tmp_path / "sft", seed=5,
        output_dir=tmp_path / "capo",
    )  # fmt: skip
    start = result.log.filter(split="validation", metric="margin")["value"][0]
    assert abs(start) < 2e-2
    for folder in ("sft", "capo"):
        tensors = load_file(tmp_path / folder / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_base_weights_stay_frozen(tiny: ModelRef) -> None:
    model = new_adapter(tiny, FLOAT32, ADAPTER, "grouped")
    assert {"lora_" in name for name, p in model.named_parameters() if p.requires_grad} == {True}


def test_a_loss_that_is_not_finite_stops_training(tiny: ModelRef, tmp_path: Path) -> None:
    from capo_core.models import load_tokenizer

    model = new_adapter(tiny, FLOAT32, ADAPTER, "grouped")
    corpus = encode_demonstrations(demonstrations(n_validation=0), load_tokenizer(tiny), SFT)
    settings = trainer_settings(SFT, folder=tmp_path, device="cpu", seed=1, batch_size=2, save=False)
    trainer = grouped_trainer(model, corpus, SUPERVISED, SFT, settings)
    next(p for p in model.parameters() if p.requires_grad).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1; lower learning_rate"):
        trainer.train()


def test_an_adapter_of_other_rank_or_model_is_refused(
    sft_run: tuple[Path, TrainingResult], tiny: ModelRef, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="has r = 4, alpha = 8"):
        open_adapter(tiny, FLOAT32, AdapterConfig(r=8, alpha=8.0), sft_run[0], "grouped")
    other = tiny.model_copy(update={"id": "other"})
    with pytest.raises(ModelError, match="belongs to tiny, not to other"):
        open_adapter(other, FLOAT32, ADAPTER, sft_run[0], "grouped")
    with pytest.raises(ModelError, match="train the adapter first"):
        open_adapter(tiny, FLOAT32, ADAPTER, tmp_path, "grouped")


@pytest.mark.parametrize(("modules", "reason"), [(("no_such",), "does not fit"), (("lm_head",), "vocabulary head")])
def test_impossible_target_modules_are_refused(tiny: ModelRef, modules: tuple[str, ...], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        new_adapter(tiny, FLOAT32, AdapterConfig(r=4, alpha=8.0, target_modules=modules), "grouped")


def test_several_annotators_train_one_adapter(tiny: ModelRef, tmp_path: Path) -> None:
    both = pl.concat([demonstrations(), demonstrations().with_columns(annotator_id=pl.lit("ann2"))])
    adapter = AdapterConfig(layout="shared", r=4, alpha=8.0)
    result = train_sft(both, tiny, FLOAT32, adapter, SFTConfig(n_epochs=1), seed=5, output_dir=tmp_path / "out")
    assert result.n_examples == 12
    assert "2 annotators, by a tag each" in (tmp_path / "out" / "README.md").read_text()
