"""What a preference pair counts among the pairs of the same chosen response."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from capo_core.errors import CorpusError
from capo_core.stylometry.features import feature_matrix
from capo_core.validity import measure_validity
from schemas.section import PairWeighting
from schemas.training import PairConfig

CHOICE = ("item_id", "annotator_id", "chosen_label", "response")
"""The columns that say which chosen response a pair belongs to."""

MAX_DEVIATION = 3.0
"""Standard deviations at which a style feature is capped: rates of rare marks would else decide every distance."""

_ROUNDING = 1e-9
"""Values of a feature that lie no farther apart than this are the same: a deviation of rounding errors is no scale."""


def weigh_pairs(pairs: pl.DataFrame, config: PairConfig, responses: pl.DataFrame) -> pl.Series:
    """Return `weight` of each pair, ≥ 0 and of mean 1 over the pairs of one chosen response, in the order of `pairs`.

    In proportion to

    - `uniform`: 1;
    - `style_distance`: the Euclidean distance between the styles of the two explanations, see `measure_distances`;
    - `validity`: the share of second-round judgements that say the rejected explanation makes sense; one that nobody
      judged is not known to be invalid and has share 1, as `min_validity` keeps it too;
    - `relation`: `same_label_weight` where the labels agree, 1 minus it where they differ.

    Where that is 0 for all pairs of a chosen response, all of them weigh 1: their response is still to be preferred.

    Args:
        pairs: columns item_id, annotator_id, chosen_label and response (which together are the chosen response),
            explanation, rejected_explanation, text_a, text_b, relation, rejected_metadata.
        config: `weighting` and `same_label_weight`.
        responses: every annotator's rows, columns item_id, annotator_id, label, explanation, text_a, text_b, split,
            metadata; only its training split sets the scale of styles.

    Raises:
        ConfigError: if validity is asked for and nothing in `responses` was judged.
        CorpusError: if style is asked for and no feature of it varies over the training split.
    """
    raw = _WEIGHTINGS[config.weighting](pairs, config, responses).alias("raw")
    # Sorted before adding, so that the sum does not depend on the order of the pairs.
    mean = pl.col("raw").sort().mean().over(CHOICE)
    weighed = pairs.select(CHOICE).with_columns(raw)
    return weighed.select(pl.when(mean > 0).then(pl.col("raw") / mean).otherwise(1.0).alias("weight")).to_series()


def measure_distances(pairs: pl.DataFrame, responses: pl.DataFrame) -> pl.Series:
    """Return the distance in style of the two explanations of each pair, √(mean over features of (z_c − z_r)²).

    z are the features of `stylometry.features`, standardised over all annotators' explanations of the training split
    and capped at ±3. A feature that is the same throughout the training split is left out, and so is, from a pair's
    mean, one undefined for either explanation: where all are defined this is the Euclidean distance over the root of
    their number. White space around an explanation is no part of a response and of no account here.

    Args:
        pairs: columns explanation, rejected_explanation, text_a, text_b.
        responses: as for `weigh_pairs`.

    Raises:
        CorpusError: if there are pairs, and no feature varies over the training split.
    """
    if pairs.is_empty():
        return pl.Series("distance", [], dtype=pl.Float64)
    training = responses.filter(pl.col("split") == "train")
    texts = [
        frame.select(pl.col(name).str.strip_chars().alias("explanation"), "text_a", "text_b")
        for frame, name in ((training, "explanation"), (pairs, "explanation"), (pairs, "rejected_explanation"))
    ]
    # Sorted, so that the means and deviations do not depend on the order of the corpus.
    features = feature_matrix(pl.concat([texts[0].sort(pl.all()), *texts[1:]]))
    standardised = _standardise(features[training.height :], features[: training.height])
    squares = (standardised[: pairs.height] - standardised[pairs.height :]) ** 2
    is_defined = ~np.isnan(squares)
    sums = np.where(is_defined, squares, 0.0).sum(axis=1)
    return pl.Series("distance", np.sqrt(sums / np.maximum(is_defined.sum(axis=1), 1)), dtype=pl.Float64)


def _standardise(features: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return `features` [n, F] in standard deviations of `training` [m, F] from its mean, capped; constants left out.

    NaN is undefined and passed over.
    """
    spread = np.fmax.reduce(training, initial=-np.inf) - np.fmin.reduce(training, initial=np.inf)
    varies = spread > _ROUNDING
    if not varies.any():
        raise CorpusError(
            f"pairs.weighting is style_distance, but no style feature varies over the {len(training)} explanations of "
            "the training split; choose another weighting"
        )
    known = training[:, varies]
    deviations = (features[:, varies] - np.nanmean(known, axis=0)) / np.nanstd(known, axis=0)
    return np.clip(deviations, -MAX_DEVIATION, MAX_DEVIATION)


def _weigh_uniformly(pairs: pl.DataFrame, config: PairConfig, responses: pl.DataFrame) -> pl.Series:
    return pl.repeat(1.0, pairs.height, dtype=pl.Float64, eager=True)


def _weigh_by_style(pairs: pl.DataFrame, config: PairConfig, responses: pl.DataFrame) -> pl.Series:
    return measure_distances(pairs, responses)


def _weigh_by_validity(pairs: pl.DataFrame, config: PairConfig, responses: pl.DataFrame) -> pl.Series:
    validity = measure_validity(responses["metadata"], "pairs.weighting is validity", "uniform")
    rejected = pairs.select(pl.col("rejected_metadata").alias("metadata"))
    return rejected.join(validity, on="metadata", how="left", maintain_order="left")["validity"].fill_null(1.0)


def _weigh_by_relation(pairs: pl.DataFrame, config: PairConfig, responses: pl.DataFrame) -> pl.Series:
    is_same = pairs["relation"] == "same_label"
    weight = pl.when(is_same).then(config.same_label_weight).otherwise(1 - config.same_label_weight)
    return pairs.select(weight.cast(pl.Float64)).to_series()


_WEIGHTINGS: dict[PairWeighting, Callable[[pl.DataFrame, PairConfig, pl.DataFrame], pl.Series]] = {
    "uniform": _weigh_uniformly,
    "style_distance": _weigh_by_style,
    "validity": _weigh_by_validity,
    "relation": _weigh_by_relation,
}
"""The raw weight of each pair, before it is divided by the mean of its chosen response."""
