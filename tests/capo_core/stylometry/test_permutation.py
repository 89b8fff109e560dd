"""Within-item permutation tests: against exact enumeration, their size without effect, their power with one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from capo_core.errors import CorpusError
from capo_core.stylometry.controls import draw_within_items
from capo_core.stylometry.permutation import PermutationTests, compare_annotators

N_DESIGNS, N_PER_DESIGN = 20, 50


def complete(n_items: int, n_annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """Return owners and items of a complete design, item by item."""
    return np.tile(np.arange(n_annotators), n_items), np.repeat(np.arange(n_items), n_annotators)


def simulate_without_style(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features, owners, items and labels: items and labels matter, annotators prefer labels, nobody has style.

    Noise is skewed; a fifth of the rows is missing.
    """
    rng = np.random.default_rng([7, seed])
    owners, items = complete(30, 4)
    kept = rng.random(len(owners)) < 0.8
    owners, items = owners[kept], items[kept]
    labels = np.where(rng.random(len(owners)) < 0.4, owners % 3, rng.integers(0, 3, len(owners)))
    features = rng.exponential(size=(len(owners), N_PER_DESIGN))
    features += 2 * rng.normal(size=(30, N_PER_DESIGN))[items] + rng.normal(size=(3, N_PER_DESIGN))[labels]
    return features, owners, items, labels


@pytest.fixture(scope="module")
def without_style() -> list[PermutationTests]:
    """The tests of 1,000 simulated features, each set of 50 with a design and permutations of its own."""
    return [
        compare_annotators(*simulate_without_style(seed), n_permutations=499, seed=seed) for seed in range(N_DESIGNS)
    ]


def test_without_annotator_effect_p_is_below_a_twentieth_in_a_twentieth(without_style: list[PermutationTests]) -> None:
    p_values = np.concatenate([tests.p_values for tests in without_style])
    assert len(p_values) == 1000
    assert 0.03 <= (p_values < 0.05).mean() <= 0.07
    # and uniform throughout: Kolmogorov and Smirnov's distance of 1,000 draws exceeds .06 once in 700
    assert stats.kstest(p_values, "uniform").statistic < 0.06


def test_the_same_holds_for_each_annotator_against_the_others(without_style: list[PermutationTests]) -> None:
    p_values = np.concatenate([tests.p_by_annotator for tests in without_style], axis=1)
    for annotator in range(4):
        assert 0.03 <= (p_values[annotator] < 0.05).mean() <= 0.07


def test_effect_of_the_label_alone_passes_for_style_only_where_labels_are_ignored() -> None:
    ignored, regarded = [], []
    for seed in range(4):
        features, owners, items, labels = simulate_without_style(seed)
        mediated = features + 3.0 * (labels[:, None] == 0)
        ignored.append(compare_annotators(mediated, owners, items, None, n_permutations=199, seed=1).p_values)
        regarded.append(compare_annotators(mediated, owners, items, labels, n_permutations=199, seed=1).p_values)
    assert (np.concatenate(ignored) < 0.05).mean() > 0.3
    assert (np.concatenate(regarded) < 0.05).mean() < 0.11  # 200 tests: .05 + 4 SE of .015


def test_planted_effect_is_found_as_often_as_theory_says() -> None:
    # One of four annotators lies d = .4 SD above the others, 100 items. Non-centrality of F: 100 Σ (α_a - ᾱ)² with
    # deviations .3, -.1, -.1, -.1: 100 · .12 = 12. Power of F(3, 297) at .05: .84; of his own test, F(1, 297), .93.
    rng = np.random.default_rng(11)
    owners, items = complete(100, 4)
    features = rng.normal(size=(400, 1000)) + rng.normal(size=(100, 1000))[items] + 0.4 * (owners == 2)[:, None]
    tests = compare_annotators(features, owners, items, None, n_permutations=499, seed=1)
    for p_values, df in ((tests.p_values, 3), (tests.p_by_annotator[2], 1)):
        power = stats.ncf.sf(stats.f.isf(0.05, df, 297), df, 297, 12.0)
        assert (p_values < 0.05).mean() == pytest.approx(power, abs=0.05)  # 4 SE of at most .012


def test_p_values_equal_exact_enumeration_by_scipy() -> None:
    rng = np.random.default_rng(2)
    owners, items = complete(4, 3)
    values = rng.normal(size=(4, 3, 3)) + np.array([1.0, 0.0, 0.0])[None, :, None]
    tests = compare_annotators(values.reshape(12, 3), owners, items, None, n_permutations=20_000, seed=3)
    for feature in range(3):
        centred = values[..., feature] - values[..., feature].mean(axis=1, keepdims=True)
        exact = stats.permutation_test(
            tuple(centred.T),
            lambda *samples, axis: sum(sample.mean(axis=axis) ** 2 for sample in samples),
            permutation_type="samples",
            vectorized=True,
            n_resamples=6**4,  # all of them: 3! orders of each of 4 items
            alternative="greater",
        ).pvalue
        assert tests.p_values[feature] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_permutations_stay_within_items_and_are_equally_frequent() -> None:
    items = np.array([1, 0, 1, 0, 1])
    drawn = draw_within_items(items, 6000, np.random.default_rng(0))
    assert (items[drawn] == items).all()
    assert (np.sort(drawn, axis=1) == np.arange(5)).all()
    # 2! · 3! = 12 orders, 500 each; SD √(6000 · 1/12 · 11/12) = 21.4
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 12
    assert counts == pytest.approx(np.full(12, 500), abs=90)


def test_complete_separation_reaches_the_smallest_p() -> None:
    owners, items = complete(30, 3)
    tests = compare_annotators((owners == 1)[:, None] * 1.0, owners, items, None, n_permutations=999, seed=0)
    assert tests.p_values[0] == pytest.approx(1 / 1000)
    assert tests.p_by_annotator[1, 0] == pytest.approx(1 / 1000)
    assert tests.n_permutations == 999


def test_p_value_does_not_depend_on_the_other_features() -> None:
    features, owners, items, labels = simulate_without_style(0)
    features[::5, 1] = np.nan
    together = compare_annotators(features[:, :3], owners, items, labels, n_permutations=199, seed=4)
    for number in range(3):
        alone = compare_annotators(features[:, [number]], owners, items, labels, n_permutations=199, seed=4)
        assert alone.p_values[0] == together.p_values[number]
        assert alone.p_by_annotator[:, 0].tolist() == together.p_by_annotator[:, number].tolist()


def test_missing_values_are_left_out_and_not_filled_in() -> None:
    features, owners, items, labels = simulate_without_style(1)
    features[::4, 0] = np.nan
    kept = ~np.isnan(features[:, 0])
    whole = compare_annotators(features[:, :2], owners, items, labels, n_permutations=99, seed=4)
    part = compare_annotators(features[kept, :1], owners[kept], items[kept], labels[kept], n_permutations=99, seed=4)
    assert whole.p_values[0] == part.p_values[0]


def test_what_cannot_be_tested_is_undefined() -> None:
    owners, items = complete(6, 2)
    noise = np.random.default_rng(0).normal(size=12)
    features = np.column_stack([noise, np.full(12, 3.0), items * 1.0, np.full(12, np.nan)])
    tests = compare_annotators(features, owners, items, None, n_permutations=99, seed=0)
    assert not np.isnan(tests.p_values[0])
    assert np.isnan(tests.p_values[1:]).all()  # constant; the item alone; never defined
    assert np.isnan(tests.p_by_annotator[:, 1:]).all()
    own_labels = compare_annotators(features[:, :1], owners, items, owners, n_permutations=99, seed=0)
    assert np.isnan(own_labels.p_values[0])  # label and annotator cannot be told apart
    # An annotator who never shares an item with anybody has no test; the others have.
    apart = np.append(owners, 9), np.append(items, 99)
    tests = compare_annotators(np.append(noise, 0.5)[:, None], *apart, None, n_permutations=99, seed=0)
    assert np.isnan(tests.p_by_annotator[2, 0])
    assert not np.isnan(tests.p_by_annotator[0, 0])


def test_impossible_requests_are_errors_that_say_so() -> None:
    with pytest.raises(CorpusError, match=r"at least two.*ben"):
        compare_annotators(np.ones((3, 1)), np.array(["ben"] * 3), np.arange(3), None, n_permutations=9, seed=0)
    with pytest.raises(CorpusError, match="n_permutations is 0"):
        compare_annotators(np.ones((4, 1)), *complete(2, 2), None, n_permutations=0, seed=0)
