"""What the command line does about annotators as people: who is who, and erasing somebody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from capo_core.consent import NEEDED, find_objections, read_consent
from capo_core.corpora import find_annotators
from capo_core.corpora.identities import Naming
from schemas.artifacts import ArtifactRef
from schemas.config import ExperimentConfig
from tasks.inbox import TAKEN, inbox_root
from tasks.people import read_erasures
from tasks.sources import annotator_secret, find_source
from tasks.storage.artifact_store import ArtifactStore


def list_raw_files(config: ExperimentConfig, further: Sequence[Path] = ()) -> list[Path]:
    """Return the files that a corpus was read from, as far as they are known: configured, taken from its inbox, named.

    Raises:
        InputFileError: if a configured file is not there.
    """
    configured = [Path(find_source(path).path) for path in config.corpus.paths]
    taken = inbox_root() / config.corpus.name / TAKEN
    return [
        *configured,
        *(sorted(path for path in taken.iterdir() if path.is_file()) if taken.is_dir() else []),
        *further,
    ]


def find_raw_ids(config: ExperimentConfig, paths: Sequence[Path]) -> dict[str, dict[str, set[str]]]:
    """Return which raw ids stand behind each pseudonym, and in which files; by this machine's key, stored nowhere.

    Raises:
        InputFileError: if a file cannot be read.
    """
    naming = Naming(config.corpus.name, annotator_secret())
    found: dict[str, dict[str, set[str]]] = {}
    for path in paths:
        for raw in find_annotators([path], config.corpus.format):
            found.setdefault(naming.pseudonym(raw), {}).setdefault(raw, set()).add(path.name)
    return found


def print_annotators(
    console: Console, config: ExperimentConfig, corpus: ArtifactRef, further: Sequence[Path] = ()
) -> None:
    """Print who is who: for every annotator the name in what is stored, the id in the raw files, consent and number.

    Args:
        console: prints; nothing is stored.
        config: the experiment.
        corpus: its newest version.
        further: files to look into beside those that are known, e.g. batches that came by another way.
    """
    frame = ArtifactStore().read_table(corpus)
    n_annotations = dict(frame.group_by("annotator_id").len().iter_rows())
    consent = read_consent(frame)
    keeps = config.corpus.annotator_ids == "keep"
    raw_ids = find_raw_ids(config, list_raw_files(config, further))
    erased = {entry.pseudonym for entry in read_erasures(config.corpus.name)}
    names = {raw: raw for behind in raw_ids.values() for raw in behind} if keeps else {one: one for one in raw_ids}
    table = Table()
    for title in ("Annotator", "Id in the files", "Annotations", "Consent", "Left out of"):
        table.add_column(title, justify="right" if title == "Annotations" else "left", overflow="fold")
    for name in sorted({*n_annotations, *names}):
        behind = (name,) if keeps else sorted(raw_ids.get(name, {}))
        scopes = consent.get(name)
        uses = [use for use in NEEDED if find_objections(
            {name: scopes}, use, require_consent=config.corpus.require_consent)]  # fmt: skip
        is_erased = any(pseudonym in erased for pseudonym, raw in raw_ids.items() if name in (pseudonym, *raw))
        table.add_row(
            name,
            ", ".join(behind) or "not in the files read",
            str(n_annotations.get(name, 0)),
            "not stated" if scopes is None else ", ".join(sorted(scopes)) or "none",
            "everything: erased" if is_erased else ", ".join(uses),
        )
    console.print(table)
