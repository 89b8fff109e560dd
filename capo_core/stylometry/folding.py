"""What stability is measured on, and which model judges which explanation.

One repeat is one folding of the contexts: every explanation is judged by a model of explanations of other contexts.

Notation: n rows (explanations), I items, A annotators, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.model_selection import GroupKFold

from capo_core.errors import CorpusError
from capo_core.stylometry.controls import shuffle_within_items
from capo_core.stylometry.design import encode
from schemas.config import StabilityConfig

ANALYSED_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Explanations:
    """The explanations analysed, in an order that does not depend on that of the corpus.

    Attributes:
        rows: of CORPUS, splits train and validation, explanation present; n rows.
        annotators: sorted; A.
        owners: [n] index of the annotator of every row.
        items: [n] index of the item of every row.
    """

    rows: pl.DataFrame
    annotators: tuple[str, ...]
    owners: np.ndarray
    items: np.ndarray


@dataclass(frozen=True)
class Folding:
    """One repeat: who is held out together, and which annotators the control claims.

    Attributes:
        fold_of: [n] fold in which a row is held out.
        shuffled: [n] owners permuted within items.
        order: [n] random order of the rows; where an annotator explained an item more than once, the last counts.
    """

    fold_of: np.ndarray
    shuffled: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Split:
    """Rows learnt from and rows judged, under one or several claims of who wrote what.

    Attributes:
        train: row numbers.
        test: row numbers.
        labellings: name of each claim and [n] owners it claims.
    """

    train: np.ndarray
    test: np.ndarray
    labellings: dict[str, np.ndarray]


def read_explanations(corpus: pl.DataFrame) -> Explanations:
    """Return the explanations to analyse.

    Raises:
        CorpusError: if they are by fewer than two annotators.
    """
    rows = corpus.filter(pl.col("split").is_in(ANALYSED_SPLITS)).drop_nulls("explanation")
    rows = rows.sort("item_id", "annotator_id", "label", "explanation")
    annotators = tuple(rows["annotator_id"].unique().sort().to_list())
    if len(annotators) < 2:
        raise CorpusError(f"stability needs at least two annotators, training and validation have {list(annotators)}")
    owners = np.searchsorted(np.asarray(annotators), rows["annotator_id"].to_numpy().astype(str))
    items = encode(rows["item_id"].to_numpy().astype(str))
    return Explanations(rows, annotators, owners, items)


def make_foldings(explanations: Explanations, config: StabilityConfig) -> list[Folding]:
    """Return the repeats' foldings, no context in two folds, with a fresh shuffle each.

    Raises:
        CorpusError: if there are fewer contexts than folds.
    """
    contexts = explanations.rows["context_id"].to_numpy()
    if (n_contexts := len(np.unique(contexts))) < config.n_folds:
        raise CorpusError(
            f"stability.n_folds is {config.n_folds}, but training and validation have {n_contexts} contexts; "
            "lower n_folds or give more items"
        )
    foldings = []
    for repeat in range(config.n_repeats):
        rng = np.random.default_rng([config.seed, repeat])
        splitter = GroupKFold(config.n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
        fold_of = np.empty(len(contexts), dtype=int)
        for fold, (_, test) in enumerate(splitter.split(contexts, groups=contexts)):
            fold_of[test] = fold
        shuffled = shuffle_within_items(explanations.owners, explanations.items, rng)
        foldings.append(Folding(fold_of, shuffled, rng.permutation(len(contexts))))
    return foldings


def crossed_splits(folding: Folding, labellings: dict[str, np.ndarray]) -> list[Split]:
    """Return the F splits of a folding: each fold judged by the model of all others."""
    folds = np.unique(folding.fold_of)
    return [
        Split(np.flatnonzero(folding.fold_of != f), np.flatnonzero(folding.fold_of == f), labellings) for f in folds
    ]


def chained_splits(folding: Folding, labellings: dict[str, np.ndarray]) -> list[Split]:
    """Return the F - 1 splits of a chain: each fold but the first judged by the model of those before it."""
    folds = np.unique(folding.fold_of)[1:]
    splits = [
        Split(np.flatnonzero(folding.fold_of < f), np.flatnonzero(folding.fold_of == f), labellings) for f in folds
    ]
    return [split for split in splits if _can_be_learnt(split)]


def leave_strata_out(splits: Sequence[Split], strata: np.ndarray) -> list[Split]:
    """Return each split once per stratum: rows of the stratum judged by the model of all other rows.

    Args:
        splits: e.g. of `crossed_splits`.
        strata: [n] index of the stratum of every row; -1 for rows of none, which are learnt from but not judged.

    Returns:
        Without the splits that have nothing to judge, or fewer than two annotators to learn from.
    """
    narrowed = [
        Split(split.train[strata[split.train] != stratum], split.test[strata[split.test] == stratum], split.labellings)
        for split in splits
        for stratum in range(strata.max() + 1)
    ]
    return [split for split in narrowed if _can_be_learnt(split)]


def choose_rows(
    explanations: Explanations, folding: Folding, owners: np.ndarray, included: np.ndarray | None = None
) -> np.ndarray:
    """Return one row per item and annotator, [I, A], drawn at random where there are several, -1 where none.

    Args:
        explanations: n rows.
        folding: its order decides between several.
        owners: [n] claimed owners.
        included: [n] booleans, the rows that count; default all.
    """
    items = explanations.items
    chosen = np.full((items.max() + 1, len(explanations.annotators)), -1)
    order = folding.order if included is None else folding.order[included[folding.order]]
    chosen[items[order], owners[order]] = order
    return chosen


def _can_be_learnt(split: Split) -> bool:
    return len(split.test) > 0 and all(len(np.unique(owners[split.train])) > 1 for owners in split.labellings.values())
