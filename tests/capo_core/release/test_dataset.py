"""The published tables: what `datasets` and TRL make of them, and what may never stand in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from datasets import load_dataset
from evaluation_material import HABITS
from release_material import dataset_facts, named_corpus
from tiny_model import one_thread, tiny, tiny_config, tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification

from capo_core.errors import CorpusError
from capo_core.release.card import CARD_FILE
from capo_core.release.dataset import build_tables, write_tables
from capo_core.release.dataset_card import render_dataset_card
from schemas.artifacts import ModelRef
from schemas.frames import DEMONSTRATIONS, PREFERENCES, empty

__all__ = ["one_thread", "tiny"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts, folder = dataset_facts(), tmp_path_factory.mktemp("release")
    write_tables(facts.tables, folder)
    (folder / CARD_FILE).write_text(render_dataset_card(facts), encoding="utf-8")
    return folder


@pytest.fixture
def load(published: Path, tmp_path: Path) -> Any:
    return lambda *name, **kwargs: load_dataset(str(published), *name, cache_dir=str(tmp_path / "cache"), **kwargs)


def test_the_corpus_own_splits_load_by_name(load: Any) -> None:
    # 6, 2 and 2 items explained by four people each.
    assert {split: part.num_rows for split, part in load("annotations").items()} == {
        "train": 24, "validation": 8, "test": 8,
    }  # fmt: skip
    assert {split: part.num_rows for split, part in load("demonstrations").items()} == {"train": 24, "validation": 8}
    assert set(load("annotations", split="test").features) == {
        "item_id", "context_id", "text_a", "text_b", "annotator_id", "label", "explanation",
    }  # fmt: skip


def test_preferences_load_by_default_and_hold_no_test_item(load: Any) -> None:
    pairs = load()
    assert {split: part.num_rows for split, part in pairs.items()} == {"train": 72, "validation": 24}  # 3 others each
    test_items = set(load("annotations", split="test")["item_id"])
    test_texts = set(load("annotations", split="test")["explanation"])
    for part in pairs.values():
        assert not test_items & set(part["item_id"])
        for row in part:
            assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
            for answer in (row["chosen"], row["rejected"]):
                assert answer[0]["role"] == "assistant"
                assert answer[0]["content"].partition("Explanation: ")[2] not in test_texts


def test_nobodys_own_id_stands_in_any_file(published: Path) -> None:
    for path in published.rglob("*.parquet"):
        written = pl.read_parquet(path).write_json()
        assert not any(f'"{name}"' in written for name in HABITS)
    card = (published / CARD_FILE).read_text(encoding="utf-8")
    assert not any(name in card.split() for name in HABITS)


def test_trl_trains_on_the_pairs_as_they_load(load: Any, tiny: ModelRef, tmp_path: Path) -> None:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    settings: Any = {"output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none"}
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.path),
        args=DPOConfig(**settings, use_cpu=True, bf16=False, save_strategy="no"),
        train_dataset=load(split="train"),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    # Policy and reference are the same model before the first step: -log sigmoid(0) = log 2.
    assert trainer.state.log_history[0]["train_loss"] == pytest.approx(0.6931, abs=1e-3)


def test_a_reward_model_trains_on_them_too(load: Any, tmp_path: Path) -> None:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    torch.manual_seed(0)
    settings: Any = {"output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none"}
    trainer = RewardTrainer(
        LlamaForSequenceClassification(tiny_config(num_labels=1)),
        args=RewardConfig(**settings, use_cpu=True, bf16=False, save_strategy="no"),
        train_dataset=load(split="train"),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    assert trainer.state.log_history[0]["train_loss"] > 0


def _pairs_of(corpus: pl.DataFrame) -> pl.DataFrame:
    facts = dataset_facts(corpus)
    return facts.tables["preferences"].select(list(PREFERENCES))


def test_pairs_of_test_items_are_refused() -> None:
    corpus = named_corpus()
    pairs = _pairs_of(corpus)
    of_test = pairs.head(1).with_columns(item_id=pl.lit(corpus.filter(split="test")["item_id"][0]))
    for wrong in (of_test, of_test.with_columns(split=pl.lit("test"))):
        with pytest.raises(CorpusError, match=r"preferences: 1 row\(s\) of a test item or of another split"):
            build_tables(corpus, [empty(DEMONSTRATIONS)], [pairs, wrong])


def test_people_who_are_not_in_the_corpus_are_refused() -> None:
    corpus = named_corpus()
    raw = _pairs_of(corpus).head(1).with_columns(rejected_annotator_id=pl.lit("ana"))
    with pytest.raises(CorpusError, match="not in the corpus: ana"):
        build_tables(corpus, [empty(DEMONSTRATIONS)], [raw])
