"""What was left out of which figures and why: rules stated in words, with the value that met them.

1. Where fewer than `min_readable` of a method's responses for an annotator could be read (all seeds together), figures
   of the text (imitation, similarity, style distance) are not measured for that annotator: the few that could be read
   are not a sample of what the method writes. Decisions are, where an unreadable label does not agree.
2. A group of k explanations needs k readable ones; a series with fewer has no figure at that size.
3. Items the annotator did not annotate have no target, and items a method did not answer no response.

A mean over annotators is over those measured; with n it says how many items entered, and this table who is missing.
A comparison is made on what both methods have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from capo_core.evaluation.targets import HeldOut, Responses
from schemas.config import EvaluationConfig
from schemas.frames import EXCLUSIONS, check_columns

UNREADABLE = "figures of the text not measured: fewer than this share of the responses could be read"
TOO_FEW = "attribution of groups not measured: fewer readable explanations than a group needs"
NO_TARGET = "items not held against the annotator, who did not annotate them"
NO_RESPONSE = "items without a response to be held against the annotator"


def find_exclusions(all_responses: Sequence[Responses], held_out: HeldOut, config: EvaluationConfig) -> pl.DataFrame:
    """Return EXCLUSIONS: one row for every rule met, by method, decision and annotator.

    value and threshold: rule 1, share of responses read and `min_readable`; rule 2, readable explanations of the seed
    that has the fewest and k; rule 3, number of items (over seeds: the most) and 0.
    """
    rows: list[tuple] = []
    given = np.array([len(labels) > 0 for labels in held_out.labels.flat]).reshape(held_out.labels.shape)
    for annotator, n_missing in zip(held_out.annotators, (~given).sum(axis=1), strict=True):
        if n_missing:
            rows.append(("human", None, annotator, NO_TARGET, float(n_missing), 0.0))
    written = np.array([len(texts) > 0 for texts in held_out.explanations.flat]).reshape(given.shape)
    rows += _too_small(("human", None), written[None], held_out.annotators, config)
    for responses in all_responses:
        rows += _find_in_responses(responses, held_out, config)
    frame = pl.DataFrame(rows, schema=EXCLUSIONS, orient="row")
    return check_columns(frame.sort(*EXCLUSIONS), EXCLUSIONS, "exclusions")


def exclude_unreadable(all_responses: Sequence[Responses], config: EvaluationConfig) -> list[Responses]:
    """Return the responses without the explanations for annotators of whom too few could be read (rule 1)."""
    kept = []
    for responses in all_responses:
        excluded = _readable_shares(responses) < config.min_readable  # NaN, no response at all, is not
        explanations = responses.explanations.copy()
        explanations[:, excluded] = None
        kept.append(replace(responses, explanations=explanations))
    return kept


def _find_in_responses(responses: Responses, held_out: HeldOut, config: EvaluationConfig) -> list[tuple]:
    """Return the rows of one method and decision."""
    cell = (responses.method, responses.decision)
    shares = _readable_shares(responses)
    rows: list[tuple] = []
    for index, annotator in enumerate(held_out.annotators):
        if n_missing := int((~responses.present[:, index]).sum(axis=1).max()):
            rows.append((*cell, annotator, NO_RESPONSE, float(n_missing), 0.0))
        if shares[index] < config.min_readable:
            rows.append((*cell, annotator, UNREADABLE, float(shares[index]), config.min_readable))
    excluded = shares < config.min_readable
    too_small = _too_small(cell, _has_text(responses), held_out.annotators, config)
    return rows + [row for row in too_small if not excluded[held_out.annotators.index(row[2])]]


def _too_small(
    cell: tuple[str, str | None], written: np.ndarray, annotators: Sequence[str], config: EvaluationConfig
) -> list[tuple]:
    """Return the rows of rule 2, given which explanations there are, [S, A, I]."""
    fewest = written.sum(axis=2).min(axis=0)
    return [
        (*cell, annotator, TOO_FEW, float(n_written), float(size))
        for annotator, n_written in zip(annotators, fewest, strict=True)
        for size in config.group_sizes
        if n_written < size
    ]


def _has_text(responses: Responses) -> np.ndarray:
    """Return which responses have an explanation, [S, A, I]."""
    texts = responses.explanations
    return np.array([text is not None for text in texts.flat]).reshape(texts.shape)


def _readable_shares(responses: Responses) -> np.ndarray:
    """Return the share of the responses that could be read, label and explanation, [A]; NaN without a response."""
    n_present = responses.present.sum(axis=(0, 2))
    n_parsed = (responses.parsed & responses.present).sum(axis=(0, 2))
    return np.where(n_present > 0, n_parsed / np.maximum(n_present, 1), np.nan)
