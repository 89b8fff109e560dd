"""The mean standardised distance of a method's style to a person's, as a score that every resample computes anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import wasserstein_distance

from capo_core.evaluation.scores import Draws, Resampling, ScoreName, Scores, mean_over_first_axis, rows_of_seeds
from capo_core.evaluation.wasserstein import ItemSample, StepFunctions, build_step_functions, distances_between
from capo_core.statistics.significance import draw_swaps, mean_of_defined, mean_over_seeds, p_value_of_null_draws

_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class HumanStyle:
    """The people's held-out text by its features, and the units of distance.

    Attributes:
        features: [A, I, M, F], M the most explanations of an item by one person; NaN where there is none, or undefined.
        scales: [A, F] unit of distance: the person's standard deviation in all his text, seen and held out, but at
            least a set share of that over everybody's, so that a habit with (almost) no variation has one.
        names: F features: those that vary in people's text; the others have no unit.
    """

    features: np.ndarray
    scales: np.ndarray
    names: tuple[str, ...]

    def sample(self, annotator: int) -> ItemSample:
        """Return one person's held-out text."""
        values = self.features[annotator]
        items, members = np.nonzero(~np.isnan(values).all(axis=2))
        n_of_item = np.bincount(items, minlength=len(values))
        return ItemSample(values[items, members], items, 1.0 / n_of_item[items])


@dataclass(frozen=True)
class StyleDistanceScores:
    """Mean standardised distance over features, computed anew in every resample of items.

    d = 1/|F| Σ_f W1(generated_f, own_f) / scale_f, per seed, then averaged over seeds. Both texts are weighted by how
    often their items stand in the resample. The distance between two resamples is biased upwards, by what it is above
    0 for samples alike, so the replicates are shifted to have the estimate of the whole sample as their mean (bias
    correction as in Efron and Tibshirani 1993, chapter 10), and cut off at 0. In simulations of 50 items and 5 features
    the 95% interval held the expected estimate in 89 to 99% of cases, and that of a difference of two like methods 0 in
    91 to 99%.

    Attributes:
        name: which figure this is.
        seeds: axis S; () for people's text, where all slices have equal weight.
        features: [S, A, I, F] of each response; NaN where there is none, or undefined.
        human: what it is held against.
    """

    name: ScoreName
    seeds: tuple[int, ...]
    features: np.ndarray
    human: HumanStyle

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        return self.features.shape[0]

    def present(self) -> np.ndarray:
        """Return which cells have an explanation, [S, A, I] booleans."""
        return np.asarray(np.isfinite(self.features).any(axis=3))

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: none of a person without held-out text."""
        written = np.asarray(np.isfinite(self.human.features).any(axis=(1, 2, 3)))
        return self.present() & written[None, :, None]

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the mean distance per resample and annotator, [B, A], NaN where not measured."""
        counts = draws.resamples.item_counts
        weightings = np.concatenate([np.ones_like(counts[:1]), counts]).astype(float)
        by_slice = np.full((len(counts), *self.features.shape[:2]), np.nan)
        for slice_, annotator in self._series():
            distances = _mean_distances(self._steps(slice_, annotator), weightings)
            replicates = distances[1:]
            defined = ~np.isnan(replicates)
            if defined.any():
                shift = distances[0] - replicates[defined].mean()
                by_slice[:, slice_, annotator] = np.maximum(replicates + shift, 0.0)
        return mean_over_seeds(by_slice, draws.resamples)

    def at_seeds(self, seeds: tuple[int, ...]) -> StyleDistanceScores:
        """Return the scores of `seeds`, in that order; what no seed enters stands at each of them."""
        return replace(self, seeds=seeds, features=self.features[rows_of_seeds(self.seeds, seeds)])

    def only(self, cells: np.ndarray) -> StyleDistanceScores:
        """Return the scores with everything outside `cells`, [S, A, I], taken as not measured."""
        return replace(self, features=np.where(cells[..., None], self.features, np.nan))

    def swap_p_value(self, other: Scores, resampling: Resampling) -> float:
        """Return the two-sided p-value of the difference under swapping the two methods' responses item by item.

        An item's responses change places for all annotators and seeds at once, and the distances are computed again;
        the person's own text stays. p = (1 + as extreme) / (1 + swaps drawn).

        Raises:
            TypeError: if `other` is another kind of score.
        """
        if not isinstance(other, StyleDistanceScores):
            raise TypeError(f"cannot compare StyleDistanceScores with {type(other).__name__}")
        rng = np.random.default_rng([resampling.config.seed, 4])
        swaps = draw_swaps(resampling.n_items, resampling.config.n_bootstrap, rng)
        differences = np.full((len(swaps), *self.features.shape[:2]), np.nan)
        for slice_, annotator in self._series():
            steps = self._steps(slice_, annotator, other)
            differences[:, slice_, annotator] = _swapped_differences(steps, swaps.astype(float))
        means = mean_of_defined(mean_of_defined(differences))
        return p_value_of_null_draws(float(means[0]), means[1:])

    def by_feature(self) -> np.ndarray:
        """Return the distance of every feature in the whole sample, mean over slices, [A, F]; NaN where undefined."""
        found = np.full((*self.features.shape[:2], len(self.human.names)), np.nan)
        for slice_, annotator in self._series():
            samples = self._sample(slice_, annotator), self.human.sample(annotator)
            found[slice_, annotator] = _unscaled_distances(*samples) / self.human.scales[annotator]
        return mean_over_first_axis(found)[0]

    def _series(self) -> Iterable[tuple[int, int]]:
        """Return slice and annotator of every series with anything measured."""
        return [(int(s), int(a)) for s, a in np.argwhere(self.measured().any(axis=2))]

    def _sample(self, slice_: int, annotator: int) -> ItemSample:
        """Return the responses of one series."""
        values = self.features[slice_, annotator]
        items = np.flatnonzero(~np.isnan(values).all(axis=1))
        return ItemSample(values[items], items, np.ones(len(items)))

    def _steps(self, slice_: int, annotator: int, *others: StyleDistanceScores) -> StepFunctions:
        """Return the distribution functions of one series, of the same series of `others`, and of the person's text."""
        samples = [scores._sample(slice_, annotator) for scores in (self, *others)]
        own = self.human.sample(annotator)
        return build_step_functions([*samples, own], self.human.scales[annotator], self.features.shape[2])


def _unscaled_distances(generated: ItemSample, own: ItemSample) -> np.ndarray:
    """Return W1 of each feature in its own unit, [F], NaN where one sample has no value."""
    distances = np.full(own.values.shape[1], np.nan)
    for feature in range(len(distances)):
        parts = []
        for sample in (generated, own):
            defined = ~np.isnan(sample.values[:, feature])
            parts.append((sample.values[defined, feature], sample.weights[defined]))
        (x, u), (y, v) = parts
        if len(x) and len(y):
            distances[feature] = wasserstein_distance(x, y, u, v)
    return distances


def _mean_distances(steps: StepFunctions, weightings: np.ndarray) -> np.ndarray:
    """Return the mean over features of the distance of two samples under each weighting of items, [R, I] -> [R]."""
    step = max(1, _CHUNK_CELLS // max(1, len(steps.widths)))
    parts = []
    for start in range(0, len(weightings), step):
        weights = weightings[start : start + step]
        sums = [(weights @ m, weights @ t) for m, t in zip(steps.masses, steps.totals, strict=True)]
        parts.append(distances_between(sums[0], sums[1], steps))
    return mean_of_defined(np.concatenate(parts))


def _swapped_differences(steps: StepFunctions, swaps: np.ndarray) -> np.ndarray:
    """Return the difference of two methods' mean distances to a person's text under each swap of items, [R, I] -> [R].

    Args:
        steps: of the one method, the other, and the person's text.
        swaps: 1 where the methods' responses change places.
    """
    own = steps.masses[2].sum(axis=0)[None], steps.totals[2].sum(axis=0)[None]
    whole = [(steps.masses[k].sum(axis=0), steps.totals[k].sum(axis=0)) for k in (0, 1)]
    step = max(1, _CHUNK_CELLS // max(1, len(steps.widths)))
    parts: list[list[np.ndarray]] = [[], []]
    for start in range(0, len(swaps), step):
        chosen = swaps[start : start + step]
        change = [chosen @ (values[1] - values[0]) for values in (steps.masses, steps.totals)]
        for k, sign in enumerate((1.0, -1.0)):
            swapped = whole[k][0] + sign * change[0], whole[k][1] + sign * change[1]
            parts[k].append(distances_between(swapped, own, steps))
    first, second = (mean_of_defined(np.concatenate(part)) for part in parts)
    return first - second
