"""Words and phrases that carry an annotator's style: weighted log-odds against the other annotators.

Notation: n rows, A annotators, V terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from capo_core.stylometry.controls import shuffle_within_items
from capo_core.stylometry.design import encode
from capo_core.text import surface_normalise
from schemas.frames import STYLE_WORDS, check_columns

PRIOR_TOKENS = 500.0
"""α₀ of the Dirichlet prior: how many tokens of the pooled text each side is given beforehand. Ours."""

N_TERMS = 25
"""Terms listed per annotator at most."""

N_SHUFFLES = 199
LEVEL = 0.05
"""Probability that anything at all is listed where nobody has words of his own."""

_CHUNK_CELLS = 2_000_000


def style_words(annotations: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Return the words and two-word phrases each annotator uses more than the others do.

    Monroe, Colaresi and Quinn 2008, *Fightin' Words*, Political Analysis 16, equations 16 and 20 to 22: with y the
    counts of a term, n those of all terms of its length, α_w the prior (term w's share of all text times α₀), of the
    annotator (i) against all others (j)::

        δ_w = log[(y_i + α_w) / (n_i + α₀ - y_i - α_w)] - log[(y_j + α_w) / (n_j + α₀ - y_j - α_w)]
        σ²_w ≈ 1 / (y_i + α_w) + 1 / (y_j + α_w),     z_w = δ_w / σ_w

    Texts are surface-normalised. Thousands of terms are compared, and explanations repeat themselves, so z is no
    normal deviate: a term is listed only if the greatest z of any term and annotator reaches its z in fewer than 5% of
    shuffles of the annotators within items, (1 + as great) / (1 + shuffles) ≤ .05 (the maximum statistic of Westfall
    and Young 1993).

    Args:
        annotations: columns item_id, annotator_id, explanation.
        seed: of the shuffles.

    Returns:
        Columns of `schemas.frames.STYLE_WORDS`: per annotator (sorted) at most 25 terms by descending z, none where
        none exceeds chance.
    """
    annotations = annotations.sort("item_id", "annotator_id", "explanation")  # shuffles must not depend on their order
    texts = [surface_normalise(text) for text in annotations["explanation"]]
    annotators, owners = np.unique(annotations["annotator_id"].to_numpy().astype(str), return_inverse=True)
    items = encode(annotations["item_id"].to_numpy().astype(str))
    both_lengths = [_find_uses(texts, length) for length in (1, 2)]
    threshold = _greatest_by_chance(both_lengths, owners, items, len(annotators), seed)
    rows = []
    for uses in both_lengths:
        counts = _count_uses(uses, owners[None], len(annotators))[0]
        z, totals = log_odds_z(counts), counts.sum(axis=0)
        for number, column in zip(*np.nonzero(z > threshold), strict=True):
            n_own = int(counts[number, column])
            n_others = int(totals[column]) - n_own
            rows.append((str(annotators[number]), uses.terms[column], float(z[number, column]), n_own, n_others))
    table = pl.DataFrame(rows, schema=STYLE_WORDS, orient="row")
    table = table.sort("annotator_id", "z", "term", descending=[False, True, False])
    return check_columns(table.group_by("annotator_id", maintain_order=True).head(N_TERMS), STYLE_WORDS, "style words")


def log_odds_z(counts: np.ndarray, prior_tokens: float = PRIOR_TOKENS) -> np.ndarray:
    """Return z of every term for every annotator against the others together; see `style_words`.

    Args:
        counts: [..., A, V] uses of each term, every term used at least once.
        prior_tokens: α₀, above 0.

    Returns:
        [..., A, V]; 0 where an annotator or all others wrote nothing.
    """
    counts = np.asarray(counts, dtype=float)
    pooled, written = counts.sum(axis=-2, keepdims=True), counts.sum(axis=-1, keepdims=True)
    total = pooled.sum(axis=-1, keepdims=True)
    prior = prior_tokens * pooled / np.maximum(total, 1.0)
    own, others = counts + prior, pooled - counts + prior
    own_rest, others_rest = written + prior_tokens - own, total - written + prior_tokens - others
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (np.log(own / own_rest) - np.log(others / others_rest)) / np.sqrt(1 / own + 1 / others)
    return np.where((written == 0) | (written == total) | ~np.isfinite(z), 0.0, z)


class _Uses(NamedTuple):
    """Every use of every term of one length: in which row [uses], of which term [uses], and the terms, sorted [V]."""

    rows: np.ndarray
    columns: np.ndarray
    terms: list[str]


def _find_uses(texts: Sequence[str], length: int) -> _Uses:
    """Return the uses of the terms of `length` words, 1 or 2, in surface-normalised texts."""
    tokens = [text.split() for text in texts]
    found = [row if length == 1 else [" ".join(pair) for pair in pairwise(row)] for row in tokens]
    terms = sorted({term for row in found for term in row})
    column_of = {term: column for column, term in enumerate(terms)}
    rows = np.repeat(np.arange(len(found)), [len(row) for row in found])
    return _Uses(rows, np.array([column_of[term] for row in found for term in row], dtype=int), terms)


def _count_uses(uses: _Uses, owners: np.ndarray, n_annotators: int) -> np.ndarray:
    """Return each annotator's uses of each term, under each of S ways to own the rows: [S, n] -> [S, A, V]."""
    n_cells = len(owners) * n_annotators * len(uses.terms)
    slots = np.arange(len(owners))[:, None] * n_annotators + owners[:, uses.rows]
    counts = np.bincount((slots * len(uses.terms) + uses.columns).ravel(), minlength=n_cells)
    return counts.reshape(len(owners), n_annotators, len(uses.terms))


def _greatest_by_chance(
    both_lengths: Sequence[_Uses], owners: np.ndarray, items: np.ndarray, n_annotators: int, seed: int
) -> float:
    """Return the z that a term must exceed: the greatest z of a shuffle reaches more in fewer than `LEVEL` of them."""
    rng = np.random.default_rng(seed)
    draws = np.array([shuffle_within_items(owners, items, rng) for _ in range(N_SHUFFLES)])
    greatest = np.zeros(N_SHUFFLES)
    for uses in both_lengths:
        step = max(1, _CHUNK_CELLS // max(1, n_annotators * len(uses.terms), len(uses.rows)))
        for start in range(0, N_SHUFFLES, step):
            z = log_odds_z(_count_uses(uses, draws[start : start + step], n_annotators))
            part = greatest[start : start + step]
            np.maximum(part, z.max(axis=(1, 2), initial=0.0), out=part)
    return float(np.sort(greatest)[-int(LEVEL * (N_SHUFFLES + 1))])
