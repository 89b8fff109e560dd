"""Artifacts and lineage records at a URL that several machines share.

An artifact is the objects `<kind>/<sha256>/<file>`. Its manifest is written last and its name is its digest, so what
has no manifest does not exist, and whoever writes the same artifact at the same time writes the same bytes. What is
read goes to a folder of this machine and is hashed there before anything looks at it.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import JsonValue

from capo_core.errors import DamagedArtifactError
from schemas.artifacts import ArtifactKind, ArtifactRef, Manifest
from tasks.storage.manifests import MANIFEST_NAME, check_folder, parse_manifest
from tasks.storage.object_folder import ObjectFolder
from tasks.storage.records import open_record, seal_record

_LINEAGE = "lineage"
_KINDS = frozenset(get_args(ArtifactKind))


class RemoteArtifacts:
    """The artifacts, and the lineage records beside them, under one URL."""

    def __init__(self, objects: ObjectFolder) -> None:
        self.objects = objects
        self.url = objects.url

    # -- writing ------------------------------------------------------------------------------------------------

    def publish(self, ref: ArtifactRef, folder: Path) -> None:
        """Upload a whole artifact, unless it is there and whole; a damaged one is set aside first.

        Args:
            ref: the artifact.
            folder: of this machine, verified.
        """
        if self.has(ref):
            try:
                self.verify(ref)
            except DamagedArtifactError:
                self._set_aside(ref)
            else:
                return
        for path in sorted(folder.iterdir()):
            if path.name != MANIFEST_NAME:
                self.objects.upload(_name(ref, path.name), path)
        # Refused if another machine was first: its files were these.
        self.objects.create(_name(ref, MANIFEST_NAME), (folder / MANIFEST_NAME).read_bytes())

    def _set_aside(self, ref: ArtifactRef) -> None:
        """Move what is under an artifact's name to `damaged/`, the manifest before the files it vouches for."""
        aside = f"damaged/{ref.kind}-{ref.sha256}-{uuid.uuid4().hex[:8]}"
        names = list(self.objects.sizes(_name(ref)))
        for name in names:
            self.objects.copy(name, f"{aside}/{name.rpartition('/')[2]}")
        for name in sorted(names, key=lambda name: not name.endswith(f"/{MANIFEST_NAME}")):
            self.objects.delete(name)

    # -- reading ------------------------------------------------------------------------------------------------

    def place(self, ref: ArtifactRef) -> str:
        """Return an artifact's URL."""
        return self.objects.place(_name(ref))

    def has(self, ref: ArtifactRef) -> bool:
        """Return whether there is such an artifact, whole or damaged."""
        return self.objects.read(_name(ref, MANIFEST_NAME)) is not None

    def manifest(self, ref: ArtifactRef) -> Manifest:
        """Return an artifact's manifest after hashing it.

        Raises:
            DamagedArtifactError: if it is missing or was changed; names its URL.
        """
        content = self.objects.read(_name(ref, MANIFEST_NAME))
        if content is None:
            raise DamagedArtifactError(f"artifact {self.place(ref)} is missing")
        return parse_manifest(ref, content, self.place(ref))

    def download(self, ref: ArtifactRef, folder: Path) -> None:
        """Fill an empty folder with an artifact as it is at the URL now, not yet hashed.

        Raises:
            DamagedArtifactError: if it is missing; names its URL.
        """
        names = list(self.objects.sizes(_name(ref)))
        if _name(ref, MANIFEST_NAME) not in names:
            raise DamagedArtifactError(f"artifact {self.place(ref)} is missing")
        for name in names:
            self.objects.download(name, folder / name.rpartition("/")[2])

    def verify(self, ref: ArtifactRef) -> None:
        """Hash an artifact as it is at the URL now.

        Raises:
            DamagedArtifactError: if it is missing, incomplete, has a file too many or any byte changed; names its URL.
        """
        with tempfile.TemporaryDirectory(prefix="capo-verify-") as folder:
            self.download(ref, Path(folder))
            check_folder(ref, Path(folder), self.place(ref))

    def sizes(self) -> dict[tuple[str, str], int]:
        """Return the bytes of every artifact that has a manifest, by (kind, sha256) and sorted."""
        sizes = self.objects.sizes()
        found = {}
        for folder, names in list_folders(sizes).items():
            kind, _, sha256 = folder.partition("/")
            if f"{folder}/{MANIFEST_NAME}" in names:
                found[kind, sha256] = sum(sizes[name] for name in names)
        return dict(sorted(found.items()))

    # -- lineage ------------------------------------------------------------------------------------------------

    def read_record(self, key: str) -> dict[str, Any] | None:
        """Return the record of the computation with a cache key, None if there is none.

        Raises:
            DamagedArtifactError: if it is none of that key.
        """
        content = self.objects.read(_record_name(key))
        return None if content is None else self._parse_record(key, content)

    def create_record(self, key: str, record: Mapping[str, JsonValue]) -> bool:
        """Keep the record of a computation unless there is one, and return whether it was kept."""
        return self.objects.create(_record_name(key), seal_record(record))

    def replace_record(self, key: str, record: Mapping[str, JsonValue]) -> None:
        """Keep the record of a computation in place of one that is there."""
        self.objects.write(_record_name(key), seal_record(record))

    def records(self, *, without: Container[str]) -> dict[str, dict[str, Any]]:
        """Return the records of all computations but those whose cache keys are given, by cache key."""
        found = self.objects.read_many([_record_name(key) for key in sorted(self.record_keys()) if key not in without])
        return {Path(name).stem: self._parse_record(Path(name).stem, content) for name, content in found.items()}

    def record_keys(self) -> set[str]:
        """Return the cache key of every computation that has a record."""
        return {Path(name).stem for name in self.objects.sizes(_LINEAGE)}

    def _parse_record(self, key: str, content: bytes) -> dict[str, Any]:
        place = self.objects.place(_record_name(key))
        record = open_record(content, place)
        if record.get("key") == key:
            return record
        raise DamagedArtifactError(f"{place} is no lineage record of that key; delete it, and it is computed again")


def list_folders(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of objects that are files of artifacts, finished or not, by `<kind>/<sha256>`."""
    folders: dict[str, list[str]] = {}
    for name in names:
        kind, _, rest = name.partition("/")
        sha256, _, file = rest.partition("/")
        if kind in _KINDS and file:
            folders.setdefault(f"{kind}/{sha256}", []).append(name)
    return folders


def _name(ref: ArtifactRef, file: str | None = None) -> str:
    folder = f"{ref.kind}/{ref.sha256}"
    return folder if file is None else f"{folder}/{file}"


def _record_name(key: str) -> str:
    return f"{_LINEAGE}/{key}.json"
