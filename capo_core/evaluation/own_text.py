"""The control of every figure that holds two texts of one person against each other: two samples of his own.

Drawn from his explanations of other items (training, and validation where test is evaluated), or from those and the
held-out ones together; as many as the person explained held-out items, as far as there are so many. So the control has
the size and the form of generated text and is by the person himself.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from capo_core.evaluation.targets import HeldOut, explained_rows


def seen_explanations(held_out: HeldOut) -> pl.DataFrame:
    """Return the rows of `held_out.seen` that have an explanation, white space around it removed."""
    return explained_rows(held_out.seen)


def draw_seen_text(held_out: HeldOut, n_draws: int, seed: int) -> np.ndarray:
    """Return for each held-out explanation another one by the same person, of an item that is not held out.

    Args:
        held_out: the people's text.
        n_draws: repetitions D, each without replacement.
        seed: of the draws.

    Returns:
        [D, A, I] row numbers of `seen_explanations`; -1 where the person did not explain the item, or no row is left.
    """
    authors = seen_explanations(held_out)["annotator_id"].to_numpy()
    drawn = np.full((n_draws, *held_out.explanations.shape), -1)
    for annotator, name in enumerate(held_out.annotators):
        own, explained = np.flatnonzero(authors == name), _explained_items(held_out, annotator)
        rng = np.random.default_rng([seed, annotator])
        for draw in range(n_draws):
            rows = rng.permutation(own)[: len(explained)]
            drawn[draw, annotator, rng.permutation(explained)[: len(rows)]] = rows
    return drawn


def draw_halves(held_out: HeldOut, n_draws: int, seed: int) -> np.ndarray:
    """Return two samples of each person's explanations, seen and held out together, that have none in common.

    Held-out items, and the contexts they share, are then as likely to stand in one sample as in the other; were one
    sample all held-out text, its contexts would tell the two apart.

    Args:
        held_out: the people's text.
        n_draws: repetitions D, each without replacement.
        seed: of the draws.

    Returns:
        [2, D, A, I] texts; None where the person did not explain the item, or no text is left. An item is only a
        place here: the texts are not about it.
    """
    seen = seen_explanations(held_out).select("annotator_id", "explanation").rows()
    halves = np.full((2, n_draws, *held_out.explanations.shape), None, dtype=object)
    for annotator, name in enumerate(held_out.annotators):
        texts = [text for author, text in seen if author == name]
        texts += [text for written in held_out.explanations[annotator] for text in written]
        explained = _explained_items(held_out, annotator)
        n = min(len(explained), len(texts) // 2)
        rng = np.random.default_rng([seed, annotator])
        for draw in range(n_draws):
            order = rng.permutation(len(texts))
            places = rng.permutation(explained)[:n]
            for side, rows in enumerate((order[:n], order[n : 2 * n])):
                for place, row in zip(places, rows, strict=True):
                    halves[side, draw, annotator, place] = texts[row]
    return halves


def _explained_items(held_out: HeldOut, annotator: int) -> np.ndarray:
    """Return the held-out items that a person explained."""
    return np.flatnonzero([len(written) > 0 for written in held_out.explanations[annotator]])
