"""Ids of annotators and items, and paths in manifests, as an attacker would choose them: none leads anywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
from served_material import make_adapter, make_recipe, register, store_adapter
from tiny_model import one_thread, save_tiny_model

from capo_core.errors import CapoError, DamagedArtifactError
from capo_core.models import resolve_model
from deployments.adapters import export_adapter
from deployments.models import answer
from deployments.serve.served_models import find_served
from schemas.artifacts import ArtifactRef
from schemas.frames import CORPUS, empty
from tasks.registry import fetch_version, find_version, list_versions, promote
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.manifests import MANIFEST_NAME

__all__ = ["one_thread"]

NAMES = (
    "../../escaped",
    "/escaped",
    "a/b",
    "..",
    ".",
    "C:\\escaped",
    "a'b\" OR 1=1 --",
    "<script>x</script>",
    "%2e%2e%2f",
)


def _outside(folder: Path) -> set[Path]:
    """Return every file beside the home, and any whose name tells that an id became a path."""
    return {path for path in folder.rglob("*") if path.name.startswith("escaped")}


@pytest.mark.parametrize("name", NAMES)
def test_an_annotator_of_any_name_is_registered_served_and_exported_and_no_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "deep" / "home"
    monkeypatch.setenv("CAPO_HOME", str(home))
    save_tiny_model(tmp_path / "tiny")
    tiny = resolve_model(str(tmp_path / "tiny"), cache_dir=tmp_path)
    adapter = store_adapter(make_adapter(tiny, "lora", 1, tmp_path / "adapter"))
    corpus = ArtifactStore().write("corpus", {"data.parquet": empty(CORPUS)})  # an export looks consent up in it
    version = register(make_recipe(tiny, name, [name], adapter).model_copy(update={"corpus_version": corpus}))
    assert promote(version.name, version.number, "for the test")[0].adapter == adapter
    assert "/" not in version.name
    assert [found.name for found in list_versions()] == [version.name]
    assert fetch_version(find_version(version.name)).annotators == (name,)
    assert [one.annotator_id for one in find_served(["served"], "champion").models.values()] == [name]
    items = pl.DataFrame({"item_id": [name, "../x"], "text_a": ["a", "b"], "text_b": ["c", "d"]})
    assert answer(version, [name], items, "constrained")["item_id"].to_list() == [name, "../x"]
    out = tmp_path / "deep" / "out"
    export_adapter(version, out, None, "org/model", None)
    written = "".join(path.read_text(encoding="utf-8", errors="replace") for path in out.rglob("*") if path.is_file())
    assert len(name) < 4 or name not in written
    assert _outside(tmp_path) == set()
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"home", "out"}


@pytest.mark.parametrize("name", ["x' OR name='y", "x'", "%", "\\", "x'; --"])
def test_a_name_that_is_no_registered_model_is_an_error_of_ours(name: str, home: Path) -> None:
    with pytest.raises(CapoError):
        find_version(name)


@pytest.mark.parametrize("file", ["../escaped.json", "/tmp/escaped.json", "..", "sub/../../escaped"])
def test_a_manifest_that_names_a_path_is_no_manifest(file: str, home: Path) -> None:
    content = json.dumps(
        {"kind": "report", "schema_version": 1, "rows": 0, "metadata": {}}
        | {"files": {file: {"sha256": "0" * 64, "n_bytes": 1}}}
    ).encode()
    ref = ArtifactRef(kind="report", sha256=hashlib.sha256(content).hexdigest(), rows=0, schema_version=1)
    folder = ArtifactStore().path(ref)
    folder.mkdir(parents=True)
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(DamagedArtifactError, match="is not a manifest"):
        ArtifactStore().verify(ref)
