"""What the input alone lets one expect of an explanation's embedding: ridge regression on the input's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-2, 3, 11))
"""Ridge penalties tried, two per decade."""


@dataclass(frozen=True)
class InputRegression:
    """A fitted linear map from the input's embedding to the mean explanation's.

    Attributes:
        coefficients: [d, p].
        intercept: [d].
    """

    coefficients: np.ndarray
    intercept: np.ndarray

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return the expected embedding of an explanation of each input, [n, p] -> [n, d]."""
        return inputs @ self.coefficients.T + self.intercept


def fit_input_regression(inputs: np.ndarray, embeddings: np.ndarray, item_ids: Sequence[str]) -> InputRegression:
    """Return the ridge regression of the items' mean explanation on their input.

    min Σ_i ‖ē_i - W x_i - w₀‖² + λ‖W‖², ē_i the mean embedding of item i's explanations. All explanations of an item
    have one input, so the regression is of item means; and λ is the one with the least leave-one-*item*-out error
    (Golub, Heath and Wahba 1979; exact, by scikit-learn's RidgeCV), summed over dimensions. Leaving out single
    explanations instead would choose too small a λ, since the item's others would still be in the fit.

    Args:
        inputs: [n, p] embedding of each explanation's input.
        embeddings: [n, d] of the explanations.
        item_ids: n item ids.
    """
    _, first, item_of, counts = np.unique(
        np.asarray(item_ids), return_index=True, return_inverse=True, return_counts=True
    )
    means = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(means, item_of, embeddings)
    means /= counts[:, None]
    with threadpool_limits(limits=1, user_api="blas"):  # as for the attributors: small matrices, busy cores
        ridge = RidgeCV(alphas=PENALTIES).fit(inputs[first], means)
    coefficients = np.asarray(ridge.coef_, dtype=float).reshape(means.shape[1], inputs.shape[1])
    return InputRegression(coefficients, means.mean(axis=0) - inputs[first].mean(axis=0) @ coefficients.T)
