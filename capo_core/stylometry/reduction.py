"""What is left of an explanation when content it shares with the input, or with its item, is taken away.

Reductions:
    none: the explanation as written, surrounding white space included.
    shared_words_masked: every word that also stands in either text of the item is masked.
    embedding_minus_item_mean: the sentence embedding minus the mean over the item's explanations by people.

Normalisation `surface` comes last, before embedding: case, punctuation and white-space habits go, words and masks stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from capo_core.text import mask_words, surface_normalise, words
from schemas.config import Normalisation, Reduction

Embed = Callable[[list[str]], np.ndarray]
"""Sentence encoder: n texts to an array [n, d]."""


def shared_words(text_a: str, text_b: str) -> frozenset[str]:
    """Return the words of both texts, case-folded, each with either apostrophe, as masks for an explanation."""
    found = set(words(text_a)) | set(words(text_b))
    return frozenset(found | {w.replace("’", "'") for w in found} | {w.replace("'", "’") for w in found})


def reduce_texts(annotations: pl.DataFrame, reduction: Reduction, normalisation: Normalisation) -> list[str]:
    """Return the explanations after the textual part of a reduction and the normalisation, in row order.

    Args:
        annotations: columns explanation, text_a, text_b.
        reduction: `embedding_minus_item_mean` has no textual part.
        normalisation: none or surface.
    """
    texts = annotations["explanation"].to_list()
    if reduction == "shared_words_masked":
        items = zip(annotations["text_a"], annotations["text_b"], strict=True)
        texts = [mask_words(text, shared_words(a, b)) for text, (a, b) in zip(texts, items, strict=True)]
    return [surface_normalise(text) for text in texts] if normalisation == "surface" else texts


def subtract_item_means(
    embeddings: np.ndarray,
    item_ids: Sequence[str],
    reference_embeddings: np.ndarray,
    reference_item_ids: Sequence[str],
) -> np.ndarray:
    """Return each embedding minus the mean of its item's reference embeddings: e_j - 1/|R_i| Σ_{r ∈ R_i} e_r.

    The references are the item's explanations by people. For people's text they are the text itself, so that what is
    left is how one person's explanation differs from all of its item. For generated text they are still the people's,
    not the other generations': its place is then measured on the same scale as the people's.

    Args:
        embeddings: [n, d].
        item_ids: n item ids.
        reference_embeddings: [m, d].
        reference_item_ids: m item ids, covering every one of `item_ids`.

    Returns:
        [n, d].

    Raises:
        KeyError: if an item has no reference.
    """
    positions = {item: i for i, item in enumerate(sorted(set(reference_item_ids)))}
    reference_rows = np.array([positions[item] for item in reference_item_ids], dtype=int)
    sums = np.zeros((len(positions), embeddings.shape[1]))
    np.add.at(sums, reference_rows, reference_embeddings)
    means = sums / np.bincount(reference_rows, minlength=len(positions))[:, None]
    return embeddings - means[np.array([positions[item] for item in item_ids], dtype=int)]


def explanation_inputs(
    annotations: pl.DataFrame, reduction: Reduction, normalisation: Normalisation, embed: Embed | None
) -> list[str] | np.ndarray | None:
    """Return what an attributor is given for people's explanations: texts, embeddings [n, d], or None without encoder.

    Args:
        annotations: columns item_id, explanation, text_a, text_b; all explanations by people of each item, so that the
            item's mean is complete.
        reduction: what to take away.
        normalisation: none or surface.
        embed: sentence encoder; only `embedding_minus_item_mean` needs it.
    """
    texts = reduce_texts(annotations, reduction, normalisation)
    if reduction != "embedding_minus_item_mean":
        return texts
    if embed is None:
        return None
    embeddings = np.asarray(embed(texts), dtype=float)
    item_ids = annotations["item_id"].to_list()
    return subtract_item_means(embeddings, item_ids, embeddings, item_ids)
