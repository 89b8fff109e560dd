"""The history of each corpus, `<home>/corpora/<corpus>/history.json`: which batches it has taken in, in order.

The one file of capo's that is replaced: always whole, under a lock, and only ever by a longer one.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prefect.events import emit_event
from pydantic import ValidationError

from capo_core.errors import CorpusError
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.batches import CorpusHistory, TakenBatch
from schemas.config import CorpusConfig, ExperimentConfig
from tasks.artifact_store import ArtifactStore, write_file_atomically
from tasks.home import capo_home
from tasks.sources import find_source

BATCH_INGESTED = "capo.batch.ingested"
"""Event of a corpus that has a new version; its payload: version, changed (annotators), config."""

_FILE, _LOCK = "history.json", ".lock"


def read_history(corpus: str, version: int | None = None) -> CorpusHistory:
    """Return the history of a corpus, up to a version.

    Args:
        corpus: its configured name.
        version: the last one of interest; None for the newest.

    Raises:
        CorpusError: if there is no such version, or the file is not a history.
    """
    path = _folder(corpus) / _FILE
    try:
        history = CorpusHistory.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        history = CorpusHistory(corpus=corpus)
    except ValidationError as error:
        raise CorpusError(f"{path}: is not the history of a corpus: {error}; restore it from a backup") from error
    if version is None:
        return history
    if version > history.version:
        raise CorpusError(
            f"corpus {corpus}: version {version} is asked for, the newest is {history.version}; correct corpus.version"
        )
    return history.model_copy(update={"batches": history.batches[: version - 1]})


def find_new_source(corpus: CorpusConfig, path: str) -> SourceFile | None:
    """Return the file of a batch, or None where the corpus took in a file of the same content before.

    Raises:
        CorpusError: if the configuration asks for an older version of the corpus, which takes nothing in.
        InputFileError: if there is no such file.
    """
    if corpus.version is not None:
        raise CorpusError(
            f"corpus.version is {corpus.version}: a batch is taken in by the newest version only; set it to null"
        )
    source = find_source(path)
    return None if any(taken.sha256 == source.sha256 for taken in read_history(corpus.name).batches) else source


def append_batch(corpus: str, batch: ArtifactRef, source: SourceFile, *, version: int) -> None:
    """Put a batch at the end of a corpus's history.

    Raises:
        CorpusError: if the new version would have another number: another batch was taken in meanwhile.
    """
    with _locked(corpus):
        history = read_history(corpus)
        if version != history.version + 1:
            raise CorpusError(f"corpus {corpus}: another batch was taken in meanwhile; take {source.name} in again")
        taken = TakenBatch(batch=batch, file=source.name, sha256=source.sha256, taken_at=datetime.now(UTC))
        longer = history.model_copy(update={"batches": (*history.batches, taken)})
        write_file_atomically(_folder(corpus) / _FILE, longer.model_dump_json(indent=1).encode("utf-8"))


def announce_batch(config: ExperimentConfig, version: int, corpus: ArtifactRef) -> None:
    """Emit the event that a corpus has a new version; it carries all that a retraining needs to know."""
    changed_in = ArtifactStore().metadata(corpus)["changed_in"]
    emit_event(
        BATCH_INGESTED,
        resource={
            "prefect.resource.id": f"capo.corpus.{config.corpus.name}",
            "prefect.resource.name": config.corpus.name,
        },
        payload={
            "version": version,
            "changed": [name for name, changed in changed_in.items() if changed == version],
            "config": config.model_dump(mode="json"),
        },
    )


def _folder(corpus: str) -> Path:
    return capo_home() / "corpora" / corpus


@contextmanager
def _locked(corpus: str) -> Iterator[None]:
    folder = _folder(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
