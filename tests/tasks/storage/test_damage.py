"""One flipped bit or a missing end, in any kind of file that is kept, is noticed wherever the file is read."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from rounds import n_rounds
from safetensors.numpy import save_file

from capo_core.errors import DamagedArtifactError
from deployments.inventory import print_verification
from schemas.artifacts import ArtifactRef
from schemas.frames import RETENTION, TRAINING_LOG
from tasks.caching import REFERENCE_SERIALIZER, ReferenceSerializer, results_folder, set_aside_foreign_result
from tasks.storage.artifact_store import ArtifactStore

pytestmark = pytest.mark.torture
N_FLIPS, N_TRUNCATIONS = n_rounds(1000), n_rounds(300)


@dataclass(frozen=True)
class Kept:
    """A file that is kept, and the key or the reference by which it is read."""

    path: Path
    ref: ArtifactRef
    key: str | None = None


@pytest.fixture
def store(home: Path) -> ArtifactStore:
    return ArtifactStore()


@pytest.fixture
def kept(store: ArtifactStore) -> Iterator[list[Kept]]:
    """Every kind of file there is: of two artifacts, the lineage record and the result of each."""

    def fill(folder: Path) -> None:
        weights = {"lora_A": np.random.default_rng(13).normal(size=(4, 32)).astype("float32")}
        save_file(weights, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "peft_type": "LORA"}))
        (folder / "README.md").write_text("# An adapter\n")

    row = ("sft", "ben", 13, "neutral_perplexity", 9.0, 0.5, None, None, None, 60)
    first = store.write("retention", {"data.parquet": pl.DataFrame([row], schema=RETENTION, orient="row")})
    second = store.write(
        "adapter", {"training_log.parquet": pl.DataFrame(schema=TRAINING_LOG)}, fill=fill, metadata={"seed": 13}
    )
    results_folder().mkdir(parents=True, exist_ok=True)
    found = []
    for ref in (first, second):
        found += [Kept(path, ref) for path in sorted(store.path(ref).iterdir())]
        key = ref.sha256[::-1]
        refs = {"reads": [str(first)], "writes": [str(ref)], "returns": [str(ref)]}
        about = {"step": "probe", "version": 1, "key": key, "config": {"target": "Zoë"}, "seconds": 1.25}
        store.record_lineage(key, {**about, **refs})
        found.append(Kept(store.computations.path(key), ref, key))
        metadata = {"serializer": {"type": REFERENCE_SERIALIZER}, "expiration": None, "storage_key": key}
        result = results_folder() / key
        result.write_text(json.dumps({"metadata": metadata, "result": ReferenceSerializer().dumps(ref).decode()}))
        found.append(Kept(result, ref, key))
    yield found
    for one in found:
        if one.path.parent == results_folder():
            one.path.unlink(missing_ok=True)


def _flip(content: bytes, randomness: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[randomness.randrange(len(damaged))] ^= 1 << randomness.randrange(8)
    return bytes(damaged)


def _truncate(content: bytes, randomness: random.Random) -> bytes:
    return content[: randomness.randrange(len(content))]


def _says_verify(one: Kept) -> bool:
    """Return whether `capo artifacts verify` finds damage, and that it names nothing but this file's."""
    printed = io.StringIO()
    is_whole = print_verification(Console(file=printed, width=1000))
    named = [line for line in printed.getvalue().splitlines() if line.startswith("damaged")]
    places = {"lineage": f"lineage/{one.key}", "artifacts": f"{one.ref.kind}/{one.ref.sha256}"}
    place = places["artifacts"] if one.key is None else places.get(one.path.parent.name, f"results/{one.key}")
    assert is_whole == (not named)
    # A result stands and falls with its lineage record.
    assert {line.split()[1].rstrip(":") for line in named} <= {place, f"results/{one.key}"}
    return any(place in line for line in named)


def _read(store: ArtifactStore, one: Kept) -> str | None:
    """Return why whoever reads the file gets an error, None if it is read; then it is what was kept."""
    try:
        if one.key is None:
            store.verify(one.ref)
        elif one.path.parent.name == "lineage":
            store.computations.read(one.key)
        else:
            set_aside_foreign_result(one.key)
            if not one.path.exists():
                return f"{one.path} was set aside"
            assert ReferenceSerializer().loads(json.loads(one.path.read_bytes())["result"].encode()) == one.ref
    except DamagedArtifactError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("harm", "n"), [(_flip, N_FLIPS), (_truncate, N_TRUNCATIONS)])
def test_no_damage_is_read_silently(
    store: ArtifactStore, kept: list[Kept], harm: Callable[[bytes, random.Random], bytes], n: int
) -> None:
    randomness, n_harmless = random.Random(13), 0
    assert {one.path.suffix for one in kept} == {".parquet", ".json", ".safetensors", ".md", ""}
    for number in range(n):
        one = kept[number % len(kept)]
        whole = one.path.read_bytes()
        one.path.write_bytes(harm(whole, randomness))
        is_named = _says_verify(one)
        error = _read(store, one)
        assert is_named == (error is not None), "verify finds what a reader finds"
        if error is not None:
            assert one.path.name in error or one.ref.sha256 in error
        else:
            # A field of a result's file that nothing is read from; what is read is still what its lineage says.
            assert one.path.parent == results_folder()
            n_harmless += 1
        one.path.write_bytes(whole)
    assert n_harmless <= n / 10
    for one in kept:
        assert _read(store, one) is None
