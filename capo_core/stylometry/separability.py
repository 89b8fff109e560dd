"""Stability of style: how well held-out explanations by people are attributed to the people who wrote them.

Training and validation items only. Nothing here feeds another stage, but test explanations stay unread until the
evaluation, so that no choice made on seeing these figures is a choice made on the test set.

One repeat is one folding of the contexts. Every explanation gets its log-probabilities from the model of the fold that
did not see its context. Groups of k are drawn over all folds alike: each member was scored without its own item, folds
of few items need no exception, and accuracies at different k rest on the same draws of items. (Groups confined to one
fold gave the same accuracies to within .01 on VariErr at k = 3, 5, 10.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from sklearn.model_selection import GroupKFold

from capo_core.errors import CorpusError
from capo_core.evaluation.significance import percentile_interval, resample_counts
from capo_core.progress import Progress, silent
from capo_core.stylometry.attribution import Inputs, fit_attributors
from capo_core.stylometry.controls import shuffle_within_items
from capo_core.stylometry.groups import GroupSampler, group_accuracies
from capo_core.stylometry.reduction import Embed, explanation_inputs
from schemas.config import Normalisation, Reduction, StabilityConfig
from schemas.frames import STABILITY, check_columns

CONDITIONS = ("human", "shuffled")
N_GROUPS = 1000
"""Groups per annotator, repeat and size for the accuracy itself."""
N_RESAMPLED_GROUPS = 100
"""The same in every bootstrap resample."""

CONFIDENCE = 0.95
ANALYSED_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Folding:
    """One repeat: who is held out together, and which annotators the control claims.

    Attributes:
        test_rows: rows held out in each fold; together every row once.
        labels: per condition, [n] annotator of every row.
        slots: per condition, [I, A] row that stands for an annotator's explanation of an item, -1 for none.
    """

    test_rows: tuple[np.ndarray, ...]
    labels: dict[str, np.ndarray]
    slots: dict[str, np.ndarray]


def stability_table(
    corpus: pl.DataFrame,
    config: StabilityConfig,
    embed: Embed | None,
    *,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Return attribution accuracy of groups of held-out explanations, with the shuffled control.

    accuracy = mean over repeats and annotators of the share of an annotator's groups attributed to him. The control
    `shuffled` permutes the annotators within every item, anew in each repeat, and then does everything the same way,
    training included: what remains is what the pipeline finds where there is no style. Intervals are percentile
    bootstrap intervals over items (see `capo_core.stylometry.groups`); the fitted classifiers are taken as given, so
    the spread of another training sample is not in them. Where all groups are right the interval has no width.

    Args:
        corpus: CORPUS; rows of other splits than train and validation are not read.
        config: reductions, normalisations, group sizes, folds, repeats, seed.
        embed: sentence encoder, n texts to [n, d]; without one the embedding reduction is not measured.
        progress: told of every fold fitted, over all reductions, normalisations and repeats.

    Returns:
        Columns of `schemas.frames.STABILITY`, one row per reduction, normalisation, condition and group size in the
        configured order. Not measured (no encoder; k greater than the items of every annotator): accuracy and bounds
        null, n_groups 0. Annotators with fewer than k items have no groups of that size; the others' mean is given.

    Raises:
        CorpusError: if there are fewer than two annotators or fewer contexts than folds.
    """
    rows = _analysed_rows(corpus)
    annotators = tuple(rows["annotator_id"].unique().sort().to_list())
    foldings = _make_foldings(rows, annotators, config)
    variants = list(product(config.reductions, config.normalisations))
    measurable = [variant for variant in variants if embed is not None or variant[0] != "embedding_minus_item_mean"]
    n_total = len(measurable) * len(foldings) * config.n_folds
    n_done = 0

    def tell() -> None:
        nonlocal n_done
        n_done += 1
        progress(n_done, n_total)

    scores: list[dict[str, np.ndarray] | None] = []
    for reduction, normalisation in variants:
        inputs = explanation_inputs(rows, reduction, normalisation, embed)
        scores.append(None if inputs is None else _score_variant(inputs, foldings, annotators, tell))
    return _tabulate(scores, variants, n_items=rows["item_id"].n_unique(), n_annotators=len(annotators), config=config)


def _analysed_rows(corpus: pl.DataFrame) -> pl.DataFrame:
    """Return the explanations of the analysed splits in an order that does not depend on that of the input."""
    rows = corpus.filter(pl.col("split").is_in(ANALYSED_SPLITS)).drop_nulls("explanation")
    return rows.sort("item_id", "annotator_id", "label", "explanation")


def _make_foldings(rows: pl.DataFrame, annotators: tuple[str, ...], config: StabilityConfig) -> list[Folding]:
    """Return the repeats' foldings, no context in two folds, with a fresh shuffle each."""
    if len(annotators) < 2:
        raise CorpusError(f"stability needs at least two annotators, training and validation have {list(annotators)}")
    contexts = rows["context_id"].to_numpy()
    if (n_contexts := len(np.unique(contexts))) < config.n_folds:
        raise CorpusError(
            f"stability.n_folds is {config.n_folds}, but training and validation have {n_contexts} contexts; "
            "lower n_folds or give more items"
        )
    items = np.unique(rows["item_id"].to_numpy(), return_inverse=True)[1].ravel()
    owners = np.searchsorted(np.asarray(annotators), rows["annotator_id"].to_numpy().astype(str))
    foldings = []
    for repeat in range(config.n_repeats):
        rng = np.random.default_rng([config.seed, repeat])
        splitter = GroupKFold(config.n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
        test_rows = tuple(test for _, test in splitter.split(contexts, groups=contexts))
        labels = {"human": owners, "shuffled": shuffle_within_items(owners, items, rng)}
        slots = {name: _choose_rows(items, held, len(annotators), rng) for name, held in labels.items()}
        foldings.append(Folding(test_rows, labels, slots))
    return foldings


def _choose_rows(items: np.ndarray, owners: np.ndarray, n_annotators: int, rng: np.random.Generator) -> np.ndarray:
    """Return one row per item and annotator, [I, A], drawn at random where there are several, -1 where none."""
    chosen = np.full((items.max() + 1, n_annotators), -1)
    order = rng.permutation(len(items))
    chosen[items[order], owners[order]] = order
    return chosen


def _score_variant(
    inputs: Inputs, foldings: Sequence[Folding], annotators: tuple[str, ...], tell: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Return per condition the held-out log-probabilities, [I, R·A, A]: repeat by repeat, one series per annotator."""
    series: dict[str, list[np.ndarray]] = {condition: [] for condition in CONDITIONS}
    for folding in foldings:
        scores = {c: np.full((len(inputs), len(annotators)), np.nan) for c in CONDITIONS}
        for test in folding.test_rows:
            train = np.setdiff1d(np.arange(len(inputs)), test)
            names = [[str(annotators[owner]) for owner in folding.labels[c][train]] for c in CONDITIONS]
            held_out = _take(inputs, test)
            for condition, attributor in zip(CONDITIONS, fit_attributors(_take(inputs, train), names), strict=True):
                scores[condition][test] = attributor.log_probabilities(held_out, annotators)
            tell()
        for condition in CONDITIONS:
            slots = folding.slots[condition]
            series[condition].append(np.where((slots >= 0)[:, :, None], scores[condition][slots], np.nan))
    return {condition: np.concatenate(parts, axis=1) for condition, parts in series.items()}


def _take(inputs: Inputs, rows: np.ndarray) -> Inputs:
    return inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[row] for row in rows]


def _tabulate(
    scores: Sequence[dict[str, np.ndarray] | None],
    variants: Sequence[tuple[Reduction, Normalisation]],
    *,
    n_items: int,
    n_annotators: int,
    config: StabilityConfig,
) -> pl.DataFrame:
    """Return the table; all variants and conditions of one size are scored on the same groups."""
    whole = GroupSampler(np.ones((1, n_items), dtype=int), N_GROUPS, config.seed)
    counts = resample_counts(n_items, config.n_bootstrap, np.random.default_rng(config.seed))
    resampled = GroupSampler(counts, N_RESAMPLED_GROUPS, config.seed)
    table = []
    for (reduction, normalisation), measured in zip(variants, scores, strict=True):
        for condition, size in product(CONDITIONS, config.group_sizes):
            figures: tuple = (None, None, None, 0, n_items, 0)
            if measured is not None:
                figures = _estimate(measured[condition], size, n_annotators, (whole, resampled), config)
            table.append((reduction, normalisation, condition, size, *figures, 1.0 / n_annotators))
    return check_columns(pl.DataFrame(table, schema=STABILITY, orient="row"), STABILITY, "stability")


def _estimate(
    series: np.ndarray,
    group_size: int,
    n_annotators: int,
    samplers: tuple[GroupSampler, GroupSampler],
    config: StabilityConfig,
) -> tuple:
    """Return accuracy, ci_low, ci_high, n_groups, n_items and n_repeats of one condition, variant and size."""
    whole, resampled = samplers
    owners = np.tile(np.arange(n_annotators), config.n_repeats)
    accuracies = group_accuracies(series, owners, group_size, whole)[0]
    present = np.asarray(np.isfinite(series).all(axis=2))
    n_items = int(present.any(axis=1).sum())
    measured = ~np.isnan(accuracies)
    if not measured.any():
        return None, None, None, 0, n_items, 0
    replicates = group_accuracies(series[:, measured], owners[measured], group_size, resampled).mean(axis=1)
    low, high = percentile_interval(replicates, CONFIDENCE)
    n_groups = int(present[:, measured].sum()) if group_size == 1 else int(measured.sum()) * N_GROUPS
    bounds = tuple(None if np.isnan(bound) else bound for bound in (low, high))
    return float(accuracies[measured].mean()), *bounds, n_groups, n_items, config.n_repeats
