"""The artifact store: immutable artifacts under `<home>/artifacts/<kind>/<sha256>/`, verified at every read.

With `CAPO_ARTIFACTS` set, artifacts and lineage are shared at that URL (`remote_artifacts`): what is written
here is uploaded, what is not whole here is fetched, and the folder is a verified cache.

An artifact is a folder with its files and a `manifest.json` naming the digest of each; its own sha256 is the digest
of the manifest's canonical JSON. It is written to a temporary folder, fsynced, and renamed into place, so a
folder under a final name is whole or damaged afterwards, never half-written. How an artifact came about
(step, configuration, what was read) stands in `<home>/lineage/`, one record per computation, because two
computations may have the same outcome.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import JsonValue

from capo_core.durable_files import sync
from capo_core.errors import DamagedArtifactError
from schemas.artifacts import ArtifactKind, ArtifactRef, Manifest
from schemas.frames import SCHEMA_VERSIONS, TABLES, check_columns
from tasks.storage.computations import Computations
from tasks.storage.home import artifacts_url, capo_home, set_aside
from tasks.storage.manifests import MANIFEST_NAME, canonical_json, check_folder, describe_files, read_manifest
from tasks.storage.object_folder import reach
from tasks.storage.remote_artifacts import RemoteArtifacts


class ArtifactStore:
    """Artifacts and lineage records under one folder, and at the URL where they are shared, if they are."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = capo_home() if home is None else home
        self.root = self.home / "artifacts"
        url = artifacts_url()
        self.remote = None if url is None else RemoteArtifacts(reach(url))
        self.computations = Computations(self.home, self.remote)

    @property
    def location(self) -> str:
        """Where the truth is: the URL if artifacts are shared, else the folder."""
        return str(self.root) if self.remote is None else self.remote.url

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
        folder = self._make_temporary(kind)
        for name, frame in tables.items():
            check_columns(frame, expected[name], f"{kind}/{name}").write_parquet(folder / name, compression="zstd")
        if fill is not None:
            fill(folder)
        rows = tables[next(iter(expected))].height if expected else 0
        manifest = Manifest(
            kind=kind,
            schema_version=SCHEMA_VERSIONS[kind],
            rows=rows,
            files=describe_files(folder),
            metadata=dict(metadata or {}),
        )
        text = canonical_json(manifest.model_dump(mode="json"))
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
        ref = ArtifactRef(
            kind=kind,
            sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
            rows=rows,
            schema_version=manifest.schema_version,
        )
        self._commit(ref, folder)
        self._publish(ref)
        return ref

    def adopt(self, ref: ArtifactRef, folder: Path) -> None:
        """Copy an artifact's folder from elsewhere into the store, unless it is there and whole.

        Raises:
            DamagedArtifactError: if the folder is not that artifact.
        """
        try:
            self.verify(ref)
        except DamagedArtifactError:
            read_manifest(ref, folder)
            self._take_in(ref, lambda copy: shutil.copytree(folder, copy, dirs_exist_ok=True), str(folder))
            self._publish(ref)

    def share(self, ref: ArtifactRef) -> None:
        """Have an artifact that is whole here at the URL too, if artifacts are shared: it may be older than the URL."""
        if self.remote is not None and not self.remote.has(ref):
            self._publish(ref)

    def _publish(self, ref: ArtifactRef) -> None:
        if self.remote is not None:
            self.remote.publish(ref, self.path(ref))

    def _take_in(self, ref: ArtifactRef, fill: Callable[[Path], object], place: str) -> Manifest:
        """Give an artifact from elsewhere its name here, once it was copied and found whole, and return its manifest.

        Args:
            ref: the artifact.
            fill: copies it into the folder it is given.
            place: where it comes from.
        """
        copy = self._make_temporary(ref.kind)
        try:
            fill(copy)
            manifest = check_folder(ref, copy, place)
            self._commit(ref, copy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return manifest

    def _make_temporary(self, kind: ArtifactKind) -> Path:
        folder = self.root / kind / f".tmp-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def _commit(self, ref: ArtifactRef, folder: Path) -> None:
        """Give a filled temporary folder with a manifest its final name."""
        for path in folder.iterdir():
            sync(path)
        sync(folder)
        final = self.path(ref)
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            self._replace_if_damaged(ref, folder, final)
        sync(final.parent)

    def _replace_if_damaged(self, ref: ArtifactRef, folder: Path, final: Path) -> None:
        """Keep the artifact that is there if it is whole; else set it aside and put the new one in its place."""
        try:
            check_folder(ref, final)
        except DamagedArtifactError:
            set_aside(self.home, final, f"{ref.kind}-{ref.sha256}")
            folder.rename(final)
        else:
            self._touch(ref)
            shutil.rmtree(folder)

    # -- reading ------------------------------------------------------------------------------------------------

    def path(self, ref: ArtifactRef) -> Path:
        """Return the folder of an artifact, whether or not it is there."""
        return self.root / ref.kind / ref.sha256

    def verify(self, ref: ArtifactRef) -> Manifest:
        """Return the artifact's manifest after re-hashing it and every file it names; if shared, fetch it first.

        Raises:
            DamagedArtifactError: if the artifact is missing, incomplete, has a file too many or any byte changed.
        """
        try:
            manifest = check_folder(ref, self.path(ref))
        except DamagedArtifactError:
            if self.remote is None:
                raise
            remote = self.remote
            return self._take_in(ref, lambda copy: remote.download(ref, copy), remote.place(ref))
        self._touch(ref)
        return manifest

    def _touch(self, ref: ArtifactRef) -> None:
        """Note that an artifact is in use: what was used lately is not collected as garbage."""
        with suppress(OSError):  # of another user, or on a disk that is mounted to be read
            os.utime(self.path(ref))

    def audit(self, ref: ArtifactRef) -> None:
        """Re-hash an artifact where the truth is, even if there is a whole copy here.

        Raises:
            DamagedArtifactError: as `verify`.
        """
        if self.remote is None:
            self.verify(ref)
        else:
            self.remote.verify(ref)

    def read_table(self, ref: ArtifactRef, name: str | None = None) -> pl.DataFrame:
        """Return one Parquet table of a verified artifact, the main one by default."""
        self.verify(ref)
        columns = TABLES[ref.kind]
        name = name or next(iter(columns))
        return check_columns(pl.read_parquet(self.path(ref) / name), columns[name], f"{ref.kind}/{name}")

    def metadata(self, ref: ArtifactRef) -> dict[str, Any]:
        """Return the metadata of a verified artifact."""
        return self.verify(ref).metadata

    def sizes(self) -> dict[tuple[str, str], int]:
        """Return the bytes of every artifact by (kind, sha256), sorted."""
        if self.remote is not None:
            return self.remote.sizes()
        return {
            found: sum(file.stat().st_size for file in self.root.joinpath(*found).iterdir()) for found in self.kept()
        }

    def folders(self) -> list[tuple[str, str]]:
        """Return (kind, sha256) of every artifact, sorted."""
        return list(self.sizes())

    def kept(self) -> list[tuple[str, str]]:
        """Return (kind, sha256) of every artifact that this machine has, if only as a copy, sorted."""
        folders = (path for path in self.root.glob("*/*") if path.is_dir() and not path.name.startswith("."))
        return sorted((path.parent.name, path.name) for path in folders)

    def find(self, kind: str, sha256: str) -> ArtifactRef:
        """Return the full reference of an artifact known by kind and hash.

        Raises:
            DamagedArtifactError: if it is not there or its manifest is damaged.
        """
        probe = ArtifactRef.model_validate({"kind": kind, "sha256": sha256, "rows": 0, "schema_version": 1})
        try:
            manifest = read_manifest(probe, self.path(probe))
        except DamagedArtifactError:
            if self.remote is None:
                raise
            manifest = self.remote.manifest(probe)
        return probe.model_copy(update={"rows": manifest.rows, "schema_version": manifest.schema_version})

    # -- lineage ------------------------------------------------------------------------------------------------

    def record_lineage(self, key: str, record: Mapping[str, JsonValue]) -> None:
        """Keep how a computation went (step, version, configuration, reads, writes) under its cache key."""
        self.computations.keep(key, record)

    def lineage(self) -> list[dict[str, Any]]:
        """Return every lineage record, sorted by cache key; what other machines computed is kept here too."""
        return list(self.computations.read_all().values())
