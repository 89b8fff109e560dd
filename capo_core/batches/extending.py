"""A corpus and a batch → the next version of the corpus; no item ever changes its split.

Annotators keep their models as long as nothing of theirs changes: each one's data stands at the last version that
changed it, and whatever is made for that annotator is made from that version. A withdrawal also changes those whose
preference pairs held the withdrawn words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.cluster.hierarchy import DisjointSet

from capo_core.corpora import BatchContent, count_reasons, count_surface_habits
from capo_core.errors import CorpusError
from capo_core.quality import add_context_ids, refuse_rows
from capo_core.splits import nearest_sum
from capo_core.text import identity_form
from schemas.config import SplitConfig
from schemas.frames import ANNOTATIONS, CORPUS, check_columns

_SAID = ("item_id", "annotator_id", "label", "explanation")
_ITEM = ("item_id", "annotator_id")


@dataclass(frozen=True)
class ExtendedCorpus:
    """The next version of a corpus.

    Attributes:
        annotations: `ANNOTATIONS`, all that is valid now.
        corpus: `CORPUS`.
        refused: `QUARANTINE`, what the batch says but the corpus cannot take in.
        counts: rows_added; rows_corrected, in place of rows_superseded; rows_repeated (said before, word for word);
            rows_withdrawn; items_added.
        changed: annotators whose data are not what they were, sorted.
    """

    annotations: pl.DataFrame
    corpus: pl.DataFrame
    refused: pl.DataFrame
    counts: dict[str, int]
    changed: tuple[str, ...]

    @property
    def is_new(self) -> bool:
        """Whether anything is not as it was."""
        return any(self.counts[name] for name in ("rows_added", "rows_corrected", "rows_withdrawn"))


def extend_corpus(
    annotations: pl.DataFrame, corpus: pl.DataFrame, batch: BatchContent, config: SplitConfig, *, version: int
) -> ExtendedCorpus:
    """Return a corpus with one batch taken in.

    What an annotator says of an item replaces all that the annotator said of it before. Withdrawals concern what
    earlier batches hold. New items whose texts are new are split so that the shares of all items come near to the
    configured ones; a new item that shares a text with known ones goes where these are. One that shares texts with
    two splits can neither be learned from nor tested on and is refused (`context_in_two_splits`), as is a withdrawal
    of what is not there (`nothing_to_withdraw`).

    Args:
        annotations: `ANNOTATIONS` of the version before.
        corpus: `CORPUS` of the version before; it may hold a sample of the annotations' items.
        batch: what is taken in.
        config: shares of the splits, and the seed.
        version: number of the new version, 2 or more; part of the seed.

    Raises:
        CorpusError: if nothing would be left in a split.
    """
    withdrawn, unmatched = _match_withdrawals(annotations, batch.withdrawals)
    left = annotations.join(withdrawn, on=_SAID, how="anti")
    repeated, news = _tell_news(left, batch.annotations)
    known = corpus.select("item_id", "text_a", "text_b", "split").unique("item_id").sort("item_id")
    split_of, conflicting = _place_new_items(known, news, config, version)
    news, refused = _refuse_items(news, conflicting)
    corrected = left.join(news, on=_ITEM, how="semi")
    kept = left.join(corrected, on=_SAID, how="anti")
    merged = add_context_ids(pl.concat([kept, _spell_as_before(news, kept)]).drop("context_id"))
    merged = check_columns(merged.sort("item_id", "annotator_id", "label"), ANNOTATIONS, "annotations")
    extended = _rename_contexts(merged.join(split_of, on="item_id", how="inner"))
    extended = check_columns(extended.sort("item_id", "annotator_id", "label"), CORPUS, "corpus")
    _require_splits(corpus, extended)
    return ExtendedCorpus(
        annotations=merged,
        corpus=extended,
        refused=pl.concat([unmatched, refused]),
        counts={
            "rows_added": news.join(corrected, on=_ITEM, how="anti").height,
            "rows_corrected": news.join(corrected, on=_ITEM, how="semi").height,
            "rows_superseded": corrected.height,
            "rows_repeated": repeated.height,
            "rows_withdrawn": withdrawn.height,
            "items_added": extended["item_id"].n_unique() - known.join(extended, on="item_id", how="semi").height,
        },
        changed=find_changed(corpus, extended, withdrawn),
    )


def add_counts(before: Mapping[str, int], batch: Mapping[str, int], extended: ExtendedCorpus) -> dict[str, int]:
    """Return the counts of all files together: sums of what was read, and what there is now.

    rows_in = rows_accepted + rows_quarantined + withdrawals, over all files; what was repeated, superseded or withdrawn
    later was accepted once.

    Args:
        before: counts of the version before.
        batch: counts of the batch.
        extended: what became of both.
    """
    counts = {name: before.get(name, 0) + batch.get(name, 0) for name in sorted({*before, *batch})}
    refused = extended.refused.with_columns((pl.col("reason") == "nothing_to_withdraw").alias("is_withdrawal"))
    n_withdrawals = int(refused["is_withdrawal"].sum())
    counts["rows_quarantined"] += refused.height
    counts["rows_accepted"] -= refused.height - n_withdrawals
    counts["withdrawals"] -= n_withdrawals
    for name, n in count_reasons(extended.refused).items():
        counts[name] = counts.get(name, 0) + n
    for name, n in extended.counts.items():
        counts[name] = before.get(name, 0) + n
    present = {name: extended.annotations[f"{name[:-1]}_id"].n_unique() for name in ("items", "contexts", "annotators")}
    return counts | count_surface_habits(extended.annotations) | present


def find_changed(before: pl.DataFrame, after: pl.DataFrame, withdrawn: pl.DataFrame) -> tuple[str, ...]:
    """Return the annotators whose own rows differ, or whose preference pairs held what was withdrawn.

    Where an item is gone altogether, everybody: everybody's model was asked about it.

    Args:
        before: `CORPUS`; likewise after.
        withdrawn: rows with item_id.
    """
    own = [*_SAID, "text_a", "text_b", "split"]
    differing = [
        one.join(other, on=own, how="anti", nulls_equal=True)["annotator_id"]
        for one, other in ((before, after), (after, before))
    ]
    sharing = after.filter(pl.col("split") != "test").join(withdrawn, on="item_id", how="semi")["annotator_id"]
    gone = before.join(after, on="item_id", how="anti").height > 0
    everybody = after["annotator_id"] if gone else sharing
    return tuple(sorted(set(pl.concat([*differing, sharing, everybody]).to_list()) & set(after["annotator_id"])))


def _match_withdrawals(annotations: pl.DataFrame, withdrawals: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the annotations that are withdrawn, and as `QUARANTINE` the withdrawals that match none."""
    numbered = withdrawals.with_row_index("number")
    said = annotations.select(*_SAID, "source_id")
    found = []
    for meant, key in (
        (numbered.drop_nulls("item_id"), ["annotator_id", "item_id"]),
        (numbered.filter(pl.col("item_id").is_null()).drop_nulls("source_id"), ["annotator_id", "source_id"]),
        (numbered.filter(pl.col("item_id").is_null() & pl.col("source_id").is_null()), ["annotator_id"]),
    ):
        found.append(said.join(meant.select("number", *key), on=key, how="inner").select("number", *_SAID))
    matches = pl.concat(found)
    unmatched = numbered.join(matches, on="number", how="anti").drop("number")
    detail = "the corpus holds nothing of this annotator that the row names; check annotator_id and the item"
    refused = refuse_rows(unmatched, "annotator_id", "nothing_to_withdraw", detail)
    return matches.select(_SAID).unique(maintain_order=True), refused


def _tell_news(annotations: pl.DataFrame, said: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what the batch repeats and what it says anew; one item of one annotator is one or the other."""
    touched = annotations.join(said, on=_ITEM, how="semi")
    differing = pl.concat(
        one.join(other, on=_SAID, how="anti").select(_ITEM) for one, other in ((said, touched), (touched, said))
    ).unique()
    return said.join(differing, on=_ITEM, how="anti"), said.join(differing, on=_ITEM, how="semi")


def _place_new_items(
    known: pl.DataFrame, news: pl.DataFrame, config: SplitConfig, version: int
) -> tuple[pl.DataFrame, list[str]]:
    """Return item_id and split of all items, and the ids of new items that belong to two splits."""
    contexts = DisjointSet()
    split_of_root: dict[object, str] = {}
    for _, text_a, text_b, split in known.iter_rows():
        split_of_root[_join(contexts, text_a, text_b)] = split
    # Joining moves roots: what is known of a context is looked up by the root it has now.
    split_of_root = {contexts[root]: split for root, split in split_of_root.items()}
    new = news.select("item_id", "text_a", "text_b").unique("item_id").sort("item_id")
    new = new.join(known, on="item_id", how="anti", maintain_order="left")
    placed, conflicting = [], []
    for item_id, text_a, text_b in new.iter_rows():
        splits = {
            split_of_root[contexts[text]]
            for text in map(identity_form, (text_a, text_b))
            if text in contexts and contexts[text] in split_of_root
        }
        if len(splits) > 1:
            conflicting.append(item_id)
            continue
        root = _join(contexts, text_a, text_b)
        for split in splits:
            split_of_root[root] = split
        placed.append((item_id, identity_form(text_a)))
    items_of: dict[object, list[str]] = {}
    split_of = dict(known.select("item_id", "split").iter_rows())
    for item_id, text in placed:
        root = contexts[text]
        if root in split_of_root:
            split_of[item_id] = split_of_root[root]
        else:
            items_of.setdefault(root, []).append(item_id)
    split_of |= _split_new_contexts(list(items_of.values()), split_of.values(), config, version)
    return pl.DataFrame(list(split_of.items()), schema=["item_id", "split"], orient="row"), conflicting


def _join(contexts: DisjointSet, text_a: str, text_b: str) -> object:
    """Put both texts into one context and return its root."""
    forms = identity_form(text_a), identity_form(text_b)
    for form in forms:
        contexts.add(form)
    contexts.merge(*forms)
    return contexts[forms[0]]


def _split_new_contexts(
    contexts: list[list[str]], placed: Iterable[str], config: SplitConfig, version: int
) -> Mapping[str, str]:
    """Return the split of every item of new contexts, so that the shares of all items come near to the configured."""
    placed = list(placed)
    n_items = len(placed) + sum(map(len, contexts))
    order = np.random.default_rng([config.seed, version]).permutation(len(contexts))
    rest = [contexts[number] for number in order]
    split_of: dict[str, str] = {}
    for split, share in (("test", config.test), ("validation", config.validation)):
        wanted = round(n_items * share) - placed.count(split)
        chosen = nearest_sum([len(items) for items in rest], wanted, at_most=True) if wanted > 0 else []
        split_of |= {item_id: split for number in chosen for item_id in rest[number]}
        rest = [items for number, items in enumerate(rest) if number not in set(chosen)]
    return split_of | {item_id: "train" for items in rest for item_id in items}


def _refuse_items(news: pl.DataFrame, conflicting: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of all other items, and those of conflicting ones as `QUARANTINE`."""
    is_refused = pl.col("item_id").is_in(conflicting)
    detail = (
        "one text of the item stands in one split and the other in another, so that it can neither be learned from nor "
        "tested on; leave the item out"
    )
    return news.filter(~is_refused), refuse_rows(news.filter(is_refused), "text_b", "context_in_two_splits", detail)


def _spell_as_before(news: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Return new rows with the texts of known items as they are spelled already."""
    before = kept.select("item_id", pl.col("text_a").alias("_a"), pl.col("text_b").alias("_b")).unique("item_id")
    spelled = news.join(before, on="item_id", how="left", maintain_order="left").with_columns(
        pl.coalesce("_a", "text_a").alias("text_a"), pl.coalesce("_b", "text_b").alias("text_b")
    )
    return spelled.select(news.columns)


def _rename_contexts(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the corpus's rows with contexts of its own items alone: what was not sampled joins nothing."""
    return add_context_ids(rows.drop("context_id"))


def _require_splits(before: pl.DataFrame, after: pl.DataFrame) -> None:
    """Raise CorpusError if a split has lost its last annotation."""
    empty = sorted(set(before["split"].unique()) - set(after["split"].unique()))
    if empty:
        raise CorpusError(
            f"after this batch no annotation is left in {' and '.join(empty)}; put new annotations into the same batch"
        )
