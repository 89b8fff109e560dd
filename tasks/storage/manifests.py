"""Is a folder the artifact that a reference names? Its manifest and its files say so, byte for byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from capo_core.errors import DamagedArtifactError
from capo_core.hashing import hash_file
from schemas.artifacts import ArtifactRef, FileEntry, Manifest

MANIFEST_NAME = "manifest.json"


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Return name, digest and size of every file of a folder that has no manifest yet."""
    return {
        path.name: FileEntry(sha256=hash_file(path), n_bytes=path.stat().st_size) for path in sorted(folder.iterdir())
    }


def check_folder(ref: ArtifactRef, folder: Path, place: str | None = None) -> Manifest:
    """Return the manifest of a folder after hashing it and every file it names.

    Args:
        ref: the artifact it should be.
        folder: holds the files and the manifest.
        place: where the folder was copied from, if it was; errors name it.

    Raises:
        DamagedArtifactError: if the artifact is missing, incomplete, has a file too many or any byte changed.
    """
    place = place or str(folder)
    manifest = read_manifest(ref, folder, place)
    present = {path.name for path in folder.iterdir()} - {MANIFEST_NAME}
    if present != set(manifest.files):
        difference = sorted(present ^ set(manifest.files))
        raise DamagedArtifactError(f"artifact {place}: files missing or not its own: {', '.join(difference)}")
    for name, entry in manifest.files.items():
        if hash_file(folder / name) != entry.sha256:
            raise DamagedArtifactError(f"artifact {place}: file {name} does not match its sha256; it was changed")
    if (manifest.rows, manifest.schema_version) != (ref.rows, ref.schema_version):
        raise DamagedArtifactError(f"artifact {place}: {ref} is not its reference, which says other rows or version")
    return manifest


def read_manifest(ref: ArtifactRef, folder: Path, place: str | None = None) -> Manifest:
    """Return the manifest in a folder after hashing it, but none of the files it names.

    Raises:
        DamagedArtifactError: if it is missing or not that of the artifact.
    """
    place = place or str(folder)
    try:
        content = (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise DamagedArtifactError(f"artifact {place} is missing or unreadable ({error.strerror})") from error
    return parse_manifest(ref, content, place)


def parse_manifest(ref: ArtifactRef, content: bytes, place: str) -> Manifest:
    """Return the manifest that `content` is, read at `place`.

    Raises:
        DamagedArtifactError: if it is not that of the artifact.
    """
    if hashlib.sha256(content).hexdigest() != ref.sha256:
        raise DamagedArtifactError(f"artifact {place}: {MANIFEST_NAME} does not match its sha256; it was changed")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise DamagedArtifactError(f"artifact {place}: {MANIFEST_NAME} is not a manifest: {error}") from error
