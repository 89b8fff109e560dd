"""What lies where once a corpus is in parts, and how much of it there is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from capo_core.bulk.parts import Counts
from capo_core.corpora.identities import Naming
from capo_core.errors import CorpusError


@dataclass(frozen=True)
class BulkFolders:
    """Where the parts of a corpus lie under one folder; each holds `part-00000.parquet` and so on."""

    root: Path

    @property
    def raw(self) -> Path:
        """Rows as they came, while they are needed."""
        return self.root / "raw"

    @property
    def counts(self) -> Path:
        """What became of the raw rows: one JSON file."""
        return self.root / "counts.json"

    @property
    def annotations(self) -> Path:
        """`ANNOTATIONS`: rows that met every rule."""
        return self.root / "annotations"

    @property
    def quarantine(self) -> Path:
        """`QUARANTINE`: rows that did not, with their reasons."""
        return self.root / "quarantine"

    @property
    def contexts(self) -> Path:
        """Which context and split every item has: one file."""
        return self.root / "contexts.parquet"

    @property
    def corpus(self) -> Path:
        """`CORPUS`."""
        return self.root / "corpus"

    @property
    def features(self) -> Path:
        """Features of style by item_id, annotator_id and label."""
        return self.root / "features"

    def preferences(self, annotator_id: str) -> Path:
        """`PREFERENCES` of one annotator."""
        return self.root / "preferences" / annotator_id


def count_raw(folders: BulkFolders, naming: Naming | None) -> Counts:
    """Return how many raw rows there were and what became of them, quarantined ones by reason too.

    Raises:
        CorpusError: if rows were lost.
    """
    raw, accepted, reasons = _rows(folders.raw), _rows(folders.annotations), _group(folders.quarantine, "reason")
    erased = 0
    if naming is not None and naming.erased:
        erased = sum(n for name, n in list_raw_annotators(folders.raw).items() if naming.is_erased(name))
    if raw != accepted + sum(reasons.values()) + erased:
        lost = f"{raw} rows in, {accepted} accepted, {sum(reasons.values())} quarantined, {erased} of erased people"
        raise CorpusError(f"{folders.root}: {lost}; remove the folder and begin again")
    counts = {"rows_in": raw, "rows_accepted": accepted, "rows_quarantined": sum(reasons.values())}
    counts |= {"rows_erased": erased} if erased else {}
    return counts | {f"quarantined_{reason}": n for reason, n in reasons.items()}


def count_parts(folders: BulkFolders, annotators: Sequence[str]) -> Counts:
    """Return what became of the raw rows, and how many rows each kind of part holds, annotations by split."""
    counts: Counts = json.loads(folders.counts.read_bytes())
    counts |= {f"annotations_{split}": n for split, n in _group(folders.corpus, "split").items()}
    counts["explanations_measured"] = _rows(folders.features)
    return counts | {f"pairs.{name}": _rows(folders.preferences(name)) for name in annotators}


def _rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("part-*.parquet"))


def _group(folder: Path, column: str) -> dict[str, int]:
    scan = pl.scan_parquet(folder / "part-*.parquet")
    return dict(scan.group_by(column).len().sort(column).collect(engine="streaming").iter_rows())


def list_raw_annotators(raw: Path) -> dict[str, int]:
    """Return the number of raw rows of each annotator, as the files call them."""
    scan = pl.scan_parquet(raw / "part-*.parquet").select(pl.col("annotator_id").cast(pl.String).str.strip_chars())
    counts = scan.drop_nulls().group_by("annotator_id").len().sort("annotator_id").collect(engine="streaming")
    return {name: n for name, n in counts.iter_rows() if name}
