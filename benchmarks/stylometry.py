"""Time of the within-item permutation tests against scipy's and scikit-learn's: `python -m benchmarks.stylometry`.

Two tests: of the features' means (`permutation.compare_annotators`, peer scipy.stats.permutation_test), and of the
accuracy of a classifier (`attribution_permutation.permute_attribution`, peer scikit-learn's permutation_test_score with
RidgeClassifier on the same folds, permuting within the same items). Both sides on one thread, in turns, medians. The
peers do fewer permutations; their time for as many is extrapolated from their rate. Ratios are of processor time, which
other work on the machine disturbs less; wall times stand beside it. `--quick`: one turn each, fewer of the peers'.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import scipy
import sklearn
from scipy import stats
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import PredefinedSplit, permutation_test_score
from threadpoolctl import threadpool_limits

from benchmarks.machine import name_processor
from capo_core.stylometry.attribution_permutation import permute_attribution
from capo_core.stylometry.permutation import compare_annotators

N_ITEMS, N_ANNOTATORS, N_FOLDS = 400, 4, 5
N_FEATURES = 40
N_DIMENSIONS = 384
"""Of a small sentence encoder."""
N_PERMUTATIONS = 10_000
SEED = 13


@dataclass(frozen=True)
class Time:
    """Seconds of one run, and what it returned."""

    wall: float
    processor: float
    result: Any


@dataclass(frozen=True)
class Effort:
    """Turns each, and what the peers do in one: resamples (scipy), permutations (scikit-learn)."""

    n_turns: int
    n_resamples: int
    n_peer_permutations: int


FULL, QUICK = Effort(5, 1_000, 40), Effort(1, 200, 20)


def main() -> None:
    """Print times and ratios of both tests, with the results they should have in common."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    effort = QUICK if parser.parse_args().quick else FULL
    print(
        f"{name_processor()}, 1 thread of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, sklearn {sklearn.__version__}"
    )
    with threadpool_limits(limits=1):
        _compare_feature_tests(effort)
        _compare_attribution_tests(effort)


def _compare_feature_tests(effort: Effort) -> None:
    rng = np.random.default_rng(SEED)
    items, owners = _design()
    features = rng.normal(size=(len(items), N_FEATURES)) + rng.normal(size=N_ITEMS)[items][:, None]
    first = features[:, 0].reshape(N_ITEMS, N_ANNOTATORS)
    ours, peers = _time_in_turns(
        lambda: compare_annotators(features, owners, items, None, n_permutations=N_PERMUTATIONS, seed=SEED).p_values[0],
        lambda: _peer_p_value(first, effort.n_resamples),
        effort.n_turns,
    )
    print(f"\nmeans of {N_FEATURES} features, {len(items)} rows, complete, no labels")
    print(f"  capo: {N_PERMUTATIONS} permutations of all features: {_write(ours)} (p of one {ours.result:.3f})")
    print(
        "  scipy stats.permutation_test(permutation_type='samples', vectorized): "
        f"{effort.n_resamples} resamples of 1 feature: {_write(peers)} (p {peers.result:.3f})"
    )
    _print_ratio(ours, peers, N_PERMUTATIONS / effort.n_resamples * N_FEATURES, "scipy")


def _compare_attribution_tests(effort: Effort) -> None:
    rng = np.random.default_rng(SEED)
    items, owners = _design()
    folds = rng.permutation(N_ITEMS)[items] % N_FOLDS
    features = rng.normal(size=(len(items), N_DIMENSIONS)) + rng.normal(size=(N_ITEMS, N_DIMENSIONS))[items]
    features[:, :N_ANNOTATORS] += np.eye(N_ANNOTATORS)[owners]
    # The same penalty on both sides, in scikit-learn's terms.
    penalty = permute_attribution(features, owners, items, folds, n_permutations=1, seed=SEED).penalty
    splits = list(PredefinedSplit(folds).split())

    def run_ours() -> tuple[float, float]:
        test = permute_attribution(features, owners, items, folds, n_permutations=N_PERMUTATIONS, seed=SEED)
        return test.accuracy, test.p_value

    def run_peer() -> tuple[float, float]:
        n_permutations, classifier = effort.n_peer_permutations, RidgeClassifier(alpha=penalty)
        accuracy, _, p_value = permutation_test_score(
            classifier, features, owners, groups=items, cv=splits, n_permutations=n_permutations, random_state=SEED
        )
        return float(accuracy), float(p_value)

    ours, peers = _time_in_turns(run_ours, run_peer, effort.n_turns)
    print(f"\nattribution by a ridge classifier, {len(items)} rows x {N_DIMENSIONS} dimensions, {N_FOLDS} folds")
    for who, n, run in (
        ("capo permute_attribution", N_PERMUTATIONS, ours),
        ("sklearn permutation_test_score", effort.n_peer_permutations, peers),
    ):
        accuracy, p_value = run.result
        print(f"  {who}: {n} permutations: {_write(run)} (accuracy {accuracy:.5f}, p {p_value:.5f})")
    # It scores the observed owners too.
    _print_ratio(ours, peers, (N_PERMUTATIONS + 1) / (effort.n_peer_permutations + 1), "sklearn")


def _design() -> tuple[np.ndarray, np.ndarray]:
    """Return items and owners of a complete design, item by item."""
    return np.repeat(np.arange(N_ITEMS), N_ANNOTATORS), np.tile(np.arange(N_ANNOTATORS), N_ITEMS)


def _peer_p_value(values: np.ndarray, n_resamples: int) -> float:
    """Return scipy's p-value for the same statistic: squared annotator means of item-centred values, [I, A]."""
    centred = values - values.mean(axis=1, keepdims=True)

    def between(*samples: np.ndarray, axis: int) -> np.ndarray:
        return sum(sample.mean(axis=axis) ** 2 for sample in samples)  # type: ignore[return-value]

    result = stats.permutation_test(
        tuple(centred.T),
        between,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        alternative="greater",
        rng=np.random.default_rng(SEED),
    )
    return float(result.pvalue)


def _time_in_turns(ours: Callable[[], object], peer: Callable[[], object], n_turns: int) -> tuple[Time, Time]:
    """Return the median times of both, who take turns."""
    times: list[list[Time]] = [[], []]
    for _ in range(n_turns):
        for run, found in zip((ours, peer), times, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            result = run()
            found.append(Time(time.perf_counter() - wall, time.process_time() - processor, result))
    medians = [Time(median(t.wall for t in f), median(t.processor for t in f), f[0].result) for f in times]
    return medians[0], medians[1]


def _write(run: Time) -> str:
    return f"{run.processor:.2f} s of processor, {run.wall:.2f} s on the wall"


def _print_ratio(ours: Time, peer: Time, scale: float, name: str) -> None:
    processor, wall = peer.processor * scale, peer.wall * scale
    print(
        f"  {name} for as many, extrapolated x{scale:.0f} (not measured): {processor:.0f} s of processor, {wall:.0f} s"
    )
    print(f"  ratio {name} / capo: {processor / ours.processor:.0f} (wall {wall / ours.wall:.0f})")


if __name__ == "__main__":
    main()
