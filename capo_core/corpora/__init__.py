"""Raw annotation files of every supported form → one frame of annotations, one of refused rows, counts of quirks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from capo_core.corpora.identities import ERASED_ROWS, Naming, list_annotators, protect_identities
from capo_core.corpora.lewidi import read_annotators, read_lewidi
from capo_core.corpora.tabular import read_changes, read_tables
from capo_core.corpora.varierr import annotator_name, read_varierr
from capo_core.errors import CorpusError, InputFileError
from capo_core.quality import Candidate, check_candidates, check_withdrawals
from capo_core.text import text_id
from schemas.config import TaskSpec

CorpusFormat = Literal["varierr", "lewidi", "table"]

_READERS = {"varierr": read_varierr, "lewidi": read_lewidi, "table": read_tables}


@dataclass(frozen=True)
class IngestResult:
    """What became of the raw files.

    Attributes:
        annotations: `ANNOTATIONS`, sorted by item_id, annotator_id, label.
        quarantine: `QUARANTINE`, in reading order.
        counts: rows_in = rows_accepted + rows_quarantined + rows_erased (those of erased people, where there are
            any), rows quarantined by reason, and every quirk counted.
    """

    annotations: pl.DataFrame
    quarantine: pl.DataFrame
    counts: dict[str, int]


@dataclass(frozen=True)
class BatchContent:
    """What became of a later file.

    Attributes:
        annotations: `ANNOTATIONS`, sorted by item_id, annotator_id, label.
        withdrawals: `WITHDRAWALS`, in reading order.
        quarantine: `QUARANTINE`, in reading order, refused withdrawals last.
        counts: as of `IngestResult`, withdrawals among rows_in, which are then those accepted, quarantined and erased,
            and withdrawals.
    """

    annotations: pl.DataFrame
    withdrawals: pl.DataFrame
    quarantine: pl.DataFrame
    counts: dict[str, int]


def read_corpus(
    paths: Sequence[Path],
    corpus_format: CorpusFormat,
    task: TaskSpec,
    annotators_path: Path | None = None,
    naming: Naming | None = None,
) -> IngestResult:
    """Return the annotations of raw files, the rows refused with their reasons, and the count of every quirk.

    A row is one (item, annotator, label, explanation); a record that cannot be read at all is one row too.

    Args:
        paths: files, read in order; where two rows say the same the first stays.
        corpus_format: `varierr` (JSON Lines), `lewidi` (JSON by id), `table` (CSV, JSON Lines or Parquet).
        task: which labels exist and whether an annotator may give several.
        annotators_path: metadata by annotator id (LeWiDi form), added to each annotation's metadata as `annotator`.
        naming: what annotators are called from here on, and who was erased; None: as in the files, and nobody.

    Raises:
        InputFileError: if a file cannot be read as a whole.
        CorpusError: if no row at all is usable; summarises the reasons.
    """
    candidates, quirks = _READERS[corpus_format](list(paths))
    [candidates] = _identify([candidates], quirks, corpus_format, annotators_path, naming)
    result = _check(candidates, quirks, corpus_format, task)
    if result.annotations.is_empty():
        raise CorpusError(_describe_refusal(paths, result.quarantine))
    return result


def find_annotators(paths: Sequence[Path], corpus_format: CorpusFormat) -> dict[str, int]:
    """Return the number of rows of each annotator as the files call them, refused rows included, sorted by id.

    Raises:
        InputFileError: if a file cannot be read as a whole.
    """
    found: Counter[str] = Counter()
    for path in paths:
        if corpus_format == "table" or path.suffix.lower() in (".csv", ".parquet"):
            found.update(list_annotators([row for rows in read_changes(path) for row in rows]))
        else:
            found.update(list_annotators(_READERS[corpus_format]([path])[0]))
    return dict(sorted(found.items()))


def read_batch(
    path: Path,
    corpus_format: CorpusFormat,
    task: TaskSpec,
    annotators_path: Path | None = None,
    naming: Naming | None = None,
) -> BatchContent:
    """Return what a later file says about a corpus: annotations, new or corrected, and withdrawals.

    The file is a table (.csv, .parquet, or any where the corpus is one), whose column `withdrawn` takes back what its
    rows name (an item of an annotator by its texts or its id in earlier files; everything the annotator said, where
    they name no item), or a file in the corpus's own format, which cannot withdraw.

    Args:
        path: the file.
        corpus_format: of the corpus.
        task: see `read_corpus`.
        annotators_path: see `read_corpus`.
        naming: see `read_corpus`.

    Raises:
        InputFileError: if the file cannot be read as a whole.
        CorpusError: if no row at all is usable; summarises the reasons.
    """
    withdrawn: list[Candidate] = []
    quirks: Counter[str] = Counter()
    if corpus_format == "table" or path.suffix.lower() in (".csv", ".parquet"):
        corpus_format = "table"
        candidates, withdrawn = read_changes(path)
    else:
        candidates, quirks = _READERS[corpus_format]([path])
    candidates, withdrawn = _identify([candidates, withdrawn], quirks, corpus_format, annotators_path, naming)
    result = _check(candidates, quirks, corpus_format, task)
    withdrawals, refused = check_withdrawals(withdrawn)
    quarantine = pl.concat([result.quarantine, refused])
    if result.annotations.is_empty() and withdrawals.is_empty():
        raise CorpusError(_describe_refusal([path], quarantine))
    counts = result.counts | {
        "rows_in": result.counts["rows_in"] + len(withdrawn),
        "rows_quarantined": quarantine.height,
        "withdrawals": withdrawals.height,
        **count_reasons(quarantine),
    }
    return BatchContent(result.annotations, withdrawals, quarantine, counts)


def _identify(
    groups: list[list[Candidate]],
    quirks: Counter[str],
    corpus_format: CorpusFormat,
    annotators_path: Path | None,
    naming: Naming | None,
) -> list[list[Candidate]]:
    """Return groups of rows with what is known of their annotators, and under the names these have from now on."""
    if annotators_path is not None:
        groups[0], annotator_counts = _add_annotators(groups[0], annotators_path)
        quirks.update(annotator_counts)
    if naming is not None:
        spell = annotator_name if corpus_format == "varierr" else _as_it_stands
        groups, counts = protect_identities(groups, naming, spell)
        quirks.update(counts)
    return groups


def _as_it_stands(annotator: object) -> object:
    return annotator


def _check(
    candidates: list[Candidate], quirks: Counter[str], corpus_format: CorpusFormat, task: TaskSpec
) -> IngestResult:
    """Return what becomes of rows that were read: see `read_corpus`; there may be no usable one among them."""
    annotations, quarantine = check_candidates(candidates, task)
    if annotations.height + quarantine.height != len(candidates):
        raise AssertionError(
            f"{len(candidates)} rows in, {annotations.height} accepted, {quarantine.height} quarantined"
        )
    counts = {
        "rows_in": len(candidates) + quirks[ERASED_ROWS],
        "rows_accepted": annotations.height,
        "rows_quarantined": quarantine.height,
        **count_reasons(quarantine),
        **{name: quirks[name] for name in sorted(quirks)},
        **_count_identities(candidates, corpus_format),
        **count_surface_habits(annotations),
        "items": annotations["item_id"].n_unique(),
        "contexts": annotations["context_id"].n_unique(),
        "annotators": annotations["annotator_id"].n_unique(),
    }
    return IngestResult(annotations, quarantine, counts)


def _add_annotators(candidates: list[Candidate], path: Path) -> tuple[list[Candidate], Counter[str]]:
    """Return the candidates with their annotator's metadata under `annotator`, and counts of repairs and gaps."""
    annotators, n_repaired = read_annotators(path)
    if any("annotator" in candidate.metadata for candidate in candidates):
        raise InputFileError(f"{path}: the corpus has a column 'annotator' of its own; rename it to use this file")
    names = [str(candidate.annotator_id).strip() for candidate in candidates]
    present = {name for name, candidate in zip(names, candidates, strict=True) if candidate.annotator_id is not None}
    counts = Counter(
        repaired_trailing_commas_in_annotator_metadata=n_repaired,
        annotators_without_metadata=len(present - annotators.keys()),
    )
    extended = [
        replace(candidate, metadata={**candidate.metadata, "annotator": annotators[name]})
        if name in annotators
        else candidate
        for name, candidate in zip(names, candidates, strict=True)
    ]
    return extended, counts


def count_reasons(quarantine: pl.DataFrame) -> dict[str, int]:
    """Return the number of refused rows under `quarantined_<reason>`, by name."""
    counts = quarantine.group_by("reason").len().sort("reason")
    return {f"quarantined_{reason}": n for reason, n in counts.iter_rows()}


def _count_identities(candidates: Sequence[Candidate], corpus_format: CorpusFormat) -> dict[str, int]:
    """Return how far the files' own ids are from naming one text pair each, refused rows included."""
    texts_of: defaultdict[str, set[str]] = defaultdict(set)
    ids_of: defaultdict[str, set[str]] = defaultdict(set)
    records_of: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    for candidate in candidates:
        if candidate.source_id is None:
            continue
        source_id = str(candidate.source_id)
        records_of[source_id].add((candidate.source_file, candidate.source_line))
        if isinstance(candidate.text_a, str) and isinstance(candidate.text_b, str):
            text = text_id(candidate.text_a, candidate.text_b)
            texts_of[source_id].add(text)
            ids_of[text].add(source_id)
    counts = {
        "source_ids": len(records_of),
        "source_ids_standing_for_distinct_texts": sum(len(texts) > 1 for texts in texts_of.values()),
        "texts_under_several_source_ids": sum(len(ids) > 1 for ids in ids_of.values()),
    }
    if corpus_format != "table":  # in a table every annotation of an item repeats its id
        counts["source_ids_repeated"] = sum(len(records) > 1 for records in records_of.values())
    return counts


def count_surface_habits(annotations: pl.DataFrame) -> dict[str, int]:
    """Return counts of accepted explanations whose form could give their annotator away, in all and by annotator."""
    explanation = pl.col("explanation")
    stripped = explanation.str.strip_chars()
    habits = annotations.group_by("annotator_id").agg(
        (explanation != stripped).sum().alias("explanations_with_stray_white_space"),
        (explanation != explanation.str.strip_chars_start()).sum().alias("explanations_opening_with_white_space"),
        stripped.str.ends_with(".").sum().alias("explanations_ending_with_full_stop"),
        pl.len().alias("annotations"),
    )
    counts: dict[str, int] = {}
    for name in [column for column in habits.columns if column != "annotator_id"]:
        if name != "annotations":
            counts[name] = int(habits[name].sum())
        for annotator, n in habits.sort("annotator_id").select("annotator_id", name).iter_rows():
            counts[f"{name}.{annotator}"] = n
    return counts


def _describe_refusal(paths: Sequence[Path], quarantine: pl.DataFrame) -> str:
    """Return the message for a corpus without a single usable row."""
    files = ", ".join(str(path) for path in paths)
    if quarantine.is_empty():
        return f"{files}: no annotations at all; is corpus.format right?"
    reasons = ", ".join(
        f"{reason} {n}"
        for reason, n in quarantine["reason"].value_counts().sort("count", "reason").reverse().iter_rows()
    )
    first = quarantine.row(0, named=True)
    return (
        f"{files}: none of {quarantine.height} rows can be used ({reasons}). The first: {first['source_file']}, "
        f"line or record {first['source_line']}: {first['detail']}. Check corpus.format and the task's labels"
    )
