"""How well a classifier tells a method's text from the person's own: .5 says it cannot.

For one method, seed and annotator a classifier (`stylometry.attribution`: character n-grams, logistic regression) is
trained to tell what the method wrote for the person's items from what the person wrote of them. It is cross-validated
by item: an item's two texts are held out together, and nothing else about them was seen. The figure is the area under
the ROC curve, the probability that of a generated text and one by the person, both held out, the classifier takes the
right one for generated (ties count one half); pairs are formed within a fold, so that one classifier judges both.

Unlike attribution, which asks whose text it is most like, this falls with every difference: a caricature is attributed
to the right person and still told from him at once. The control (method human) puts one random half of the person's
own explanations in the place of generated text and another in that of his own (`own_text`), and must be near .5.

Conditions: raw, white space around texts removed; surface_normalised, without case and punctuation habits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from capo_core.evaluation.own_text import draw_halves
from capo_core.evaluation.scores import Draws, Resampling, ScoreName, Scores, rows_of_seeds
from capo_core.evaluation.targets import HeldOut, Responses, choose_explanations
from capo_core.seeding import derive_seed
from capo_core.statistics.significance import mean_over_seeds, paired_permutation_test
from capo_core.stylometry.attribution import MAX_ITERATIONS, MAX_NGRAM, TEXT_C
from capo_core.text import surface_normalise

CONDITIONS: dict[str, Callable[[str], str]] = {"raw": str.strip, "surface_normalised": surface_normalise}
N_FOLDS = 5
MIN_ITEMS = 10
"""Items with both texts below which nothing is measured: two for each fold."""
N_CONTROLS = 5
"""Draws of halves that the control averages over."""


@dataclass(frozen=True)
class DistinguishabilityScores:
    """Held-out comparisons of generated with own text, from which the area under the ROC curve follows.

    With n_i how often item i stands in the resample, s the classifier's score and f the fold of an item::

        AUC = Σ_ij n_i n_j [f_i = f_j] ([s(generated_i) > s(own_j)] + .5 [equal]) / Σ_ij n_i n_j [f_i = f_j]

    The fitted classifiers are taken as given in every resample.

    Attributes:
        name: which figure this is.
        seeds: axis S; () for people's text, where all slices have equal weight.
        wins: [S, A, I, I] of generated text (third axis) against own text (last axis): 1, .5 or 0.
        pairs: [S, A, I, I], 1 where the two were compared, 0 elsewhere.
    """

    name: ScoreName
    seeds: tuple[int, ...]
    wins: np.ndarray
    pairs: np.ndarray

    @property
    def n_slices(self) -> int:
        """Length of axis S."""
        return self.wins.shape[0]

    def present(self) -> np.ndarray:
        """Return which cells have generated text that was compared, [S, A, I] booleans."""
        return np.asarray((self.pairs > 0).any(axis=3))

    def measured(self) -> np.ndarray:
        """Return which cells enter the figure, [S, A, I] booleans: all that are present."""
        return self.present()

    def estimate(self, draws: Draws) -> np.ndarray:
        """Return the area per resample and annotator, mean over seeds, [B, A], NaN where not measured."""
        counts = draws.resamples.item_counts.astype(float)
        by_slice = np.full((len(counts), *self.wins.shape[:2]), np.nan)
        for slice_, annotator in np.argwhere(self.present().any(axis=2)):
            won, all_ = (_sum_pairs(part[slice_, annotator], counts) for part in (self.wins, self.pairs))
            with np.errstate(invalid="ignore", divide="ignore"):
                by_slice[:, slice_, annotator] = np.where(all_ > 0, won / all_, np.nan)
        return mean_over_seeds(by_slice, draws.resamples)

    def at_seeds(self, seeds: tuple[int, ...]) -> DistinguishabilityScores:
        """Return the scores of `seeds`, in that order; what no seed enters stands at each of them."""
        rows = rows_of_seeds(self.seeds, seeds)
        return replace(self, seeds=seeds, wins=self.wins[rows], pairs=self.pairs[rows])

    def only(self, cells: np.ndarray) -> DistinguishabilityScores:
        """Return the scores without the generated text outside `cells`, [S, A, I]; the person's text stays."""
        parts = (np.where(cells[..., None], values, 0.0) for values in (self.wins, self.pairs))
        return DistinguishabilityScores(self.name, self.seeds, *parts)

    def swap_p_value(self, other: Scores, resampling: Resampling) -> float:
        """Return the p-value under swapping the methods item by item, which turns the sign of what an item contributes.

        An item contributes its generated text's wins, as a share of the series' pairs, mean over seeds and annotators.
        The held-out scores change places; the classifiers stay.

        Raises:
            TypeError: if `other` is another kind of score.
        """
        if not isinstance(other, DistinguishabilityScores):
            raise TypeError(f"cannot compare DistinguishabilityScores with {type(other).__name__}")
        measured = self.measured()
        if not measured.any():
            return float("nan")
        n_pairs = self.pairs.sum(axis=(2, 3))[:, :, None]
        shares = (self.wins - other.wins).sum(axis=3) / np.maximum(n_pairs, 1.0)
        n_slices = measured.any(axis=2).sum(axis=0)
        annotators = n_slices > 0
        contributions = (shares.sum(axis=0)[annotators] / n_slices[annotators, None]).mean(axis=0)
        return paired_permutation_test(contributions[measured.any(axis=(0, 1))], seed=resampling.config.seed)


def score_distinguishability(
    all_responses: Sequence[Responses], held_out: HeldOut, seed: int
) -> list[DistinguishabilityScores]:
    """Return distinguishability of every method, and of halves of people's own text, raw and surface_normalised.

    Where the person wrote several explanations of an item, one drawn at random stands for it. A series with fewer than
    `MIN_ITEMS` items that have both texts is not measured.

    Args:
        all_responses: every method's responses.
        held_out: the targets.
        seed: of foldings and draws; all methods meet the same foldings.
    """
    own = choose_explanations(held_out, np.random.default_rng(derive_seed(seed, "explanations")))
    halves = draw_halves(held_out, N_CONTROLS, seed)
    texts: list[tuple[str, str | None, tuple[int, ...], np.ndarray, np.ndarray]] = [
        (r.method, r.decision, r.seeds, r.explanations, np.broadcast_to(own, r.explanations.shape))
        for r in all_responses
    ]
    texts.append(("human", None, (), halves[0], halves[1]))
    folds = np.stack([_draw_folds(held_out, seed, annotator) for annotator in held_out.annotators])
    scores = []
    for condition, normalise in CONDITIONS.items():
        for method, decision, seeds, explanations, against in texts:
            name = ScoreName(method, decision, "distinguishability", condition, classifier="ngrams")
            wins = np.zeros((*explanations.shape, explanations.shape[-1]))
            pairs = np.zeros_like(wins)
            with threadpool_limits(limits=1, user_api="blas"):  # vectors too short to share out, see attribution
                for series in np.ndindex(*explanations.shape[:2]):
                    compared = explanations[series], against[series], folds[series[1]]
                    wins[series], pairs[series] = _compare(*compared, normalise)
            scores.append(DistinguishabilityScores(name, seeds, wins, pairs))
    return scores


def held_out_scores(generated: Sequence[str], own: Sequence[str], folds: np.ndarray) -> np.ndarray:
    """Return log p(generated) - log p(own) of every text by a classifier that saw no text of its fold, [2, n].

    The classifier is that of `stylometry.attribution` for texts; n-grams are counted once for all folds, vocabulary
    and document frequencies are then those of each fold's training texts. 0 where these have no n-gram in common.

    Args:
        generated: n texts.
        own: n texts.
        folds: [n] fold of each pair of texts.
    """
    scores = np.zeros((2, len(folds)))
    side_of, fold_of = np.repeat([0, 1], len(folds)), np.tile(folds, 2)
    counter = CountVectorizer(analyzer="char", ngram_range=(1, MAX_NGRAM), lowercase=False)
    try:
        counts = sparse.csr_array(counter.fit_transform([*generated, *own]))
    except ValueError:  # no text has a character: nothing tells the two apart
        return scores
    for fold in np.unique(folds):
        train = fold_of != fold
        common = np.bincount(counts[train].indices, minlength=len(counter.vocabulary_)) >= 2
        if not common.any():
            continue
        features = TfidfTransformer(sublinear_tf=True).fit(counts[train][:, common]).transform(counts[:, common])
        classifier = LogisticRegression(C=TEXT_C, max_iter=MAX_ITERATIONS).fit(features[train], side_of[train] == 0)
        scores[:, folds == fold] = classifier.decision_function(features[~train]).reshape(2, -1)
    return scores


def _compare(
    generated: np.ndarray, own: np.ndarray, folds: np.ndarray, normalise: Callable[[str], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return wins and pairs, both [I, I], of one series' texts, each [I], None where missing."""
    wins, pairs = np.zeros((len(folds), len(folds))), np.zeros((len(folds), len(folds)))
    both = [i for i, (a, b) in enumerate(zip(generated, own, strict=True)) if a is not None and b is not None]
    if len(both) < MIN_ITEMS or len(np.unique(folds[both])) < 2:
        return wins, pairs
    texts = [[normalise(side[item]) for item in both] for side in (generated, own)]
    scores = held_out_scores(texts[0], texts[1], folds[both])
    compared = np.ix_(both, both)
    pairs[compared] = folds[both][:, None] == folds[both]
    wins[compared] = pairs[compared] * np.heaviside(scores[0][:, None] - scores[1], 0.5)
    return wins, pairs


def _sum_pairs(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Σ_ij n_i n_j values_ij for each row of counts, [I, I] and [B, I] -> [B]."""
    return ((counts @ values) * counts).sum(axis=1)


def _draw_folds(held_out: HeldOut, seed: int, annotator: str) -> np.ndarray:
    """Return the fold of each item, [I], as equal in size as can be."""
    rng = np.random.default_rng(derive_seed(seed, "folds", annotator))
    return rng.permutation(len(held_out.items)) % N_FOLDS
