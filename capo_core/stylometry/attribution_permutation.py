"""Can annotators be told apart by a text representation at all: a classifier retrained under every permutation.

Under the null hypothesis the explanations of one item could each have been written by any of its annotators, so owners
change places among the rows of an item. The statistic is the cross-validated accuracy of a ridge classifier, and each
permutation goes through the whole of it, training included: the test is exact with ordinary cross-validation, where
that of `capo_core.stylometry.exchangeability` (whose classifier is too dear to retrain) needs a chain.

Only the owners change; features, folds and penalty stay, and with them the linear map from a training fold's targets to
the predictions for the fold held out. With n rows, K the Gram matrix of the features centred on their mean, I and 1 the
identity and the vector of ones, a fold f and the others -f:

    R = λ (K + λ I)⁻¹ - 1 1ᵀ / n                  targets to residuals of ridge regression with intercept, on all rows
    W_f = -R_ff⁻¹ R_f,-f                          targets of -f to predictions of f by the model of -f, exactly
    ŷ_tk = Σ_{r ∈ -f, owner(r) = k} W_tr          one-vs-rest prediction of annotator k for row t
    verdict_t = argmax_k ŷ_tk / (n_k / Σ_k n_k)   n_k rows of k in -f

(Treder 2018, arXiv 1803.10016, for cross-validation and permutations of least-squares classifiers without training;
the block form is that of leave-one-out in Golub, Heath and Wahba 1979.) All permutations are one product of matrices.

Classes are balanced as for the attributors: a prediction is taken relative to the annotator's share of the training
rows, as a posterior to equal priors. Where annotators have equally many training rows this is scikit-learn's
RidgeClassifier, with class_weight "balanced" or without. Where they have not, it is the same discriminant with the
covariance of all rows in place of the class-weighted one, (x - x̄)ᵀ (S + λ I / n)⁻¹ (x̄_k - x̄): weights by owner would
move with the owners, and every permutation would need a matrix inversion of its own.

Products are computed in single precision; verdicts closer than its rounding error bound are settled in double.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, sparse

from capo_core.errors import CorpusError
from capo_core.stylometry.design import encode, indicators, read_crossing

Features = Any
"""Rows of features [n, d]: np.ndarray or a scipy.sparse matrix, of which scipy ships no usable types."""

RELATIVE_PENALTY = 1.0
"""λ over the mean squared distance of the rows from their mean.

A fixed rule that never sees the owners: a penalty chosen for the observed owners would favour them over the permuted,
and choosing it anew under each would cost more than the test. The unit makes it free of the features' scale. Set after
looking at VariErr NLI and Paraphrase (training and validation; n-grams, sentence embeddings with and without the item's
mean), where 0.3 to 3 give accuracies within .03 of each other and 0.01 and 100 lose up to .12: no value there was worth
choosing for its p-value. Elsewhere the p-value is exact for any fixed one; a bad one costs power only.
"""

_CHUNK_CELLS = 2_000_000
_FAR = np.float32(1e30)
"""Below any score: that of an annotator of whom a fold has nothing to learn, so that he is never named there."""
_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
_TIE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class AttributionPermutations:
    """Cross-validated attribution accuracy, and what it is with owners permuted within items.

    Attributes:
        accuracy: mean over annotators of the share of their rows attributed to them, 0 to 1.
        null: [P] the same under each permutation.
        p_value: (1 + #{null ≥ accuracy}) / (1 + P), one-sided (Phipson and Smyth 2010); NaN where no item has rows of
            two annotators, so that nothing can be permuted.
        penalty: λ, on the scale of the features' squares.
    """

    accuracy: float
    null: np.ndarray
    p_value: float
    penalty: float

    @property
    def null_mean(self) -> float:
        """Return the mean of the permuted accuracies."""
        return float(self.null.mean())

    def null_quantiles(self, levels: Sequence[float] = (0.025, 0.5, 0.975)) -> np.ndarray:
        """Return quantiles of the permuted accuracies, numpy's linear ones, in the order of `levels`."""
        return np.quantile(self.null, levels)


@dataclass(frozen=True)
class _Rows:
    """The rows in an order that does not depend on that given: items of equally many rows together.

    Attributes:
        order: [n] numbers of the rows as given.
        owners: [n] annotator codes.
        items: [n] item codes.
        folds: [n] fold codes.
        blocks: (first row, number of items, rows of each) of the items of equal size.
        n_annotators: A.
    """

    order: np.ndarray
    owners: np.ndarray
    items: np.ndarray
    folds: np.ndarray
    blocks: tuple[tuple[int, int, int], ...]
    n_annotators: int

    def permute(self, n_permutations: int, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Return the owners permuted within items, [P, n]; the k-th permutation is the same however they are parted.

        Args:
            n_permutations: P.
            rngs: one generator per block, drawn from in turn.
        """
        permuted = np.empty((n_permutations, len(self.owners)), dtype=np.min_scalar_type(self.n_annotators))
        for (start, n_items, size), rng in zip(self.blocks, rngs, strict=True):
            stop = start + n_items * size
            own = self.owners[start:stop].reshape(1, n_items, size).astype(permuted.dtype)
            drawn = rng.permuted(np.repeat(own, n_permutations, axis=0), axis=2)
            permuted[:, start:stop] = drawn.reshape(n_permutations, -1)
        return permuted


def permute_attribution(
    features: Features,
    owners: np.ndarray,
    items: np.ndarray,
    folds: np.ndarray,
    *,
    n_permutations: int,
    seed: int,
    relative_penalty: float = RELATIVE_PENALTY,
) -> AttributionPermutations:
    """Return the cross-validated accuracy of a ridge classifier of annotators and its within-item permutation test.

    See the module for the classifier. Rows an annotator left out are simply not there: owners change places among the
    rows an item has. A vocabulary or scaling computed on all rows does not endanger the p-value, since it is the same
    under every permutation; the accuracy is then that of a classifier that had seen the held-out texts, unattributed.

    Time: n³ once, then about 1.5 n² (A - 1) operations a permutation. Memory: a few n x n arrays and a chunk of
    permutations, so meant for up to some ten thousand rows.

    Args:
        features: [n, d] array or scipy.sparse matrix (e.g. TF-IDF of n-grams), finite. Columns of embeddings are best
            standardised before.
        owners: [n] annotator of every row.
        items: [n] item of every row; an annotator may have several rows of one item.
        folds: [n] fold in which a row is held out; items, and the contexts they share, in one fold each.
        n_permutations: P, at least 1.
        seed: of the permutations.
        relative_penalty: λ over the mean squared distance of the rows from their mean, > 0.

    Raises:
        CorpusError: if there are fewer than two annotators or folds, an item stands in two folds, the columns differ in
            length, features are not finite or all rows are equal, or n_permutations or the penalty is out of range.
    """
    if n_permutations < 1:
        raise CorpusError(f"n_permutations is {n_permutations}; a permutation test needs at least 1")
    if not 0 < relative_penalty < np.inf:
        raise CorpusError(f"relative_penalty is {relative_penalty}; it must be positive and finite")
    features = _check_features(features, owners, items, folds)
    rows = _arrange(features, owners, items, folds)
    gram = _centred_gram(features[rows.order])
    penalty = relative_penalty * float(np.trace(gram)) / len(gram)
    classifier = _Classifier(rows, _held_out_weights(gram, rows.folds, penalty))
    accuracy = float(classifier.measure_accuracy(rows.owners[None])[0])
    rngs = [np.random.default_rng([seed, size]) for _, _, size in rows.blocks]
    chunk = max(1, _CHUNK_CELLS // (len(gram) * rows.n_annotators))
    null = np.concatenate(
        [
            classifier.measure_accuracy(rows.permute(min(chunk, n_permutations - start), rngs))
            for start in range(0, n_permutations, chunk)
        ]
    )
    reached = int(np.count_nonzero(null >= accuracy - _TIE_TOLERANCE))
    exchangeable = len(np.unique(np.stack([rows.items, rows.owners]), axis=1).T) > int(rows.items.max()) + 1
    p_value = (1 + reached) / (1 + n_permutations) if exchangeable else float("nan")
    return AttributionPermutations(accuracy, null, p_value, penalty)


class _Classifier:
    """Verdicts under many owners at once.

    Of each item one row need not be multiplied: the number of an annotator's rows in an item is the same under every
    permutation, so the weights of the item's last row are subtracted from the others' and enter as a constant. Nor need
    one annotator be: the predictions of all sum to one.
    """

    def __init__(self, rows: _Rows, weights: np.ndarray) -> None:
        """Prepare the products.

        Args:
            rows: n rows.
            weights: [n, n], of `_held_out_weights`.
        """
        self._rows, self._weights = rows, weights
        owned = indicators(rows.owners, rows.n_annotators)
        self._n_learnt = (rows.folds[:, None] != rows.folds) @ owned  # [n, A]
        self._shares = 1.0 / (np.bincount(rows.owners, minlength=rows.n_annotators) * rows.n_annotators)
        last = np.append(rows.items[1:] != rows.items[:-1], True)
        last_of = np.flatnonzero(last)[np.cumsum(last) - last]
        self._kept = np.flatnonzero(~last)
        steps = weights[:, self._kept] - weights[:, last_of[self._kept]]
        constants = weights[:, last_of] @ owned
        constants[:, -1] = 1.0 - constants[:, :-1].sum(axis=1)
        known = self._n_learnt > 0
        scale = known / np.maximum(self._n_learnt, 1.0)
        self._steps = np.ascontiguousarray(steps.T, dtype=np.float32)
        self._scale = scale.T.astype(np.float32)[:, None]  # [A, 1, n]
        self._offset = np.where(known, constants * scale, -_FAR).T.astype(np.float32)[:, None]
        self._margin_error = self._bound_error(steps, constants, scale)

    def _bound_error(self, steps: np.ndarray, constants: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return how far rounding can move the difference of two annotators' scores, [n].

        A sum of m terms is wrong by at most m u Σ|terms|, to first order and in whatever order it is taken (Higham
        2002, §4.2), and products with 0 and 1 are exact. The predictions share the terms out, so that their errors add
        up to m u Σ|all terms| at most, the last annotator's to that of all others. Eight more roundings each: of the
        terms, constants, sums over annotators, scores and difference.
        """
        n_terms = self._n_learnt.max() + self._rows.n_annotators + 8
        size = np.abs(steps).sum(axis=1) + np.abs(constants).sum(axis=1)
        return (2 * _ROUNDOFF * n_terms * size * scale.max(axis=1)).astype(np.float32)

    def measure_accuracy(self, permuted: np.ndarray) -> np.ndarray:
        """Return the mean over annotators of the share of their rows attributed to them, [P].

        Args:
            permuted: [P, n] owners.
        """
        n_products = self._rows.n_annotators - 1
        chosen = permuted[:, self._kept] == np.arange(n_products, dtype=permuted.dtype)[:, None, None]
        products = chosen.astype(np.float32).reshape(n_products * len(permuted), len(self._kept)) @ self._steps
        products = products.reshape(n_products, *permuted.shape)
        own, best_other = np.zeros(permuted.shape, np.float32), np.full(permuted.shape, -_FAR, np.float32)
        for annotator in range(n_products + 1):
            product = products[annotator] if annotator < n_products else -products.sum(axis=0)
            score = product * self._scale[annotator] + self._offset[annotator]
            mine = (permuted == annotator).astype(np.float32)  # arithmetic is several times faster than masks
            own += mine * score
            np.maximum(best_other, score - mine * _FAR, out=best_other)
        margin = own - best_other
        hits = margin > 0
        close = np.nonzero(np.abs(margin) <= self._margin_error)
        hits[close] = self._settle(permuted, *close)
        n_hits = [np.count_nonzero(hits & (permuted == k), axis=1) for k in range(n_products + 1)]
        return self._shares @ np.stack(n_hits)

    def _settle(self, permuted: np.ndarray, permutations: np.ndarray, judged: np.ndarray) -> np.ndarray:
        """Return whether single rows are attributed to their owners, [C] booleans, in double precision.

        Equal scores go to the annotator first in order, as in scikit-learn.

        Args:
            permuted: [P, n] owners.
            permutations: [C] of every case.
            judged: [C] row of every case.
        """
        hits = np.empty(len(judged), dtype=bool)
        step = max(1, _CHUNK_CELLS // len(self._weights))
        for start in range(0, len(judged), step):
            part = slice(start, start + step)
            owners, weights = permuted[permutations[part]], self._weights[judged[part]]
            predictions = [np.where(owners == k, weights, 0.0).sum(axis=1) for k in range(self._rows.n_annotators)]
            n_learnt = self._n_learnt[judged[part]]
            scores = np.stack(predictions, axis=1) / np.maximum(n_learnt, 1.0)
            verdicts = np.where(n_learnt > 0, scores, -np.inf).argmax(axis=1)
            hits[part] = verdicts == permuted[permutations[part], judged[part]]
        return hits


def _check_features(features: Features, owners: np.ndarray, items: np.ndarray, folds: np.ndarray) -> Features:
    """Return the features as doubles, an array or a matrix in compressed rows."""
    features = sparse.csr_array(features, dtype=float) if sparse.issparse(features) else np.asarray(features, float)
    lengths = (features.shape[0], len(owners), len(items), len(folds))
    if len(features.shape) != 2 or len(set(lengths)) > 1:
        raise CorpusError(
            f"features {tuple(features.shape)}, owners, items and folds must be of the same rows; they have {lengths}"
        )
    values = features.data if isinstance(features, sparse.csr_array) else features
    if not np.isfinite(values).all():
        raise CorpusError(
            f"{int((~np.isfinite(values)).sum())} feature values are not finite; leave such rows or columns out"
        )
    return features


def _arrange(features: Features, owners: np.ndarray, items: np.ndarray, folds: np.ndarray) -> _Rows:
    """Return the rows by size of their item, item, owner and, of rows alike in all of these, features."""
    crossing, _ = read_crossing(owners, items, None)
    fold_codes = encode(folds)
    if (n_folds := int(fold_codes.max()) + 1) < 2:
        raise CorpusError(f"cross-validation needs at least two folds, folds has {n_folds}")
    placed = np.unique(np.stack([crossing.items, fold_codes]), axis=1)[0]
    if len(repeated := placed[1:][placed[1:] == placed[:-1]]):
        name = np.asarray(items)[crossing.items == repeated[0]][0]
        raise CorpusError(f"item {str(name)!r} stands in more than one fold; hold all rows of an item out together")
    sizes = np.bincount(crossing.items)
    tie_break = features @ np.random.default_rng(0).normal(size=features.shape[1])
    order = np.lexsort((tie_break, crossing.owners, crossing.items, sizes[crossing.items]))
    blocks, start = [], 0
    for size, n_items in zip(*np.unique(sizes, return_counts=True), strict=True):
        blocks.append((start, int(n_items), int(size)))
        start += int(n_items * size)
    codes = (crossing.owners[order], crossing.items[order], fold_codes[order])
    return _Rows(order, *codes, tuple(blocks), crossing.n_annotators)


def _centred_gram(features: Features) -> np.ndarray:
    """Return the inner products of the rows minus their mean, [n, n]."""
    if isinstance(features, sparse.csr_array):
        gram = (features @ features.T).toarray()
        gram = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    else:
        centred = features - features.mean(axis=0)
        gram = centred @ centred.T
    scale = features.multiply(features).sum() if isinstance(features, sparse.csr_array) else (features**2).sum()
    if np.trace(gram) <= len(gram) * np.finfo(float).eps * scale:
        raise CorpusError(f"all {len(gram)} rows have the same features; there is nothing to tell annotators apart by")
    return gram


def _held_out_weights(gram: np.ndarray, folds: np.ndarray, penalty: float) -> np.ndarray:
    """Return what each row's target adds to each held-out prediction, [n, n]: W_f, zero within the row's own fold."""
    n_rows = len(gram)
    residual = penalty * linalg.inv(gram + penalty * np.eye(n_rows), assume_a="pos") - 1.0 / n_rows
    weights = np.zeros_like(residual)
    for fold in range(int(folds.max()) + 1):
        held_out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        within, across = residual[np.ix_(held_out, held_out)], residual[np.ix_(held_out, others)]
        weights[np.ix_(held_out, others)] = -linalg.solve(within, across, assume_a="pos")
    return weights
