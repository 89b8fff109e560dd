"""What becomes of a part: annotations and refused rows, the corpus, features of style, one annotator's pairs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from capo_core.bulk.distribution import SOURCE_FILE, SOURCE_LINE, identity
from capo_core.consent import read_consent
from capo_core.corpora import count_reasons
from capo_core.corpora.identities import Naming, protect_identities
from capo_core.corpora.tabular import read_tables
from capo_core.preference_pairs import build_preferences
from capo_core.quality import Candidate, check_candidates, join_contexts
from capo_core.splits import split_contexts
from capo_core.stylometry.features import style_features
from schemas.config import SplitConfig, TaskSpec
from schemas.frames import CORPUS, check_columns
from schemas.section import TagPosition
from schemas.training import PairConfig

Counts = dict[str, int]


def ingest_part(raw: Path, annotations: Path, quarantine: Path, task: TaskSpec, naming: Naming | None = None) -> Counts:
    """Check a part's raw rows, write its `ANNOTATIONS` and `QUARANTINE`, and return how many rows went where.

    `context_id` is that of the part alone; `write_corpus_part` puts in the corpus's.

    Args:
        raw: of `distribute_rows`.
        annotations: to be written; so is `quarantine`.
        task: see `capo_core.quality.check_candidates`.
        naming: see `capo_core.corpora.read_corpus`; `known` names everybody who may be mentioned in another's rows.
    """
    candidates = [_with_source(candidate) for candidate in read_tables([raw])[0]] if _has_rows(raw) else []
    n_rows = len(candidates)
    if naming is not None:
        [candidates], _ = protect_identities([candidates], naming, lambda name: name)
    accepted, refused = check_candidates(candidates, task)
    write_whole(accepted, annotations)
    write_whole(refused, quarantine)
    return {
        "rows_in": n_rows,
        "rows_accepted": accepted.height,
        "rows_quarantined": refused.height,
        "rows_erased": n_rows - len(candidates),
        **count_reasons(refused),
    }


def _has_rows(path: Path) -> bool:
    return bool(pl.scan_parquet(path).select(pl.len()).collect().item())


def _with_source(candidate: Candidate) -> Candidate:
    """Return a candidate read from a part as one read from the file that the part's row came from."""
    metadata = dict(candidate.metadata)
    file, line = metadata.pop(SOURCE_FILE), metadata.pop(SOURCE_LINE)
    record = candidate.record
    if isinstance(record, dict):
        record = {name: cell for name, cell in record.items() if name not in (SOURCE_FILE, SOURCE_LINE)}
    return replace(candidate, source_file=str(file), source_line=int(str(line)), metadata=metadata, record=record)


def assign_contexts(annotations: list[Path], config: SplitConfig, max_items: int | None = None) -> pl.DataFrame:
    """Return `item_id`, `context_id` and `split` of all parts' items, sorted by item_id: what `add_context_ids` and
    `assign_splits` give on all annotations at once.

    Texts are compared by a hash of 64 bits, so memory is some 100 bytes per item.

    Args:
        annotations: `ANNOTATIONS` of every part.
        config: shares of the splits, and the seed.
        max_items: upper bound on items kept; None keeps all.

    Raises:
        CorpusError: if a split would be empty.
    """
    texts = [identity(name).hash().alias(name) for name in ("text_a", "text_b")]
    items = pl.concat(pl.read_parquet(path, columns=["item_id", "text_a", "text_b"]).unique("item_id").select(
        "item_id", *texts) for path in annotations).sort("item_id")  # fmt: skip
    _, ends = np.unique(np.concatenate([items["text_a"].to_numpy(), items["text_b"].to_numpy()]), return_inverse=True)
    found = join_contexts(items["item_id"], *np.split(ends, 2))
    sizes = found.group_by("context_id").agg(pl.len().cast(pl.UInt32).alias("n_items")).sort("context_id")
    return found.join(split_contexts(sizes, config, max_items), on="context_id").sort("item_id")


def find_consent(annotations: Path) -> dict[str, frozenset[str] | None]:
    """Return the scopes that each annotator of a part consents to, as far as its rows say (`capo_core.consent`)."""
    return read_consent(pl.read_parquet(annotations, columns=["annotator_id", "metadata"]))


def write_corpus_part(annotations: Path, contexts: Path, corpus: Path, left_out: Collection[str] = ()) -> Counts:
    """Write a part's `CORPUS` and return how many annotations each split has.

    Args:
        annotations: of `ingest_part`.
        contexts: Parquet of `assign_contexts`.
        corpus: to be written.
        left_out: annotators who do not consent to analysis.
    """
    own = pl.read_parquet(annotations).drop("context_id").filter(~pl.col("annotator_id").is_in(list(left_out)))
    known = pl.scan_parquet(contexts).filter(pl.col("item_id").is_in(own["item_id"].unique().implode())).collect()
    joined = own.join(known, on="item_id", how="inner").sort("item_id", "annotator_id", "label")
    write_whole(check_columns(joined, CORPUS, "corpus"), corpus)
    return {f"annotations_{split}": n for split, n in joined.group_by("split").len().sort("split").iter_rows()}


def measure_part(corpus: Path, features: Path) -> Counts:
    """Write the features of style of a part's explanations beside item_id, annotator_id and label; return how many."""
    rows = pl.read_parquet(corpus, columns=["item_id", "annotator_id", "label", "text_a", "text_b", "explanation"])
    found = style_features(rows).drop("explanation")
    write_whole(found, features)
    return {"explanations_measured": found.height}


def pair_part(
    corpus: Path,
    preferences: Path,
    annotator_id: str,
    task: TaskSpec,
    pairs: PairConfig,
    tag: TagPosition | None,
    left_out: Collection[str] = (),
) -> Counts:
    """Write an annotator's `PREFERENCES` from a part and return how many pairs were kept and dropped.

    Strategies that compare embeddings, and weights that compare a part with itself, are for corpora in memory.

    Args:
        corpus: of `write_corpus_part`.
        preferences: to be written.
        annotator_id: the target.
        task: the task asked.
        pairs: which pairs; `weighting` uniform or by relation.
        tag: see `capo_core.preference_pairs.build_preferences`.
        left_out: annotators who do not consent to modelling: nobody learns from them, or away from them.
    """
    modelled = pl.scan_parquet(corpus).filter(~pl.col("annotator_id").is_in(list(left_out)))
    own = modelled.filter(pl.col("annotator_id") == annotator_id).select("item_id").unique()
    rows = modelled.join(own, on="item_id", how="semi").collect()
    if rows.is_empty():
        return {}
    kept, dropped = build_preferences(rows, annotator_id, task, pairs, tag=tag)
    write_whole(kept, preferences)
    return {"pairs": kept.height, "pairs_dropped": dropped.height}


def write_whole(frame: pl.DataFrame, path: Path) -> None:
    """Write a table under its name only when it is whole, so that what is there needs no second look."""
    begun = path.with_name(f".{path.name}")
    frame.write_parquet(begun)
    begun.rename(path)
