"""What is left of an explanation when content it shares with the input, or with its item, is taken away.

Reductions:
    none: the explanation as written, surrounding white space included.
    shared_words_masked: every word that also stands in either text of the item is masked.
    content_words_masked: every word that is not a function word is masked; each mask stands for one word.
    embedding_minus_item_mean: the sentence embedding minus the mean over the item's explanations by people.
    embedding_input_residual: the sentence embedding minus what a ridge regression expects of the item's two texts.

Normalisation `surface` comes last, before embedding: case, punctuation, white-space habits and the inflection of the
task's label names go, words and masks stay.

Textual reductions are read by either classifier (embeddings: those of what is left of the text); embedding reductions
by embeddings only. A `Variant` is one such combination; `fit_reducer` learns what it needs from people's rows that may
be learnt from, `Reducer.apply` turns any rows, of people or of a model, into what the classifier is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl

from capo_core.stylometry.attribution import Inputs
from capo_core.stylometry.function_words import FUNCTION_WORDS
from capo_core.stylometry.input_regression import InputRegression, fit_input_regression
from capo_core.text import label_spellings, mask_words, mask_words_except, surface_normalise, words
from schemas.section import Classifier, Normalisation, Reduction

Embed = Callable[[list[str]], np.ndarray]
"""Sentence encoder: n texts to an array [n, d]."""

EMBEDDING_REDUCTIONS: tuple[Reduction, ...] = ("embedding_minus_item_mean", "embedding_input_residual")
LEARNT_REDUCTIONS: tuple[Reduction, ...] = ("embedding_input_residual",)
"""Those that depend on the rows a reducer was fitted on."""


@dataclass(frozen=True)
class Variant:
    """One way of looking at explanations: what is taken away, whether the surface goes, and which classifier reads."""

    reduction: Reduction
    normalisation: Normalisation
    classifier: Classifier


def list_variants(
    reductions: Sequence[Reduction], normalisations: Sequence[Normalisation], classifiers: Sequence[Classifier]
) -> list[Variant]:
    """Return every combination that exists, in the order given; n-grams cannot read embedding reductions."""
    combinations = [Variant(*combination) for combination in product(reductions, normalisations, classifiers)]
    return [v for v in combinations if v.classifier == "embeddings" or v.reduction not in EMBEDDING_REDUCTIONS]


@dataclass(frozen=True)
class Reducer:
    """A variant with all it has learnt from the rows it was fitted on.

    Attributes:
        variant: what it does.
        embed: sentence encoder; None for n-grams.
        spellings: inflected label names and the name each stands for; used by normalisation `surface`.
        regression: of explanations' embeddings on those of the input; `embedding_input_residual` only.
    """

    variant: Variant
    embed: Embed | None
    spellings: dict[str, str]
    regression: InputRegression | None = None

    def apply(self, rows: pl.DataFrame, references: pl.DataFrame | None = None) -> Inputs:
        """Return what an attributor is given for `rows`: texts for n-grams, else embeddings [n, d], in row order.

        Args:
            rows: columns item_id, text_a, text_b, explanation (no nulls); by people or by a model.
            references: people's explanations, same columns, of every item of `rows`, whose mean
                `embedding_minus_item_mean` subtracts; default `rows` themselves, right for people's text when all
                explanations of each item are there, wrong for generated text.

        Raises:
            KeyError: if an item has no reference.
        """
        texts = reduce_texts(rows, self.variant.reduction, self.variant.normalisation, self.spellings)
        if self.embed is None:
            return texts
        embeddings = _embed(self.embed, texts)
        if self.variant.reduction == "embedding_minus_item_mean":
            people = rows if references is None else references
            reference_texts = reduce_texts(people, "none", self.variant.normalisation, self.spellings)
            return subtract_item_means(
                embeddings, rows["item_id"].to_list(), _embed(self.embed, reference_texts), people["item_id"].to_list()
            )
        if self.regression is not None:
            return embeddings - self.regression.predict(_embed_inputs(rows, self.embed))
        return embeddings


def fit_reducer(variant: Variant, people: pl.DataFrame, embed: Embed | None) -> Reducer | None:
    """Return the variant's reducer, or None where it needs an encoder and there is none.

    Args:
        variant: what to do.
        people: columns item_id, text_a, text_b, explanation: people's rows that may be learnt from. Only
            `embedding_input_residual` learns from them. A column label, where there is one, names the labels whose
            inflections `surface` unifies.
        embed: sentence encoder; wrap it in `remember` so that all variants embed a text once.
    """
    names = people["label"].unique().to_list() if "label" in people.columns else []
    spellings = label_spellings([name for name in names if name is not None])
    if variant.classifier == "ngrams":
        return Reducer(variant, None, spellings)
    if embed is None:
        return None
    if variant.reduction != "embedding_input_residual":
        return Reducer(variant, embed, spellings)
    people = people.drop_nulls("explanation")
    texts = reduce_texts(people, "none", variant.normalisation, spellings)
    regression = fit_input_regression(_embed_inputs(people, embed), _embed(embed, texts), people["item_id"].to_list())
    return Reducer(variant, embed, spellings, regression)


def remember(embed: Embed) -> Embed:
    """Return an encoder that embeds every distinct text once, however often it is asked, and in one batch per call."""
    known: dict[str, np.ndarray] = {}

    def embed_once(texts: list[str]) -> np.ndarray:
        if new := sorted(set(texts) - known.keys()):
            known.update(zip(new, np.asarray(embed(new), dtype=float), strict=True))
        return np.stack([known[text] for text in texts]) if texts else np.empty((0, 0))

    return embed_once


def shared_words(text_a: str, text_b: str) -> frozenset[str]:
    """Return the words of both texts, case-folded, each with either apostrophe, as masks for an explanation."""
    found = set(words(text_a)) | set(words(text_b))
    return frozenset(found | {w.replace("’", "'") for w in found} | {w.replace("'", "’") for w in found})


def reduce_texts(
    annotations: pl.DataFrame,
    reduction: Reduction,
    normalisation: Normalisation,
    spellings: dict[str, str] | None = None,
) -> list[str]:
    """Return the explanations after the textual part of a reduction and the normalisation, in row order.

    Args:
        annotations: columns explanation, text_a, text_b.
        reduction: embedding reductions have no textual part.
        normalisation: none or surface.
        spellings: of label names (`capo_core.text.label_spellings`), for `surface`.
    """
    texts = annotations["explanation"].to_list()
    if reduction == "shared_words_masked":
        items = zip(annotations["text_a"], annotations["text_b"], strict=True)
        texts = [mask_words(text, shared_words(a, b)) for text, (a, b) in zip(texts, items, strict=True)]
    elif reduction == "content_words_masked":
        texts = [mask_words_except(text, FUNCTION_WORDS) for text in texts]
    return [surface_normalise(text, spellings) for text in texts] if normalisation == "surface" else texts


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


def _embed(embed: Embed, texts: list[str]) -> np.ndarray:
    return np.asarray(embed(texts), dtype=float)


def _embed_inputs(rows: pl.DataFrame, embed: Embed) -> np.ndarray:
    """Return the embeddings of both texts of each row's item side by side, [n, 2d]."""
    return np.hstack([_embed(embed, rows[column].to_list()) for column in ("text_a", "text_b")])
