"""The history of each corpus, `corpora/<corpus>/<version>.json`: which batch each version took in.

It lies in capo's home or, where artifacts are shared, beside them. An entry is created once and never replaced: of two
who take in a batch at the same time one succeeds.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from prefect.events import emit_event

from capo_core.durable_files import create_file_atomically, write_file_atomically
from capo_core.errors import CorpusError, DamagedArtifactError
from schemas.artifacts import ArtifactRef, SourceFile
from schemas.batches import CorpusHistory, TakenBatch
from schemas.config import CorpusConfig, ExperimentConfig
from tasks.sources import find_source
from tasks.storage.artifact_store import ArtifactStore
from tasks.storage.home import artifacts_url, capo_home
from tasks.storage.object_folder import reach
from tasks.storage.records import open_record, seal_record

BATCH_INGESTED = "capo.batch.ingested"
"""Event of a corpus that has a new version; its payload: version, changed (annotators), config."""

_FOLDER = "corpora"
_SEALED = "taken"


def read_history(corpus: str, version: int | None = None) -> CorpusHistory:
    """Return the history of a corpus, up to a version.

    Args:
        corpus: its configured name.
        version: the last one of interest; None for the newest.

    Raises:
        CorpusError: if there is no such version, or what is there is not a history.
    """
    batches = []
    for number, (place, content) in enumerate(_read_entries(corpus), start=2):
        if not place.endswith(_file(number)):
            raise CorpusError(f"{place}: version {number} of {corpus} is missing; restore it from a backup")
        batches.append(_read_taken(content, place))
    history = CorpusHistory(corpus=corpus, batches=tuple(batches))
    if version is None:
        return history
    if version > history.version:
        raise CorpusError(
            f"corpus {corpus}: version {version} is asked for, the newest is {history.version}; correct corpus.version"
        )
    return history.model_copy(update={"batches": history.batches[: version - 1]})


def list_corpora() -> list[str]:
    """Return the names of the corpora that have taken in a batch."""
    url = artifacts_url()
    if url is None:
        return sorted(path.name for path in (capo_home() / _FOLDER).glob("[!.]*"))
    return sorted({name.split("/")[1] for name in reach(url).sizes(_FOLDER)})


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
    taken = TakenBatch(batch=batch, file=source.name, sha256=source.sha256, taken_at=datetime.now(UTC))
    is_next = version == read_history(corpus).version + 1
    if not (is_next and _create_entry(corpus, version, _write_taken(taken))):
        raise CorpusError(f"corpus {corpus}: another batch was taken in meanwhile; take {source.name} in again")


def replace_batch(corpus: str, version: int, taken: TakenBatch) -> None:
    """Put a batch in place of the one that a version took in: the same without a person who is erased."""
    content = _write_taken(taken)
    url, name = artifacts_url(), f"{_FOLDER}/{corpus}/{_file(version)}"
    if url is None:
        write_file_atomically(capo_home() / name, content)
    else:
        reach(url).write(name, content)


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


def _file(version: int) -> str:
    return f"{version:06}.json"


def _write_taken(taken: TakenBatch) -> bytes:
    return seal_record({_SEALED: taken.model_dump(mode="json")})


def _read_taken(content: bytes, place: str) -> TakenBatch:
    """Return an entry, if no byte of it was changed; entries of before entries were sealed are the batch alone."""
    try:
        entry = json.loads(content)
        if isinstance(entry, dict) and _SEALED in entry:
            entry = open_record(content, place)[_SEALED]
        return TakenBatch.model_validate(entry)
    except (ValueError, RecursionError, DamagedArtifactError) as error:
        raise CorpusError(f"{place}: is not a batch of a corpus: {error}; restore it from a backup") from error


def _create_entry(corpus: str, version: int, content: bytes) -> bool:
    """Write a version's entry unless there is one, and return whether it was written; of several one succeeds."""
    url = artifacts_url()
    if url is not None:
        return reach(url).create(f"{_FOLDER}/{corpus}/{_file(version)}", content)
    try:
        create_file_atomically(capo_home() / _FOLDER / corpus / _file(version), content)
    except FileExistsError:
        return False
    return True


def _read_entries(corpus: str) -> list[tuple[str, bytes]]:
    """Return where each entry is and what it says, by version."""
    url = artifacts_url()
    if url is None:
        paths = sorted((capo_home() / _FOLDER / corpus).glob("[0-9]*.json"))
        return [(str(path), path.read_bytes()) for path in paths]
    objects = reach(url)
    contents = objects.read_many(list(objects.sizes(f"{_FOLDER}/{corpus}")))
    return [(objects.place(name), content) for name, content in sorted(contents.items())]
