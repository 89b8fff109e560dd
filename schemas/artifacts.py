"""References to immutable artifacts and the manifest each artifact carries."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

ArtifactKind = Literal[
    "annotations",
    "batch",
    "corpus",
    "agreement",
    "convergence",
    "drift",
    "stability",
    "style",
    "demonstrations",
    "preferences",
    "reference",
    "adapter",
    "value_profile",
    "generations",
    "evaluation",
    "retention",
    "experiment",
    "verdicts",
    "validation_tasks",
    "validation_key",
    "ratings",
    "report",
    "promotion",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest as 64 lower-case hexadecimal digits."""

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
"""A plain file name inside an artifact: no directory separators, no leading dot."""

_REFERENCE = re.compile(
    r"^capo:(?P<kind>[a-z_]+)/(?P<sha256>[0-9a-f]{64})\?rows=(?P<rows>\d+)&version=(?P<version>\d+)$"
)


class ArtifactRef(BaseModel):
    """What tasks hand each other instead of data: the kind and content hash of one artifact.

    Attributes:
        kind: what the artifact holds; see `schemas.frames` for the columns of each kind.
        sha256: digest of the artifact's manifest, and through it of every byte of the artifact.
        rows: number of rows of its main table, 0 for kinds without one.
        schema_version: version of the kind's layout, from `schemas.frames.SCHEMA_VERSIONS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ArtifactKind
    sha256: Sha256
    rows: int = Field(ge=0)
    schema_version: int = Field(ge=1)

    def __str__(self) -> str:
        return f"capo:{self.kind}/{self.sha256}?rows={self.rows}&version={self.schema_version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference written by `str(ref)`.

        Raises:
            ValueError: if `text` is anything but such a reference.
        """
        match = _REFERENCE.match(text)
        if match is None:
            raise ValueError(f"not an artifact reference: {text[:120]!r}")
        return cls.model_validate(
            {
                "kind": match["kind"],
                "sha256": match["sha256"],
                "rows": int(match["rows"]),
                "schema_version": int(match["version"]),
            }
        )


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    n_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """The content of an artifact's `manifest.json`. Its canonical JSON is what the artifact's sha256 is taken of.

    Only content goes in: no times, no host names, no parents. Two computations with the same outcome
    are therefore the same artifact; how it came about is in the store's lineage records.

    Attributes:
        metadata: counts and settings that belong to the content (for example rows quarantined by reason).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ArtifactKind
    schema_version: int = Field(ge=1)
    rows: int = Field(ge=0)
    files: dict[FileName, FileEntry]
    metadata: dict[str, JsonValue]


class SourceFile(BaseModel):
    """A raw input file, known by its content; where it lies is not part of its identity.

    Attributes:
        path: where to read it.
        name: its name without directory, which rows and messages carry.
        sha256: digest of its bytes when the run began.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    name: str
    sha256: Sha256

    def cache_identity(self) -> JsonValue:
        """Return what a cache key takes of the file."""
        return {"name": self.name, "sha256": self.sha256}


class ModelRef(BaseModel):
    """A resolved model: files on this machine and the fingerprint they are known by.

    Attributes:
        id: the id as configured, e.g. `bundled:smollm2-135m-instruct`.
        path: folder with configuration, tokenizer and safetensors.
        fingerprint: commit or content digest; the only part that enters cache keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    path: str
    fingerprint: str = Field(min_length=7)

    def cache_identity(self) -> JsonValue:
        """Return what a cache key takes of the model."""
        return {"id": self.id, "fingerprint": self.fingerprint}
