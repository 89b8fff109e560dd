"""Train, validation and test by whole contexts: no text a model saw in training comes back in test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.text import identity_form
from schemas.config import SplitConfig
from schemas.frames import CORPUS, check_columns

SPLITS = ("train", "validation", "test")

_SEARCHED, _MAX_WORK = 10_000, 1_000_000_000


def assign_splits(annotations: pl.DataFrame, config: SplitConfig, max_items: int | None = None) -> pl.DataFrame:
    """Return the annotations of a seeded sample of contexts, each with its split.

    Contexts in random order are first sampled to at most `max_items` items, then taken for test and validation
    so that their item counts are as near to the configured shares as sums of context sizes come; the rest is
    train. 500 items of contexts of one give 300/100/100, the paper's split. The outcome depends on the items and
    the seed, not on the order of rows.

    Args:
        annotations: an `ANNOTATIONS` frame.
        config: shares of the three splits, and the seed.
        max_items: upper bound on items kept; None keeps all.

    Returns:
        `CORPUS`, sorted by item_id, annotator_id, label.

    Raises:
        CorpusError: if a split would be empty.
    """
    sizes = annotations.group_by("context_id").agg(pl.col("item_id").n_unique().alias("n_items")).sort("context_id")
    split_of = split_contexts(sizes, config, max_items)
    corpus = annotations.join(split_of, on="context_id", how="inner").sort("item_id", "annotator_id", "label")
    return check_columns(corpus, CORPUS, "corpus")


def split_contexts(sizes: pl.DataFrame, config: SplitConfig, max_items: int | None = None) -> pl.DataFrame:
    """Return `context_id` and `split` of the contexts that are kept: see `assign_splits`.

    Args:
        sizes: context_id and n_items of every context, sorted by context_id.
        config: shares of the three splits, and the seed.
        max_items: upper bound on items kept; None keeps all.

    Raises:
        CorpusError: if a split would be empty.
    """
    order = np.random.default_rng(config.seed).permutation(sizes.height)
    contexts = sizes[order.tolist()]
    if max_items is not None:
        kept = nearest_sum(contexts["n_items"].to_list(), max_items, at_most=True)
        contexts = contexts[kept]
    n_items = int(contexts["n_items"].sum())
    taken: dict[str, pl.DataFrame] = {}
    rest = contexts
    for split, share in (("test", config.test), ("validation", config.validation)):
        chosen = nearest_sum(rest["n_items"].to_list(), max(1, round(n_items * share)))
        taken[split] = rest[chosen]
        rest = rest.join(taken[split], on="context_id", how="anti", maintain_order="left")
    taken["train"] = rest
    _require_no_empty_split(contexts, taken)
    return pl.concat(frame.select("context_id", pl.lit(split).alias("split")) for split, frame in taken.items())


def require_disjoint_splits(corpus: pl.DataFrame) -> None:
    """Return nothing if no text stands in two splits, whatever the context ids say.

    Texts are compared in identity form, in either position.

    Args:
        corpus: a frame with text_a, text_b and split.

    Raises:
        CorpusError: if one does; quotes the first and names its splits.
    """
    texts = pl.concat(corpus.select(pl.col(column).alias("text"), "split").unique() for column in ("text_a", "text_b"))
    shared = (
        texts.with_columns(pl.col("text").map_elements(identity_form, return_dtype=pl.String))
        .group_by("text")
        .agg(pl.col("split").unique().sort())
        .filter(pl.col("split").list.len() > 1)
        .sort("text")
    )
    if shared.height:
        text, splits = shared.row(0)
        raise CorpusError(
            f"{shared.height} text(s) stand in two splits; the first, in {' and '.join(splits)}: {text[:120]!r}. "
            "The corpus was not split by context; run ingest again"
        )


def nearest_sum(sizes: Sequence[int], target: int, *, at_most: bool = False) -> list[int]:
    """Return indices of `sizes`, ascending, whose sum is as near to `target` as any selection's; at least one index.

    Subset sum by dynamic programming: for each sum the first prefix of `sizes` that reaches it is kept, and the
    selection is read back from there. With `sizes` in random order and mostly alike this takes a random prefix.
    Of two sums equally near the smaller counts. Where sizes × target are beyond 1e9, which is what the work grows
    with, all but the last 10,000 of the target is taken in order first, whatever fits, and the rest is searched.

    Args:
        sizes: positive integers, in the order of preference.
        target: the sum wanted, positive.
        at_most: whether sums above `target` are out of the question; then the selection may be empty.
    """
    if not sizes:
        return []
    if len(sizes) * target > _MAX_WORK and target > _SEARCHED:
        taken = _take_what_fits(sizes, target - _SEARCHED)
        rest = sorted(set(range(len(sizes))) - set(taken))
        missing = target - sum(sizes[index] for index in taken)
        more = [rest[index] for index in _search([sizes[index] for index in rest], missing, at_most=at_most)]
        is_better = not taken or abs(sum(sizes[index] for index in more) - missing) < missing
        return sorted([*taken, *more]) if is_better else taken
    return _search(sizes, target, at_most=at_most)


def _take_what_fits(sizes: Sequence[int], at_most: int) -> list[int]:
    """Return indices of the sizes that, taken in order, each still fit into `at_most`."""
    taken, total = [], 0
    for index, size in enumerate(sizes):
        if total + size <= at_most:
            taken.append(index)
            total += size
    return taken


def _search(sizes: Sequence[int], target: int, *, at_most: bool) -> list[int]:
    """Return what `nearest_sum` does, by looking at every sum that could be nearest."""
    if not sizes:
        return []
    # A sum beyond twice the target is farther from it than the smallest size is, unless that is beyond it too.
    farthest = target if at_most else max(2 * target, min(sizes))
    limit = min(farthest, target + max(sizes), sum(sizes))
    reached_by = np.full(limit + 1, -1, dtype=np.int64)
    reached = np.zeros(limit + 1, dtype=bool)
    reached[0] = True
    for index, size in enumerate(sizes):
        if size > limit:
            continue
        new = np.zeros_like(reached)
        new[size:] = reached[: limit + 1 - size]
        new &= ~reached
        reached_by[new] = index
        reached |= new
        if target <= limit and reached[target]:
            break
    sums = np.flatnonzero(reached)
    sums = sums[sums > 0]
    if not sums.size:
        return []
    remaining = int(sums[np.argmin(np.abs(sums - target))])
    chosen: list[int] = []
    while remaining:
        chosen.append(int(reached_by[remaining]))
        remaining -= sizes[chosen[-1]]
    return sorted(chosen)


def _require_no_empty_split(contexts: pl.DataFrame, taken: dict[str, pl.DataFrame]) -> None:
    """Raise CorpusError if a split got no context; say what would be enough."""
    empty = [split for split in SPLITS if taken[split].is_empty()]
    if empty:
        n_items = int(contexts["n_items"].sum())
        largest = contexts["n_items"].max() if contexts.height else 0
        raise CorpusError(
            f"{n_items} item(s) in {contexts.height} context(s) leave no item for {' and '.join(empty)} (a context's "
            f"items stay together; the largest context has {largest}). At least 3 items that share no text are "
            "needed, and 10 or more for shares that mean anything: add items or raise max_items"
        )
