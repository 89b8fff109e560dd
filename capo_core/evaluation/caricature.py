"""How far a method's style is from the person's own: attribution rewards exaggeration, distance does not.

For every named feature of style (`stylometry.features`) the distribution in generated text is held against that in
the target's held-out text by the Wasserstein-1 distance, in the target's own standard deviations. Beside it stand the
same distance of the other annotators' text to the target's (condition other_annotator: what imitating nobody would
cost) and of his own explanations of other items to his held-out text (condition split_half, `own_text`: what sampling
alone gives; a distance of 0 cannot be reached with finitely many items).

White space around explanations is removed everywhere. Where the person explained an item several times, each
explanation counts 1 / their number. How well a classifier tells generated from own text is in `distinguishability`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import polars as pl
import polars.selectors as cs

from capo_core.errors import CorpusError
from capo_core.evaluation.decision import OTHER_ANNOTATOR
from capo_core.evaluation.own_text import draw_seen_text, seen_explanations
from capo_core.evaluation.scores import ScoreName
from capo_core.evaluation.style_distance_scores import HumanStyle, StyleDistanceScores
from capo_core.evaluation.targets import HeldOut, Responses
from capo_core.stylometry.features import NAMES, feature_matrix
from schemas.frames import STYLE_DISTANCES, check_columns

SPLIT_HALF = "split_half"
N_HALVES = 20
"""Draws of the person's other text that the control averages over."""

LEAST_SCALE = 0.5
"""Least unit of a feature's distance, as a share of the feature's standard deviation over everybody's text."""


def score_style_distance(
    all_responses: Sequence[Responses], held_out: HeldOut, items: pl.DataFrame, seed: int
) -> list[StyleDistanceScores]:
    """Return style_distance of every method, and of people's text as controls: split_half and other_annotator.

    Args:
        all_responses: every method's responses.
        held_out: the targets.
        items: columns item_id, text_a, text_b, holding every item of `held_out`.
        seed: of the draws of the person's other text.

    Raises:
        CorpusError: if an item's texts are missing or stand twice.
    """
    texts = _check_items(items, held_out)
    seen = seen_explanations(held_out)
    seen_features = feature_matrix(seen)
    human = _read_human_style(held_out, texts, seen_features, seen["annotator_id"].to_numpy())
    entering = [NAMES.index(name) for name in human.names]
    scores = [
        StyleDistanceScores(
            ScoreName(r.method, r.decision, "style_distance"),
            r.seeds,
            _measure(r.explanations, held_out, texts)[..., entering],
            human,
        )
        for r in all_responses
    ]
    controls = {
        SPLIT_HALF: _features_of_own_text(held_out, seen_features, seed)[..., entering],
        OTHER_ANNOTATOR: _features_of_others(human),
    }
    for condition, features in controls.items():
        scores.append(StyleDistanceScores(ScoreName("human", None, "style_distance", condition), (), features, human))
    return scores


def style_distances(scores: Sequence[StyleDistanceScores], annotators: Sequence[str]) -> pl.DataFrame:
    """Return the standardised distance of each feature, by method, decision and annotator, beside its two controls.

    Args:
        scores: of `score_style_distance`, all of them.
        annotators: axis A.

    Returns:
        STYLE_DISTANCES, every feature of every annotator for each method in turn; distances are means over seeds, null
        where undefined or where the feature does not vary in people's text. n_generated and n_human count the
        explanations in which the feature is defined, over all seeds.
    """
    halves, others = (
        next(one.by_feature() for one in scores if one.name.condition == condition)
        for condition in (SPLIT_HALF, OTHER_ANNOTATOR)
    )
    rows = []
    for one in (one for one in scores if one.name.condition is None):
        distances, column_of = one.by_feature(), {name: i for i, name in enumerate(one.human.names)}
        n_generated = (~np.isnan(one.features)).sum(axis=(0, 2))
        n_human = (~np.isnan(one.human.features)).sum(axis=(1, 2))
        for (annotator, person), feature in product(enumerate(annotators), NAMES):
            figures: tuple = (None, None, None, 0, 0)
            if (column := column_of.get(feature)) is not None:
                cell = annotator, column
                figures = distances[cell], others[cell], halves[cell], int(n_generated[cell]), int(n_human[cell])
            rows.append((one.name.method, one.name.decision, person, feature, *figures))
    table = pl.DataFrame(rows, schema=STYLE_DISTANCES, orient="row").with_columns(cs.float().fill_nan(None))
    return check_columns(table, STYLE_DISTANCES, "style_distances")


def _read_human_style(
    held_out: HeldOut, items: pl.DataFrame, seen_features: np.ndarray, authors: np.ndarray
) -> HumanStyle:
    """Return the features of people's held-out text, those that vary in people's text, and their units.

    Args:
        held_out: the people's text.
        items: columns item_id, text_a, text_b.
        seen_features: [n, F] of `seen_explanations`.
        authors: [n] who wrote them.
    """
    n_most = max((len(written) for written in held_out.explanations.flat), default=0)
    padded = np.full((n_most, *held_out.explanations.shape), None, dtype=object)
    for cell in np.ndindex(*held_out.explanations.shape):
        for number, text in enumerate(held_out.explanations[cell]):
            padded[number, *cell] = text
    features = np.moveaxis(_measure(padded, held_out, items), 0, 2)
    by_person = [
        np.concatenate([features[a].reshape(-1, len(NAMES)), seen_features[authors == name]])
        for a, name in enumerate(held_out.annotators)
    ]
    everybody = _standard_deviations(np.concatenate(by_person))
    entering = np.flatnonzero(everybody > 0)
    scales = np.stack([np.fmax(_standard_deviations(own), LEAST_SCALE * everybody) for own in by_person])
    return HumanStyle(features[..., entering], scales[:, entering], tuple(NAMES[i] for i in entering))


def _check_items(items: pl.DataFrame, held_out: HeldOut) -> pl.DataFrame:
    """Return the texts of the held-out items, one row each."""
    wanted = items.select("item_id", "text_a", "text_b").filter(pl.col("item_id").is_in(held_out.items)).unique()
    if missing := sorted(set(held_out.items) - set(wanted["item_id"])):
        raise CorpusError(f"the texts of {len(missing)} held-out items are not given, e.g. of {missing[0]!r}")
    if wanted.height > len(held_out.items):
        twice = wanted.filter(pl.col("item_id").is_duplicated())["item_id"].min()
        raise CorpusError(f"item {twice!r} has more than one pair of texts; give each item once")
    return wanted


def _measure(explanations: np.ndarray, held_out: HeldOut, items: pl.DataFrame) -> np.ndarray:
    """Return the features of explanations whose last axis is that of the held-out items, [..., I] -> [..., I, F]."""
    cells = [cell for cell in np.ndindex(*explanations.shape) if explanations[cell] is not None]
    frame = pl.DataFrame(
        {
            "item_id": [held_out.items[cell[-1]] for cell in cells],
            "explanation": [explanations[cell] for cell in cells],
        },
        schema={"item_id": pl.String, "explanation": pl.String},
    )
    features = np.full((*explanations.shape, len(NAMES)), np.nan)
    if cells:
        features[tuple(np.array(cells).T)] = feature_matrix(frame.join(items, on="item_id", maintain_order="left"))
    return features


def _features_of_own_text(held_out: HeldOut, seen_features: np.ndarray, seed: int) -> np.ndarray:
    """Return the features of the person's other text in the place of each held-out explanation, [S, A, I, F]."""
    drawn = draw_seen_text(held_out, N_HALVES, seed)
    undefined = np.full((1, len(NAMES)), np.nan)
    return np.concatenate([seen_features, undefined])[drawn]  # -1 is the last row


def _features_of_others(human: HumanStyle) -> np.ndarray:
    """Return everybody's first explanations as if written for each other target, [A as author, A, I, F]."""
    first = human.features[:, :, 0]
    own = np.eye(len(first), dtype=bool)
    return np.where(own[:, :, None, None], np.nan, first[:, None])


def _standard_deviations(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation (n - 1) of each column without NaN, [n, F] -> [F]; 0 below two values."""
    present = ~np.isnan(values)
    n = present.sum(axis=0)
    means = np.where(present, values, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares = np.where(present, (values - means) ** 2, 0.0).sum(axis=0)
    return np.sqrt(squares / np.maximum(n - 1, 1))
