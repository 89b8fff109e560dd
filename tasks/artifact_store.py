"""The artifact store: immutable artifacts under `<home>/artifacts/<kind>/<sha256>/`, verified at every read.

An artifact is a folder with its files and a `manifest.json` naming the digest of each; its own sha256 is the digest
of the manifest's canonical JSON. It is written to a temporary folder, fsynced, and renamed into place, so a
folder under a final name is whole or damaged afterwards, never half-written. How an artifact came about
(step, configuration, what was read) stands in `<home>/lineage/`, one record per computation, because two
computations may have the same outcome.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import JsonValue, ValidationError

from capo_core.errors import DamagedArtifactError
from schemas.artifacts import ArtifactKind, ArtifactRef, FileEntry, Manifest
from schemas.frames import SCHEMA_VERSIONS, TABLES, check_columns
from tasks.home import capo_home

MANIFEST_NAME = "manifest.json"


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_file(path: Path) -> str:
    """Return the SHA-256 digest of a file's bytes in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_file_atomically(path: Path, content: bytes) -> None:
    """Write `content` under `path` by way of a temporary name in the same folder, fsync and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


class ArtifactStore:
    """Artifacts and lineage records under one folder."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = capo_home() if home is None else home
        self.root = self.home / "artifacts"

    # -- writing ------------------------------------------------------------------------------------------------

    def write(
        self,
        kind: ArtifactKind,
        tables: Mapping[str, pl.DataFrame] | None = None,
        *,
        fill: Callable[[Path], None] | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> ArtifactRef:
        """Store one artifact and return its reference.

        Args:
            kind: what it holds.
            tables: Parquet files by name; exactly those, with exactly the columns, that `schemas.frames.TABLES` gives.
            fill: writes further files (weights, pages) into the folder it is given.
            metadata: counts and settings that belong to the content.

        Raises:
            ValueError: if a table is missing, superfluous or has other columns.
        """
        tables = tables or {}
        expected = TABLES[kind]
        if set(tables) != set(expected):
            raise ValueError(f"artifact kind {kind!r} has the tables {sorted(expected)}, got {sorted(tables)}")
        folder = self.root / kind / f".tmp-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        for name, frame in tables.items():
            check_columns(frame, expected[name], f"{kind}/{name}").write_parquet(folder / name, compression="zstd")
        if fill is not None:
            fill(folder)
        rows = tables[next(iter(expected))].height if expected else 0
        manifest = Manifest(
            kind=kind,
            schema_version=SCHEMA_VERSIONS[kind],
            rows=rows,
            files=_describe_files(folder),
            metadata=dict(metadata or {}),
        )
        return self._commit(folder, manifest)

    def adopt(self, ref: ArtifactRef, folder: Path) -> None:
        """Copy an artifact's folder from elsewhere into the store, unless it is there and whole.

        Raises:
            DamagedArtifactError: if the folder is not that artifact.
        """
        try:
            self.verify(ref)
        except DamagedArtifactError:
            manifest = self._read_manifest(ref, folder)
            copy = self.root / ref.kind / f".tmp-{uuid.uuid4().hex}"
            try:
                shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(MANIFEST_NAME))
                if _describe_files(copy) != manifest.files:
                    raise DamagedArtifactError(f"{folder}: its files are not those of {ref}") from None
                self._commit(copy, manifest)
            finally:
                shutil.rmtree(copy, ignore_errors=True)

    def _commit(self, folder: Path, manifest: Manifest) -> ArtifactRef:
        """Give a filled temporary folder its manifest and its final name."""
        text = canonical_json(manifest.model_dump(mode="json"))
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
        for path in folder.iterdir():
            _sync(path)
        _sync(folder)
        ref = ArtifactRef(
            kind=manifest.kind,
            sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
            rows=manifest.rows,
            schema_version=manifest.schema_version,
        )
        final = self.path(ref)
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            self._replace_if_damaged(ref, folder, final)
        _sync(final.parent)
        return ref

    def _replace_if_damaged(self, ref: ArtifactRef, folder: Path, final: Path) -> None:
        """Keep the artifact that is there if it is whole; else set it aside and put the new one in its place."""
        try:
            self.verify(ref)
        except DamagedArtifactError:
            aside = self.home / "damaged" / f"{ref.kind}-{ref.sha256}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            final.rename(aside)
            folder.rename(final)
        else:
            shutil.rmtree(folder)

    # -- reading ------------------------------------------------------------------------------------------------

    def path(self, ref: ArtifactRef) -> Path:
        """Return the folder of an artifact, whether or not it is there."""
        return self.root / ref.kind / ref.sha256

    def verify(self, ref: ArtifactRef) -> Manifest:
        """Return the artifact's manifest after re-hashing it and every file it names.

        Raises:
            DamagedArtifactError: if the artifact is missing, incomplete, has a file too many or any byte changed.
        """
        folder = self.path(ref)
        manifest = self._read_manifest(ref)
        present = {path.name for path in folder.iterdir()} - {MANIFEST_NAME}
        if present != set(manifest.files):
            difference = sorted(present ^ set(manifest.files))
            raise DamagedArtifactError(f"artifact {folder}: files missing or not its own: {', '.join(difference)}")
        for name, entry in manifest.files.items():
            if hash_file(folder / name) != entry.sha256:
                raise DamagedArtifactError(f"artifact {folder}: file {name} does not match its sha256; it was changed")
        return manifest

    def _read_manifest(self, ref: ArtifactRef, folder: Path | None = None) -> Manifest:
        folder = folder or self.path(ref)
        path = folder / MANIFEST_NAME
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedArtifactError(f"artifact {folder} is missing or unreadable ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != ref.sha256:
            raise DamagedArtifactError(f"artifact {folder}: {MANIFEST_NAME} does not match its sha256; it was changed")
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            raise DamagedArtifactError(f"artifact {folder}: {MANIFEST_NAME} is not a manifest: {error}") from error

    def read_table(self, ref: ArtifactRef, name: str | None = None) -> pl.DataFrame:
        """Return one Parquet table of a verified artifact, the main one by default."""
        self.verify(ref)
        columns = TABLES[ref.kind]
        name = name or next(iter(columns))
        return check_columns(pl.read_parquet(self.path(ref) / name), columns[name], f"{ref.kind}/{name}")

    def metadata(self, ref: ArtifactRef) -> dict[str, Any]:
        """Return the metadata of a verified artifact."""
        return self.verify(ref).metadata

    def folders(self) -> list[tuple[str, str]]:
        """Return (kind, sha256) of every artifact folder, sorted."""
        return sorted(
            (path.parent.name, path.name)
            for path in self.root.glob("*/*")
            if path.is_dir() and not path.name.startswith(".")
        )

    def find(self, kind: str, sha256: str) -> ArtifactRef:
        """Return the full reference of an artifact known by kind and hash.

        Raises:
            DamagedArtifactError: if it is not there or its manifest is damaged.
        """
        probe = ArtifactRef.model_validate({"kind": kind, "sha256": sha256, "rows": 0, "schema_version": 1})
        manifest = self._read_manifest(probe)
        return probe.model_copy(update={"rows": manifest.rows, "schema_version": manifest.schema_version})

    # -- lineage ------------------------------------------------------------------------------------------------

    def record_lineage(self, key: str, record: Mapping[str, JsonValue]) -> None:
        """Keep how a computation went (step, version, configuration, reads, writes) under its cache key."""
        write_file_atomically(self.home / "lineage" / f"{key}.json", canonical_json(record).encode("utf-8"))

    def lineage(self) -> list[dict[str, Any]]:
        """Return every lineage record, sorted by cache key."""
        paths = sorted((self.home / "lineage").glob("[!.]*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _describe_files(folder: Path) -> dict[str, FileEntry]:
    return {
        path.name: FileEntry(sha256=hash_file(path), n_bytes=path.stat().st_size) for path in sorted(folder.iterdir())
    }


def _sync(path: Path) -> None:
    """fsync a file or a folder, so that a rename after it never shows content that is not on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
