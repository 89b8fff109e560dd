"""How figures settle as items and annotators accrue: sub-samples of the corpus, and curves through them.

Followed are Krippendorff's α; the Jensen-Shannon distance (√JSD) of the sub-sample's label distribution from that of
all; and the accuracy of attributing groups of held-out explanations to their annotators.

Along the items, sub-samples are drawn at random without replacement. α and the label distribution use the items of the
splits train and validation. Attribution sub-samples the training items, fits the classifier of
`capo_core.stylometry.attribution` on their surface-normalised explanations, and tests on all validation items: its
spread says how much the accuracy depends on which items were trained on, not how well the validation items measure it.
Along the annotators, α and the label distribution only: attribution among fewer annotators has another chance level
and is another task. Test items are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import polars as pl

from capo_core.agreement.alpha import weighted_alphas
from capo_core.agreement.ratings import Level, Ratings, read_ratings
from capo_core.convergence_curves import (
    WIDTH_PER_SD,
    MeanCurve,
    Summary,
    WidthCurve,
    advise,
    correct_spread,
    describe_curves,
    fit_mean,
    fit_width,
    needed_size,
    summarise,
)
from capo_core.errors import CorpusError
from capo_core.label_distributions import jensen_shannon_distance
from capo_core.progress import Progress, silent
from capo_core.stylometry.attribution import fit_attributor
from capo_core.stylometry.design import encode
from capo_core.stylometry.folding import ANALYSED_SPLITS
from capo_core.stylometry.groups import DrawnGroups, group_accuracies
from capo_core.text import surface_normalise
from schemas.config import ConvergenceConfig
from schemas.frames import CONVERGENCE, CONVERGENCE_FITS, check_columns

MIN_ITEMS = 3

LABEL_REPEATS = 50
"""Sub-samples of α and the label distribution for each configured repeat: they cost next to nothing, and the spread of
20 is itself uncertain by a sixth."""

MAX_SUBSETS = 1000
"""Of annotators; all subsets of a size are taken where there are no more than this many."""

MAX_TEXTS_FITTED = 20_000
"""Per size, over all repeats: fewer repeats of large training samples keep the cost bounded."""

MIN_REPEATS = 3

MIN_ANNOTATORS = 6
"""Curves along the annotators need as many: the spread among four people says little of a fifth."""

N_GROUPS = 300
"""Per annotator; the same groups of validation items test every classifier."""

_LABELS, _ATTRIBUTION, _ANNOTATORS = range(3)
"""Streams of random numbers."""


@dataclass(frozen=True)
class _Series:
    """One quantity along one axis.

    Attributes:
        figures: per size, the figure of every sub-sample; NaN where it is undefined.
        exhaustive: per size, whether the sub-samples are all there are.
        is_deviation: whether the figure measures a sub-sample against all (so that it vanishes at n = N).
        bounds: least and greatest value of the figure.
        what: the quantity in words; units: what accrues; units_per_n: units for one of n.
    """

    quantity: str
    axis: str
    sizes: tuple[int, ...]
    figures: tuple[np.ndarray, ...]
    exhaustive: tuple[bool, ...]
    is_deviation: bool
    bounds: tuple[float, float]
    what: str
    units: str
    units_per_n: float = 1.0


def convergence_table(
    corpus: pl.DataFrame,
    level: Level,
    config: ConvergenceConfig,
    attribute: bool = True,
    *,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return how each figure settles as items and annotators accrue, and the curves fitted through it.

    The fitted mean of the label distribution's distance is that from the distribution behind the corpus: the distance
    from the corpus itself vanishes at n = N whatever N is, so it is corrected like a spread (see
    `capo_core.convergence_curves`, also for the formulas). Sizes are evenly spaced on a log scale from the greater of
    10 and N / 20 to N.

    Args:
        corpus: CORPUS; rows of other splits than train and validation are not read.
        level: of α; masi where an annotator may give several labels.
        config: sizes, repeats, group size, wanted width, seed.
        attribute: whether to follow attribution accuracy, which fits n_sizes · n_repeats classifiers.
        progress: told of every classifier fitted.

    Returns:
        Columns of `schemas.frames.CONVERGENCE` and of `schemas.frames.CONVERGENCE_FITS`, α and label distribution
        along items, attribution, then both along annotators. sd and bounds are null where there is one sub-sample
        only (n = N); every figure is null where it is undefined in more than half of the sub-samples, or not measured
        (no annotator has validation explanations enough for a group: n_repeats 0). Curves are null where there are
        too few sizes, or fewer than 6 annotators to accrue.

    Raises:
        CorpusError: if there are fewer than two annotators, or fewer than 3 items to sub-sample.
    """
    rows = corpus.filter(pl.col("split").is_in(ANALYSED_SPLITS)).sort("item_id", "annotator_id", "label", "explanation")
    ratings = read_ratings(rows, level)
    if len(ratings.annotators) < 2:
        raise CorpusError(
            f"convergence needs at least two annotators, training and validation have {list(ratings.annotators)}"
        )
    series = _follow_items(ratings, level, config)
    if attribute:
        series.append(_follow_attribution(rows, config, progress))
    series += _follow_annotators(ratings, level, config)
    table: list[tuple] = []
    fits: list[tuple] = []
    for one in series:
        summaries = [summarise(*sampled) for sampled in zip(one.figures, one.exhaustive, strict=True)]
        mean, width, widest_seen = _fit(one, summaries)
        table += _tabulate(one, summaries, mean, width)
        fits.append(_describe(one, mean, width, widest_seen, config.interval_width))
    return (
        check_columns(pl.DataFrame(table, schema=CONVERGENCE, orient="row"), CONVERGENCE, "convergence"),
        check_columns(pl.DataFrame(fits, schema=CONVERGENCE_FITS, orient="row"), CONVERGENCE_FITS, "convergence fits"),
    )


def sub_sample_sizes(n_pool: int, n_sizes: int) -> tuple[int, ...]:
    """Return at most `n_sizes` different sizes from max(10, N / 20) to N, evenly spaced on a log scale.

    Raises:
        CorpusError: if there are fewer than 3 items.
    """
    if n_pool < MIN_ITEMS:
        raise CorpusError(f"convergence needs at least {MIN_ITEMS} items to sub-sample, there are {n_pool}")
    least = min(max(10, n_pool // 20), max(2, n_pool // 4))
    return tuple(int(n) for n in np.unique(np.round(np.geomspace(least, n_pool, n_sizes)).astype(int)))


def draw_sub_samples(n_pool: int, size: int, n_repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Return which of N units stand in each random sub-sample of n without replacement, [R, N] zeros and ones."""
    chosen = np.argsort(rng.random((n_repeats, n_pool)), axis=1)[:, :size]
    weights = np.zeros((n_repeats, n_pool))
    np.put_along_axis(weights, chosen, 1.0, axis=1)
    return weights


def _follow_items(ratings: Ratings, level: Level, config: ConvergenceConfig) -> list[_Series]:
    """Return α and the label distribution's distance over growing numbers of items."""
    n_pool = len(ratings.items)
    sizes = sub_sample_sizes(n_pool, config.n_sizes)
    labels = ratings.given.sum(axis=1)
    alphas, distances = [], []
    for size in sizes:
        n_repeats = 1 if size == n_pool else LABEL_REPEATS * config.n_repeats
        weights = draw_sub_samples(n_pool, size, n_repeats, np.random.default_rng([config.seed, _LABELS, size]))
        alphas.append(weighted_alphas(ratings, level, weights))
        distances.append(jensen_shannon_distance(weights @ labels, labels.sum(axis=0)))
    coverage = float(ratings.filled().mean())
    return _label_series(level, "items", sizes, (alphas, distances), [size == n_pool for size in sizes], coverage)


def _follow_annotators(ratings: Ratings, level: Level, config: ConvergenceConfig) -> list[_Series]:
    """Return α and the label distribution's distance over growing numbers of annotators."""
    n_pool = len(ratings.annotators)
    labels = ratings.given.sum(axis=0)
    whole = np.ones((1, len(ratings.items)))
    sizes = tuple(range(1, n_pool + 1))
    alphas, distances, exhaustive = [], [], []
    for size in sizes:
        exhaustive.append(comb(n_pool, size) <= MAX_SUBSETS)
        if exhaustive[-1]:
            subsets = [list(subset) for subset in combinations(range(n_pool), size)]
        else:
            rng = np.random.default_rng([config.seed, _ANNOTATORS, size])
            drawn = draw_sub_samples(n_pool, size, LABEL_REPEATS * config.n_repeats, rng)
            subsets = [np.flatnonzero(row).tolist() for row in drawn]
        distances.append(
            jensen_shannon_distance(np.stack([labels[s].sum(axis=0) for s in subsets]), labels.sum(axis=0))
        )
        if size >= 2:
            alphas.append(np.array([weighted_alphas(_keep(ratings, s), level, whole)[0] for s in subsets]))
    return _label_series(level, "annotators", sizes, (alphas, distances), exhaustive, 1.0)


def _keep(ratings: Ratings, annotators: Sequence[int]) -> Ratings:
    """Return the labels of some of the annotators; items and labels keep their places."""
    names = tuple(ratings.annotators[i] for i in annotators)
    return Ratings(ratings.given[:, annotators], ratings.items, names, ratings.labels)


def _label_series(
    level: Level,
    axis: str,
    sizes: tuple[int, ...],
    figures: tuple[list[np.ndarray], list[np.ndarray]],
    exhaustive: Sequence[bool],
    units_per_n: float,
) -> list[_Series]:
    """Return the two series of the labels; α may lack the smallest sizes."""
    units = "annotations per annotator" if axis == "items" else "annotators"
    return [
        _Series(
            quantity=quantity,
            axis=axis,
            sizes=sizes[-len(sampled) :],
            figures=tuple(sampled),
            exhaustive=tuple(exhaustive[-len(sampled) :]),
            is_deviation=is_deviation,
            bounds=(least, 1.0),
            what=what,
            units=units,
            units_per_n=units_per_n,
        )
        for quantity, sampled, is_deviation, least, what in (
            (f"krippendorff_alpha_{level}", figures[0], False, -1.0, f"Krippendorff's α ({level})"),
            ("label_distribution_distance", figures[1], True, 0.0, "the label distribution's distance"),
        )
    ]


def _follow_attribution(rows: pl.DataFrame, config: ConvergenceConfig, progress: Progress) -> _Series:
    """Return attribution accuracy over growing numbers of training items."""
    explained = rows.drop_nulls("explanation")
    train, held_out = (explained.filter(pl.col("split") == split) for split in ANALYSED_SPLITS)
    items = train["item_id"].unique().sort()
    annotators = tuple(train["annotator_id"].unique().sort().to_list())
    sizes = sub_sample_sizes(len(items), config.n_sizes)
    per_text = train.height / len(items)
    repeats = [
        1 if n == len(items) else int(np.clip(MAX_TEXTS_FITTED // (n * per_text), MIN_REPEATS, config.n_repeats))
        for n in sizes
    ]
    score = _make_scorer(held_out, annotators, config)
    texts = [surface_normalise(text) for text in train["explanation"]]
    owners = train["annotator_id"].to_list()
    item_of_row = train["item_id"].replace_strict(items, np.arange(len(items)), return_dtype=pl.Int64).to_numpy()
    figures, n_done = [], 0
    for size, n_repeats in zip(sizes, repeats, strict=True):
        rng = np.random.default_rng([config.seed, _ATTRIBUTION, size])
        accuracies = np.full(n_repeats if score is not None else 0, np.nan)
        for repeat, chosen in enumerate(draw_sub_samples(len(items), size, len(accuracies), rng)):
            picked = np.flatnonzero(chosen[item_of_row])
            if score is not None:
                accuracies[repeat] = score([texts[i] for i in picked], [owners[i] for i in picked])
            n_done += 1
            progress(n_done, sum(repeats))
        figures.append(accuracies)
    return _Series(
        quantity="attribution_accuracy",
        axis="items",
        sizes=sizes,
        figures=tuple(figures),
        exhaustive=tuple(size == len(items) for size in sizes),
        is_deviation=False,
        bounds=(0.0, 1.0),
        what=f"attribution accuracy (groups of {config.group_size})",
        units="training annotations per annotator",
        units_per_n=train.select("item_id", "annotator_id").n_unique() / (len(items) * len(annotators)),
    )


def _make_scorer(
    held_out: pl.DataFrame, annotators: tuple[str, ...], config: ConvergenceConfig
) -> Callable[[list[str], list[str]], float] | None:
    """Return what fits a classifier and gives its accuracy on the held-out groups; None where there are no groups.

    Accuracy is the mean over annotators of the share of an annotator's groups attributed to him. It is NaN where the
    training sample allows no classifier.
    """
    first = held_out.filter(pl.col("annotator_id").is_in(annotators)).unique(
        ["item_id", "annotator_id"], keep="first", maintain_order=True
    )
    if first.group_by("annotator_id").len().filter(pl.col("len") >= config.group_size).is_empty():
        return None
    n_items = first["item_id"].n_unique()
    rows = encode(first["item_id"].to_numpy())
    writers = np.searchsorted(np.asarray(annotators), first["annotator_id"].to_numpy().astype(str))
    texts = [surface_normalise(text) for text in first["explanation"]]
    groups = DrawnGroups(np.ones((1, n_items), dtype=int), N_GROUPS, config.seed)

    def score(training_texts: list[str], training_annotators: list[str]) -> float:
        try:
            attributor = fit_attributor(training_texts, training_annotators)
        except CorpusError:  # one annotator only, or no feature twice: this sub-sample has no figure
            return float("nan")
        scores = np.full((len(annotators), n_items, len(annotators)), np.nan)
        scores[writers, rows] = attributor.log_probabilities(texts, annotators)
        return float(np.nanmean(group_accuracies(scores, np.arange(len(annotators)), config.group_size, groups)))

    return score


def _fit(series: _Series, summaries: Sequence[Summary]) -> tuple[MeanCurve | None, WidthCurve | None, float | None]:
    """Return the curves of mean and width, and the corrected width among the largest sub-samples."""
    if series.axis == "annotators" and series.sizes[-1] < MIN_ANNOTATORS:
        return None, None, None
    sizes = np.array(series.sizes)
    means = np.array([summary.mean for summary in summaries])
    if series.is_deviation:
        means = correct_spread(means, sizes, series.sizes[-1])
    widths = correct_spread(WIDTH_PER_SD * np.array([summary.sd for summary in summaries]), sizes, series.sizes[-1])
    known = widths[~np.isnan(widths)]
    return fit_mean(sizes, means, *series.bounds), fit_width(sizes, widths), float(known[-1]) if known.size else None


def _tabulate(
    series: _Series, summaries: Sequence[Summary], mean: MeanCurve | None, width: WidthCurve | None
) -> list[tuple]:
    """Return the rows of CONVERGENCE of one series."""
    return [
        (
            series.quantity,
            series.axis,
            size,
            *(None if np.isnan(x) else x for x in (summary.mean, summary.sd, summary.low, summary.high)),
            summary.n_repeats,
            None if mean is None else mean.at(size),
            None if width is None else width.at(size),
        )
        for size, summary in zip(series.sizes, summaries, strict=True)
    ]


def _describe(
    series: _Series, mean: MeanCurve | None, width: WidthCurve | None, widest_seen: float | None, wanted: float
) -> tuple:
    """Return the row of CONVERGENCE_FITS of one series."""
    n_now = series.sizes[-1]
    advice = advise(
        width,
        wanted,
        n_now,
        what=series.what,
        units=series.units,
        units_per_n=series.units_per_n,
        widest_seen=widest_seen,
    )
    return (
        series.quantity,
        series.axis,
        describe_curves(mean, width),
        None if mean is None else mean.asymptote,
        None if mean is None else mean.rmse,
        n_now,
        None if width is None else width.at(n_now),
        wanted,
        needed_size(width, wanted, n_now),
        advice,
    )
