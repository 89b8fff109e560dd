"""All parts of a corpus from raw rows to pairs, by processes of this machine; what was done is not done again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from capo_core.bulk.distribution import distribute_rows
from capo_core.bulk.folders import BulkFolders, count_parts, count_raw, list_raw_annotators
from capo_core.bulk.parts import (
    Counts,
    assign_contexts,
    find_consent,
    ingest_part,
    measure_part,
    pair_part,
    write_corpus_part,
    write_whole,
)
from capo_core.consent import find_objections
from capo_core.corpora.identities import Naming
from capo_core.errors import ConfigError
from capo_core.hashing import hash_file
from schemas.config import ExperimentConfig
from schemas.section import TagPosition

ROWS_PER_PART = 50_000
"""A part's rows are Python objects while they are checked: some 150 MB."""

Report = Callable[[str, int, int], None]


def run_bulk(
    sources: Sequence[Path],
    root: Path,
    config: ExperimentConfig,
    annotators: Sequence[str],
    *,
    n_processes: int,
    naming: Naming | None = None,
    n_parts: int | None = None,
    report: Report = lambda stage, n_done, n_parts: None,
) -> Counts:
    """Return counts of what `root` holds afterwards: corpus, quarantine, features of style, and pairs.

    Args:
        sources: Parquet files, see `distribute_rows`.
        root: a folder of this corpus's own; what an earlier, broken run left there is gone on with.
        config: task, splits, corpus.max_items, pairs and the tag are read.
        annotators: whose pairs to build, as the corpus calls them; people who refuse to be modelled have none.
        n_processes: parts at once.
        naming: what annotators are called from here on, and who was erased; None: as in the files, and nobody.
        n_parts: by default as many as give parts of `ROWS_PER_PART` rows.
        report: told the stage and how many of its parts are done.

    Raises:
        ConfigError: if `root` holds another corpus, or a pair strategy needs all of a corpus in memory.
        CorpusError: if no row can be used or a split would be empty.
        InputFileError: if a source cannot be read.
    """
    _refuse_what_needs_memory(config)
    folders = BulkFolders(root)
    n_rows = sum(pq.read_metadata(source).num_rows for source in sources)
    n_parts = n_parts or -(-n_rows // ROWS_PER_PART)
    _claim(root, sources, config, n_parts, naming)
    names = tuple(f"part-{number:05d}.parquet" for number in range(n_parts))
    with _processes(n_processes) as pool:
        parts = _Parts(folders, names, pool, report)
        if not folders.contexts.exists():
            _ingest(parts, sources, config, naming)
        shutil.rmtree(folders.raw, ignore_errors=True)  # annotators stand there under the names of the files
        objecting = _find_objecting(parts, config)
        parts.run(
            "corpus", write_corpus_part, folders.corpus,
            [(one, folders.contexts, out, objecting["analysis"])
             for one, out in parts.paired(folders.annotations, folders.corpus)],
        )  # fmt: skip
        parts.run("features", measure_part, folders.features, parts.paired(folders.corpus, folders.features))
        tag: TagPosition | None = config.adapter.tag if config.adapter.layout == "shared" else None
        for annotator in annotators:
            out = folders.preferences(annotator)
            settings = (annotator, config.task, config.pairs, tag, objecting["modelling"])
            given = [(*both, *settings) for both in parts.paired(folders.corpus, out)]
            parts.run(f"pairs of {annotator}", pair_part, out, given)
    return count_parts(folders, annotators)


@dataclass(frozen=True)
class _Parts:
    """The parts of a corpus, and the processes that work on them."""

    folders: BulkFolders
    names: tuple[str, ...]
    pool: ProcessPoolExecutor
    report: Report

    def paths(self, folder: Path) -> list[Path]:
        """Return the files of all parts in a folder."""
        return [folder / name for name in self.names]

    def paired(self, *folders: Path) -> list[tuple[Path, ...]]:
        """Return each part's files in several folders."""
        return list(zip(*map(self.paths, folders), strict=True))

    def run(
        self, stage: str, function: Callable[..., Counts], out: Path, arguments: Iterable[tuple[object, ...]]
    ) -> None:
        """Call a function with the arguments of every part that is not in `out` yet."""
        out.mkdir(parents=True, exist_ok=True)
        left = [given for name, given in zip(self.names, arguments, strict=True) if not (out / name).exists()]
        for n_done, future in enumerate([self.pool.submit(function, *given) for given in left], start=1):
            future.result()
            self.report(stage, len(self.names) - len(left) + n_done, len(self.names))


def _ingest(parts: _Parts, sources: Sequence[Path], config: ExperimentConfig, naming: Naming | None) -> None:
    """Put the rows into parts, check them, and split the items."""
    folders = parts.folders
    _distribute(sources, folders, len(parts.names))
    folders.quarantine.mkdir(exist_ok=True)
    known = None if naming is None else _know_everybody(folders.raw, naming)
    given = [
        (*three, config.task, known) for three in parts.paired(folders.raw, folders.annotations, folders.quarantine)
    ]
    parts.run("ingest", ingest_part, folders.annotations, given)
    folders.counts.write_text(json.dumps(count_raw(folders, naming)), encoding="utf-8")
    contexts = assign_contexts(parts.paths(folders.annotations), config.splits, config.corpus.max_items)
    write_whole(contexts, folders.contexts)


def _find_objecting(parts: _Parts, config: ExperimentConfig) -> dict[str, list[str]]:
    """Return who objects to being analysed, and to being modelled."""
    consent = _join_consent(parts.pool.map(find_consent, parts.paths(parts.folders.annotations)))
    return {
        use: sorted(find_objections(consent, use, require_consent=config.corpus.require_consent))
        for use in ("analysis", "modelling")
    }


def _know_everybody(raw: Path, naming: Naming) -> Naming:
    """Return the naming that knows all annotators of the raw rows: one may be mentioned where no row is his own."""
    return replace(naming, known=naming.known | {naming.pseudonym(name) for name in list_raw_annotators(raw)})


def _join_consent(parts: Iterable[dict[str, frozenset[str] | None]]) -> dict[str, frozenset[str] | None]:
    """Return what each annotator consents to in all parts that say something."""
    joined: dict[str, frozenset[str] | None] = {}
    for part in parts:
        for annotator, scopes in part.items():
            before = joined.get(annotator)
            joined[annotator] = before if scopes is None else scopes if before is None else before & scopes
    return joined


def _refuse_what_needs_memory(config: ExperimentConfig) -> None:
    if config.pairs.strategy in ("nearest", "farthest") or config.pairs.weighting == "style_distance":
        raise ConfigError(
            f"pairs.strategy {config.pairs.strategy} with weighting {config.pairs.weighting} compares explanations of "
            "the whole corpus; in bulk set strategy all, same_label or different_label, weighting uniform or relation"
        )


def _claim(root: Path, sources: Sequence[Path], config: ExperimentConfig, n_parts: int, naming: Naming | None) -> None:
    """Keep what decides the outcome beside it, and refuse a folder that was made of something else."""
    root.mkdir(parents=True, exist_ok=True)
    identity = {
        "sources": [hash_file(source) for source in sources],
        "task": config.task.model_dump(mode="json"),
        "splits": config.splits.model_dump(mode="json"),
        "max_items": config.corpus.max_items,
        "pairs": config.pairs.model_dump(mode="json"),
        "require_consent": config.corpus.require_consent,
        "annotator_ids": "keep" if naming is None or naming.keeps_ids else "pseudonymise",
        "erased": [] if naming is None else sorted(naming.erased),
        "n_parts": n_parts,
    }
    known = root / "settings.json"
    if known.exists():
        if json.loads(known.read_bytes()) != identity:
            raise ConfigError(f"{root}: was made of other files or settings ({known.name}); name another folder")
        return
    if any(root.iterdir()):
        raise ConfigError(f"{root}: is not empty; name a new folder")
    known.write_text(json.dumps(identity, ensure_ascii=False, indent=1), encoding="utf-8")


def _distribute(sources: Sequence[Path], folders: BulkFolders, n_parts: int) -> None:
    if not folders.raw.exists():
        begun = folders.root / ".raw"
        if begun.exists():
            for left in begun.iterdir():
                left.unlink()
        begun.mkdir(exist_ok=True)
        distribute_rows(sources, begun, n_parts)
        begun.rename(folders.raw)


@contextmanager
def _processes(n: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that compute with one thread each: the parts are what runs beside each other."""
    names = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= dict.fromkeys(names, "1")
    try:
        with ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
