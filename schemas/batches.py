"""The batches a corpus has taken in, in order: with the configured files they are its versions."""

from __future__ import annotations

from datetime import datetime

from schemas.artifacts import ArtifactRef, Sha256
from schemas.section import Section, Slug


class TakenBatch(Section):
    """One batch of a corpus.

    Attributes:
        batch: what was read of it.
        file: name of the file it came in.
        sha256: digest of that file: the same content is taken in once.
        taken_at: when.
    """

    batch: ArtifactRef
    file: str
    sha256: Sha256
    taken_at: datetime


class CorpusHistory(Section):
    """What a corpus has taken in; version n is the configured files with the first n - 1 batches."""

    corpus: Slug
    batches: tuple[TakenBatch, ...] = ()

    @property
    def version(self) -> int:
        """Number of the newest version."""
        return 1 + len(self.batches)
