"""The store: content addressed, verified on every read, never half-written."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from capo_core.errors import DamagedArtifactError
from capo_core.hashing import hash_file
from schemas.artifacts import ArtifactRef
from schemas.frames import RETENTION
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.manifests import canonical_json


def _table(value: float = 0.5) -> pl.DataFrame:
    return pl.DataFrame(
        [("sft", "ben", 13, "neutral_perplexity", 9.0, value, None, None, None, 60)], schema=RETENTION, orient="row"
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def _write(store: ArtifactStore, value: float = 0.5) -> ArtifactRef:
    return store.write("retention", {"data.parquet": _table(value)}, metadata={"seed": 13})


def test_what_is_written_is_read_back(store: ArtifactStore) -> None:
    ref = _write(store)
    assert store.read_table(ref).equals(_table())
    assert store.metadata(ref) == {"seed": 13}
    assert (ref.kind, ref.rows) == ("retention", 1)


def test_equal_content_is_one_artifact_and_other_content_another(store: ArtifactStore) -> None:
    assert _write(store) == _write(store)
    assert _write(store, 0.5) != _write(store, 0.25)
    assert len(store.folders()) == 2


def test_a_reference_survives_its_text_form(store: ArtifactStore) -> None:
    ref = _write(store)
    assert ArtifactRef.parse(str(ref)) == ref
    assert store.find(ref.kind, ref.sha256) == ref


@pytest.mark.parametrize(
    "text", ["", "retention", "capo:nothing/00?rows=1&version=1", "capo:retention/../../x?rows=1&version=1"]
)
def test_a_text_that_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an artifact reference"):
        ArtifactRef.parse(text)


def test_one_flipped_bit_anywhere_is_an_error_that_names_the_file(store: ArtifactStore) -> None:
    ref = _write(store)
    for name in ("data.parquet", "manifest.json"):
        path = store.path(ref) / name
        whole = path.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 23)):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(bytes(damaged))
            with pytest.raises(DamagedArtifactError, match=name):
                store.read_table(ref)
        path.write_bytes(whole)
    assert store.read_table(ref).equals(_table())


def test_missing_truncated_and_foreign_files_are_noticed(store: ArtifactStore) -> None:
    ref = _write(store)
    path = store.path(ref) / "data.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedArtifactError):
        store.verify(ref)
    path.unlink()
    with pytest.raises(DamagedArtifactError, match=r"data\.parquet"):
        store.verify(ref)
    path.write_bytes(content)
    (store.path(ref) / "extra.bin").write_bytes(b"x")
    with pytest.raises(DamagedArtifactError, match=r"extra\.bin"):
        store.verify(ref)


def test_writing_again_replaces_a_damaged_artifact_and_keeps_the_damaged_one_aside(store: ArtifactStore) -> None:
    ref = _write(store)
    (store.path(ref) / "data.parquet").write_bytes(b"garbage")
    assert _write(store) == ref
    assert store.read_table(ref).equals(_table())
    aside = list((store.home / "damaged").iterdir())
    assert [(path / "data.parquet").read_bytes() for path in aside] == [b"garbage"]


def test_a_failed_write_leaves_nothing_under_a_final_name(store: ArtifactStore) -> None:
    def fail(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write("retention", {"data.parquet": _table()}, fill=fail)
    assert store.folders() == []


def test_a_table_with_other_columns_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ValueError, match="missing column 'n'"):
        store.write("retention", {"data.parquet": _table().drop("n")})
    with pytest.raises(ValueError, match="has the tables"):
        store.write("retention", {})


def test_the_hash_is_that_of_the_manifest(store: ArtifactStore) -> None:
    ref = _write(store)
    manifest = store.path(ref) / "manifest.json"
    assert hash_file(manifest) == ref.sha256
    assert manifest.read_text() == canonical_json(json.loads(manifest.read_text()))


def test_lineage_is_kept_by_key(store: ArtifactStore) -> None:
    store.record_lineage("abc", {"step": "ingest", "writes": ["x"]})
    assert store.lineage() == [{"step": "ingest", "writes": ["x"]}]
