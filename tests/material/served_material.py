"""Adapters of several kinds in the registry, without training them, and a server of them in a thread."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from adapter_material import adapter_config, trained_adapter, write_adapter
from tiny_model import TASK

from deployments.serve.server import listen
from schemas.artifacts import ArtifactRef, ModelRef
from schemas.config import GenerationConfig
from schemas.frames import TRAINING_LOG, empty
from schemas.registry import AnsweringRecipe
from schemas.section import TagPosition
from schemas.training import ModelConfig
from tasks import tracking
from tasks.registry import Version, register_adapter
from tasks.storage.artifact_store import ArtifactStore

NOTHING = ArtifactRef(kind="evaluation", sha256="0" * 64, rows=0, schema_version=1)
N_NEW, SEED, MAX_ROWS = 16, 5, 12


def make_recipe(
    ref: ModelRef,
    target: str,
    people: Sequence[str],
    adapter: ArtifactRef = NOTHING,
    *,
    tag: TagPosition | None = None,
    corpus: str = "served",
    dtype: Any = "float32",
) -> AnsweringRecipe:
    """Return how an adapter of the tiny model is asked."""
    return AnsweringRecipe(
        corpus=corpus,
        target=target,
        annotators=tuple(people),
        method="capo",
        seed=SEED,
        task=TASK,
        model=ModelConfig(id=ref.id, dtype=dtype, device="cpu"),
        fingerprint=ref.fingerprint,
        tag=tag,
        generation=GenerationConfig(max_new_tokens=N_NEW, temperature=0.9, batch_size=MAX_ROWS),
        adapter=adapter,
        corpus_version=NOTHING,
        evaluation=NOTHING,
    )


def make_adapter(ref: ModelRef, kind: str, start: int, folder: Path) -> Path:
    """Return the folder of an adapter none of whose weights is 0; `start` is the seed of its weights."""
    settings = adapter_config(kind)
    return write_adapter(trained_adapter(ref, settings, start=start, scale=0.2), settings, ref, folder)


def store_adapter(folder: Path) -> ArtifactRef:
    """Return an adapter's folder as an artifact."""
    return ArtifactStore().write(
        "adapter",
        {"training_log.parquet": empty(TRAINING_LOG)},
        fill=lambda into: shutil.copytree(folder, into, dirs_exist_ok=True),
    )


def register(recipe: AnsweringRecipe) -> Version:
    """Return the version of an adapter, registered as the flow does it."""
    run = tracking.tracking_client().create_run(tracking.find_or_create_experiment(recipe.corpus))
    return register_adapter.fn(recipe, run.info.run_id, {})


def write_item(text_a: str, text_b: str, item_id: str | None = None) -> str:
    """Return the user's message that asks about an item."""
    return json.dumps({"text_a": text_a, "text_b": text_b} | ({"item_id": item_id} if item_id else {}))


@contextmanager
def running(server: uvicorn.Server) -> Iterator[str]:
    """Run a server in a thread for the length of the block; give its address."""
    with listen("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
