"""Which items an annotator's next batch should hold: where models doubt, disagree, or have seen nothing alike.

Notation: p_a(l) the probability that annotator a's model gives an item's label l, L labels, A models.

    uncertainty   H(p_a) / log2 L                       of the annotator's own model (Lewis and Gale 1994)
    disagreement  H(Σ_a p_a / A) - Σ_a H(p_a) / A       between all models, generalised Jensen-Shannon, bits
    novelty       1 - max cos(x, y)                     to the nearest text the annotator knows or is to get

An item's score is the mean of its percentile ranks in what was measured. Items are drawn greedily and novelty measured
anew after each (farthest first: Sener and Savarese 2018), so that no two of them are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.stats import rankdata

from capo_core.label_distributions import label_entropies
from capo_core.stylometry.reduction import Embed
from capo_core.text import identity_form
from schemas.frames import check_columns
from schemas.frames.corpus import SUGGESTIONS


def suggest_items(
    pool: pl.DataFrame,
    annotator_id: str,
    answers: pl.DataFrame,
    known: pl.DataFrame,
    embed: Embed,
    n: int,
) -> pl.DataFrame:
    """Return the items of a pool that would teach most about an annotator, the best first.

    Args:
        pool: columns item_id, text_a, text_b; what the annotator could be asked.
        annotator_id: whom.
        answers: GENERATIONS, constrained, of the annotators' models for the pool's items; empty where nobody has a
            model. Uncertainty needs the annotator's own, disagreement those of two people.
        known: columns text_a, text_b of the items the annotator has annotated; may be empty.
        embed: sentence encoder, n texts to [n, d], rows of length 1.
        n: how many at most.

    Returns:
        SUGGESTIONS, rank from 1; uncertainty and disagreement null where not measured.
    """
    pool = pool.unique("item_id", maintain_order=True)
    uncertainty, disagreement = _measure_doubt(pool["item_id"].to_list(), annotator_id, answers)
    vectors = embed([_as_text(*texts) for texts in pool.select("text_a", "text_b").iter_rows()])
    seen = embed([_as_text(*texts) for texts in known.select("text_a", "text_b").unique().iter_rows()])
    # Beside nothing everything is as new as can be: orthogonal.
    novelty = 1.0 - (vectors @ seen.T).max(axis=1) if len(seen) else np.ones(pool.height)
    rows: list[dict[str, object]] = []
    left = np.ones(pool.height, dtype=bool)
    while left.any() and len(rows) < n:
        score = _score([figure for figure in (uncertainty, disagreement, novelty) if figure is not None], left)
        chosen = int(np.argmax(score))
        item = pool.row(chosen, named=True)
        rows.append(
            {
                "rank": len(rows) + 1,
                **{name: item[name] for name in ("item_id", "text_a", "text_b")},
                "score": score[chosen],
                "uncertainty": None if uncertainty is None else uncertainty[chosen],
                "disagreement": None if disagreement is None else disagreement[chosen],
                "novelty": novelty[chosen],
            }
        )
        left[chosen] = False
        novelty = np.minimum(novelty, 1.0 - vectors @ vectors[chosen])
    return check_columns(pl.DataFrame(rows, schema=SUGGESTIONS), SUGGESTIONS, "suggestions")


def _measure_doubt(
    item_ids: Sequence[str], annotator_id: str, answers: pl.DataFrame
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the uncertainty of the annotator's model and the disagreement of all, [I] each, None where unmeasured."""
    measured = answers.drop_nulls("label_logprobs").filter(pl.col("annotator_id").is_not_null())
    people = measured["annotator_id"].unique().sort().to_list()
    if not people:
        return None, None
    place = {item_id: number for number, item_id in enumerate(item_ids)}
    n_labels = len(measured["label_logprobs"][0])
    shares = np.zeros((len(people), len(item_ids), n_labels))
    for person, item_id, logprobs in measured.select("annotator_id", "item_id", "label_logprobs").iter_rows():
        if item_id in place:
            shares[people.index(person), place[item_id]] = np.exp(logprobs)
    entropies = label_entropies(shares)
    uncertainty = entropies[people.index(annotator_id)] / np.log2(n_labels) if annotator_id in people else None
    disagreement = label_entropies(shares.mean(axis=0)) - entropies.mean(axis=0) if len(people) > 1 else None
    return uncertainty, disagreement


def _score(figures: Sequence[np.ndarray], left: np.ndarray) -> np.ndarray:
    """Return the mean percentile rank of the items left, [I]; -1 for the others. Unmeasured counts as least."""
    score = np.full(len(left), -1.0)
    ranks = [rankdata(np.nan_to_num(figure[left], nan=-np.inf), method="average") for figure in figures]
    score[left] = np.mean(ranks, axis=0) / left.sum()
    return score


def _as_text(text_a: str, text_b: str) -> str:
    return f"{identity_form(text_a)}\n{identity_form(text_b)}"
