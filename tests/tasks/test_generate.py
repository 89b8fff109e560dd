"""The step that generates: the engine is the configuration's, and stands beside the responses."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from judging_material import ANNOTATORS, N_TEST, TASK, make_corpus
from tiny_model import save_tiny_model
from vllm_stand_in import VERSION, write_command

from schemas.config import GenerationConfig
from schemas.training import ModelConfig
from tasks.generate import generate_method
from tasks.storage.artifact_store import ArtifactStore


def test_each_engine_answers_every_annotator_and_item(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPO_VLLM", str(write_command(tmp_path)))
    store = ArtifactStore()
    corpus = store.write("corpus", {"data.parquet": make_corpus()})
    base = save_tiny_model(tmp_path / "tiny", max_position_embeddings=4096)
    model = ModelConfig(id=base.path, dtype="float32", device="cpu")
    found: dict[str, pl.DataFrame] = {}
    refs = set()
    for engine in ("built_in", "vllm"):
        config = GenerationConfig(decisions=("constrained",), max_new_tokens=8, engine=engine)
        ref = generate_method.fn(
            corpus, None, None, "sft", "all", list(ANNOTATORS), base, model, TASK, config, "last", 1
        )
        refs.add(ref)
        found[store.metadata(ref)["engine"]] = store.read_table(ref)
    assert set(found) == {"built_in", f"vllm {VERSION}"}
    assert len(refs) == 2, "one engine's responses are never taken for the other's"
    asked = [frame.select("item_id", "annotator_id", "label") for frame in found.values()]
    assert asked[0].height == N_TEST * len(ANNOTATORS)
    assert asked[0].equals(asked[1])
