"""The permutation test of a retrained ridge classifier: scikit-learn's accuracies, its level and its power."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from capo_core.errors import CorpusError
from capo_core.stylometry.attribution_permutation import AttributionPermutations, permute_attribution
from capo_core.stylometry.controls import shuffle_within_items

Design = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def design(
    n_items: int, n_annotators: int, width: int, *, effect: float = 0.0, kept: float = 1.0, seed: int = 0
) -> Design:
    """Return features, owners, items and folds: item effects, noise of 1, annotator a `effect` away in column a."""
    rng = np.random.default_rng([3, seed])
    owners, items = np.tile(np.arange(n_annotators), n_items), np.repeat(np.arange(n_items), n_annotators)
    there = rng.random(len(owners)) < kept
    owners, items = owners[there], items[there]
    folds = (rng.permutation(n_items) % 5)[items]
    features = rng.normal(size=(len(owners), width)) + rng.normal(size=(n_items, width))[items]
    features[np.arange(len(owners)), owners] += effect
    return features, owners, items, folds


def run(data: Design, n_permutations: int = 1, seed: int = 0, **settings: float) -> AttributionPermutations:
    return permute_attribution(*data, n_permutations=n_permutations, seed=seed, **settings)


def sklearn_accuracy(data: Design, penalty: float, class_weight: str | None) -> float:
    """Return the balanced accuracy of scikit-learn's ridge classifier, every row judged by the model of other folds."""
    features, owners, _, folds = data
    classifier = RidgeClassifier(alpha=penalty, class_weight=class_weight)
    verdicts = cross_val_predict(classifier, features, owners, cv=PredefinedSplit(folds))
    return float(balanced_accuracy_score(owners, verdicts))


def regression_accuracy(data: Design, penalty: float) -> float:
    """Return the same by scikit-learn's ridge regression of each annotator's indicator, over his training share."""
    features, owners, _, folds = data
    verdicts = np.empty_like(owners)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        known = np.unique(owners[train])
        targets = (owners[train][:, None] == known).astype(float)
        predictions = Ridge(alpha=penalty).fit(features[train], targets).predict(features[test])
        verdicts[test] = known[(predictions / targets.mean(axis=0)).argmax(axis=1)]
    return float(np.mean([(verdicts == k)[owners == k].mean() for k in np.unique(owners)]))


@pytest.mark.parametrize("n_annotators", [2, 4])
@pytest.mark.parametrize("width", [6, 200])  # fewer and more columns than rows
@pytest.mark.parametrize("relative_penalty", [0.01, 1.0])
def test_accuracy_is_that_of_the_ridge_classifier(n_annotators: int, width: int, relative_penalty: float) -> None:
    features, owners, items, folds = design(30, n_annotators, width, effect=1.0)
    rng = np.random.default_rng(5)
    claims = [owners, *(shuffle_within_items(owners, items, rng) for _ in range(6))]
    for claimed in claims:
        data = (features, claimed, items, folds)
        ours = run(data, relative_penalty=relative_penalty)
        for class_weight in (None, "balanced"):  # all annotators have equally many rows in every fold
            assert ours.accuracy == pytest.approx(sklearn_accuracy(data, ours.penalty, class_weight), abs=1e-12)


def unbalanced(seed: int) -> Design:
    """Return a design with a fifth of the rows missing, and two thirds of the last annotator's."""
    features, owners, items, folds = design(50, 4, 8, effect=1.0, kept=0.8, seed=seed)
    there = (owners != 3) | (items % 3 == 0)
    return features[there], owners[there], items[there], folds[there]


def test_missing_rows_are_left_out_and_annotators_balanced() -> None:
    features, owners, items, folds = unbalanced(0)
    assert np.bincount(owners)[3] < 0.5 * np.bincount(owners)[:3].min()
    rng = np.random.default_rng(6)
    for claimed in [owners, *(shuffle_within_items(owners, items, rng) for _ in range(6))]:
        data = (features, claimed, items, folds)
        ours = run(data)
        assert ours.accuracy == pytest.approx(regression_accuracy(data, ours.penalty), abs=1e-12)


def test_balance_by_share_is_as_good_as_by_class_weight() -> None:
    # The two differ in the covariance, hence in a few verdicts of about 140. Three more right than wrong are .02 of
    # accuracy, so that over 20 designs the mean difference has a standard error of .02 / √20 = .005.
    by_share, by_weight, plain = [], [], []
    for seed in range(20):
        data = unbalanced(seed)
        ours = run(data)
        by_share.append(ours.accuracy)
        by_weight.append(sklearn_accuracy(data, ours.penalty, "balanced"))
        plain.append(sklearn_accuracy(data, ours.penalty, None))
    difference, unweighted = np.subtract(by_share, by_weight), np.subtract(plain, by_weight)
    assert abs(difference.mean()) < 0.02
    assert np.abs(difference).mean() < np.abs(unweighted).mean()


def test_annotator_of_one_fold_is_never_named_there() -> None:
    # Annotator 2 explained items of fold 0 only: nobody can learn him for it, and the share of his rows found is 0.
    features, owners, items, folds = design(30, 3, 8, effect=3.0)
    there = (owners != 2) | (folds == 0)
    data = (features[there], owners[there], items[there], folds[there])
    ours = run(data, 30)
    assert 0.5 < ours.accuracy <= 2 / 3
    assert ours.accuracy == pytest.approx(regression_accuracy(data, ours.penalty), abs=1e-12)
    assert (ours.null <= 2 / 3).all()


def test_near_ties_are_settled_in_double_precision() -> None:
    # Under a penalty of a million the predictions differ by about 1e-7, which single precision cannot tell apart.
    data = design(40, 4, 6, effect=1.0)
    ours = run(data, relative_penalty=1e6)
    assert ours.accuracy == pytest.approx(sklearn_accuracy(data, ours.penalty, None), abs=1e-12)
    assert ours.accuracy > 0.4


def test_permuted_accuracies_are_those_of_owners_permuted_within_items() -> None:
    # Two annotators, items of +1 by one and -1 by the other; three items in either fold. Permuting flips the sign of an
    # item or not. A fold's model follows the majority of its three signs; an item of the other fold is judged right
    # where it has that sign. So every one of 64 sign patterns has a known number of items right, 0 to 6.
    features = np.tile([1.0, -1.0], 6)[:, None]
    owners, items, folds = np.tile([0, 1], 6), np.repeat(np.arange(6), 2), np.repeat([0, 1], 6)
    counts = np.zeros(7)
    for signs in product([-1, 1], repeat=6):
        majorities = np.sign(sum(signs[3:])), np.sign(sum(signs[:3]))
        counts[sum(sign == majorities[place // 3] for place, sign in enumerate(signs))] += 1
    assert counts[6] == 2  # all signs alike
    ours = run((features, owners, items, folds), 4000)
    assert ours.accuracy == 1.0
    drawn = np.bincount(np.rint(ours.null * 6).astype(int), minlength=7)
    expected = counts / 64
    # four standard errors of a share of 4,000
    assert np.all(np.abs(drawn / 4000 - expected) <= 4 * np.sqrt(expected * (1 - expected) / 4000))
    assert ours.p_value == (1 + drawn[6]) / 4001
    assert ours.null_mean == pytest.approx(ours.null.mean())
    assert ours.null_quantiles([0.0, 1.0]).tolist() == pytest.approx([ours.null.min(), 1.0])


def test_sparse_features_give_the_same_as_dense_ones() -> None:
    rng = np.random.default_rng(7)
    _, owners, items, folds = design(20, 3, 4)
    habits = ["because it is", "since that was", "so they are"]
    openings = [habits[owner] if rng.random() < 0.5 else "" for owner in owners]
    texts = [f"{opening} w{rng.integers(9)} w{item}" for opening, item in zip(openings, items, strict=True)]
    ngrams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(texts)
    assert sparse.issparse(ngrams)
    of_sparse = run((ngrams, owners, items, folds), 200)
    of_dense = run((ngrams.toarray(), owners, items, folds), 200)
    assert of_sparse.penalty == pytest.approx(of_dense.penalty)
    np.testing.assert_allclose(of_sparse.null, of_dense.null, atol=1e-12)
    assert of_sparse.p_value == of_dense.p_value == 1 / 201


def test_p_values_are_uniform_where_there_is_no_style() -> None:
    # Owners are exchangeable within items, a fifth of the rows missing. p <= .05 means that at most 9 of 199 permuted
    # accuracies reach the observed: probability 10/200 without ties, less with them. The accuracy is a count of about
    # 19 right in 58 with a standard deviation of about 3.6, so that one permutation in nine ties with a middling
    # observation, one in forty at the tail, and .05 falls by up to half that. 1,000 draws of a share of .05 have a
    # standard error of .0069: .03 to .07 is 2.9 of them on either side.
    p_values = []
    for seed in range(1000):
        data = design(24, 3, 5, kept=0.8, seed=seed)
        p_values.append(run(data, 199, seed).p_value)
    shares = [np.mean(np.array(p_values) <= level) for level in (0.05, 0.25, 0.5)]
    assert 0.03 <= shares[0] <= 0.07
    assert 0.19 <= shares[1] <= 0.29
    assert 0.40 <= shares[2] <= 0.55


def test_planted_style_is_found() -> None:
    p_values = [run(design(40, 3, 5, effect=1.2, kept=0.8, seed=seed), 199, seed).p_value for seed in range(50)]
    assert np.mean(np.array(p_values) <= 0.05) > 0.9
    strong = run(design(60, 4, 5, effect=3.0), 999)
    assert strong.accuracy > 0.8
    assert strong.p_value == 1 / 1000
    assert strong.null_mean == pytest.approx(0.25, abs=0.02)


def test_result_does_not_depend_on_the_order_of_rows() -> None:
    features, owners, items, folds = design(25, 3, 6, effect=0.5, kept=0.8)
    twice = np.concatenate([np.arange(len(owners)), np.flatnonzero(items % 4 == 0)])  # a second row of the same owner
    features, owners, items, folds = features[twice], owners[twice], items[twice], folds[twice]
    features = features + 0.1 * np.random.default_rng(8).normal(size=features.shape)
    first = run((features, owners, items, folds), 300, seed=4)
    order = np.random.default_rng(9).permutation(len(owners))
    names = np.array(["ann", "bob", "cas"])[owners]  # nor on what they are called, in the same order
    second = run((features[order], names[order], items[order], folds[order]), 300, seed=4)
    assert (first.accuracy, first.p_value, first.penalty) == (second.accuracy, second.p_value, second.penalty)
    np.testing.assert_array_equal(first.null, second.null)


def test_seed_decides_the_permutations_and_more_of_them_begin_alike() -> None:
    data = design(25, 3, 6, kept=0.8)
    few, many, other = run(data, 40, 1), run(data, 90, 1), run(data, 40, 2)
    np.testing.assert_array_equal(few.null, many.null[:40])
    assert not np.array_equal(few.null, other.null)


def test_p_value_is_undefined_where_nothing_can_be_permuted() -> None:
    features, owners, _, folds = design(20, 2, 4)
    alone = np.arange(len(owners))
    assert np.isnan(run((features, owners, alone, folds), 20).p_value)


def test_scale_of_the_features_does_not_matter() -> None:
    features, owners, items, folds = design(25, 3, 6, effect=0.5)
    small, large = run((features, owners, items, folds), 50), run((features * 1024.0 + 8.0, owners, items, folds), 50)
    np.testing.assert_allclose(small.null, large.null, atol=1e-12)
    assert large.penalty == pytest.approx(small.penalty * 1024**2)


def test_bad_input_is_refused() -> None:
    features, owners, items, folds = design(10, 2, 3)
    with pytest.raises(CorpusError, match="n_permutations is 0"):
        run((features, owners, items, folds), 0)
    with pytest.raises(CorpusError, match="relative_penalty is 0"):
        run((features, owners, items, folds), relative_penalty=0.0)
    with pytest.raises(CorpusError, match="at least two"):
        run((features, np.zeros_like(owners), items, folds))
    with pytest.raises(CorpusError, match="at least two folds, folds has 1"):
        run((features, owners, items, np.zeros_like(folds)))
    names = np.array([f"item{i}" for i in items])
    with pytest.raises(CorpusError, match="item 'item0' stands in more than one fold"):
        run((features, owners, names, np.arange(len(items)) % 2))
    with pytest.raises(CorpusError, match="of the same rows"):
        run((features[1:], owners, items, folds))
    with pytest.raises(CorpusError, match="same features"):
        run((np.full_like(features, 0.3), owners, items, folds))
    features[2, 1] = np.nan
    with pytest.raises(CorpusError, match="1 feature values are not finite"):
        run((features, owners, items, folds))
