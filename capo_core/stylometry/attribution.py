"""The classifier that says who wrote an explanation: one definition for stability, imitation and judging.

Texts: character n-grams of length 1 to 5 (as written: case, punctuation and white space kept), sublinear TF-IDF,
multinomial logistic regression with L2 penalty. Embeddings: standardised, the same regression with a stronger penalty.
Vocabulary, document frequencies, means and deviations come from the training rows only. Every annotator's training
explanations weigh the same in all, so that an annotator is not named for having written more: summed over a group of k
explanations, a prior would count k times.

The settings were chosen on VariErr NLI and Paraphrase (human text, items held out): n-grams to 4 and C of 3 or 30
change accuracy for single explanations by about .01; embeddings lose .01 to .03 at C = 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from capo_core.errors import CorpusError

Inputs = list[str] | np.ndarray
"""Explanations as texts, or as embeddings [n, d]."""

Featuriser = TfidfVectorizer | StandardScaler

TEXT_C = 10.0
EMBEDDING_C = 0.01
MAX_ITERATIONS = 1000
MAX_NGRAM = 5

LOG_FLOOR = float(np.log(1e-12))
"""Log-probability of an annotator the classifier never saw in training, and least one of any."""


@dataclass(frozen=True)
class Attributor:
    """A fitted classifier of explanations by annotator."""

    featuriser: Featuriser
    classifier: LogisticRegression

    def log_probabilities(self, inputs: Inputs, annotators: Sequence[str]) -> np.ndarray:
        """Return log p(annotator | explanation), natural logarithm, at least `LOG_FLOOR`.

        Args:
            inputs: n explanations of the kind the attributor was fitted on.
            annotators: the candidates, in the order of the columns wanted; one never seen gets `LOG_FLOOR`.

        Returns:
            [n, A].
        """
        scores = np.full((len(inputs), len(annotators)), LOG_FLOOR)
        if len(inputs) == 0:
            return scores
        known = self.classifier.predict_log_proba(self.featuriser.transform(inputs))
        column_of = {str(name): i for i, name in enumerate(self.classifier.classes_)}
        for column, annotator in enumerate(annotators):
            if annotator in column_of:
                scores[:, column] = np.maximum(known[:, column_of[annotator]], LOG_FLOOR)
        return scores


def fit_attributors(inputs: Inputs, labellings: Sequence[Sequence[str]]) -> list[Attributor]:
    """Return one attributor per labelling of the same training explanations; features are computed once.

    Args:
        inputs: n training explanations, texts or embeddings.
        labellings: each n annotator ids, e.g. the true ones and shuffled ones.

    Raises:
        CorpusError: if a labelling names fewer than two annotators, or no text feature occurs twice.
    """
    for labels in labellings:
        if len(set(labels)) < 2:
            raise CorpusError(
                f"attribution needs training explanations of at least two annotators, these are of "
                f"{sorted(set(labels))}"
            )
    featuriser, features = fit_featuriser(inputs)
    inverse_penalty = EMBEDDING_C if isinstance(inputs, np.ndarray) else TEXT_C
    # The optimiser's vectors are too short to share out: BLAS threads only wait for each other, and where other work
    # holds the cores they made a fit twenty times slower.
    with threadpool_limits(limits=1, user_api="blas"):
        return [
            Attributor(featuriser, _classifier(inverse_penalty).fit(features, np.asarray(labels)))
            for labels in labellings
        ]


def fit_attributor(inputs: Inputs, annotator_ids: Sequence[str]) -> Attributor:
    """Return an attributor fitted on explanations and their annotators; see `fit_attributors`."""
    return fit_attributors(inputs, [annotator_ids])[0]


def fit_featuriser(inputs: Inputs) -> tuple[Featuriser, Any]:
    """Return what turns explanations into an attributor's features, fitted on `inputs`, and the features of `inputs`.

    Args:
        inputs: n explanations, texts or embeddings.

    Returns:
        The featuriser; [n, d] TF-IDF of character n-grams, a scipy.sparse matrix, or standardised embeddings, an array.

    Raises:
        CorpusError: if no text feature occurs twice.
    """
    featuriser = StandardScaler() if isinstance(inputs, np.ndarray) else _text_featuriser()
    try:
        return featuriser, featuriser.fit_transform(inputs)
    except ValueError as error:
        raise CorpusError(f"no features can be computed from {len(inputs)} explanations: {error}") from error


def _text_featuriser() -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char", ngram_range=(1, MAX_NGRAM), lowercase=False, sublinear_tf=True, min_df=2, dtype=np.float64
    )


def _classifier(inverse_penalty: float) -> LogisticRegression:
    return LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS, class_weight="balanced")
