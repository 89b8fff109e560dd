"""Which class of content a task asks annotators about, proposed from how far they agree.

The classes are those of Potter and Levine-Donnerstein 1999 (*Rethinking validity and reliability in content analysis*),
which arXiv 2503.04910 uses for annotation tasks: manifest content lies on the surface of the text;
latent pattern content must be recognised from cues in it that people who know the task share; latent projective
content draws on each person's own standards. The more of the person a task asks for, the more of the disagreement is
signal rather than error.

A class is about what is asked, agreement about what came of it: unclear instructions look like subjectivity. So this is
a proposal, the rule is printed with its figures, and a configured class always counts. The thresholds are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import polars as pl

from capo_core.agreement import Level
from capo_core.errors import CorpusError
from schemas.frames import SUBJECTIVITY, check_columns
from schemas.section import Subjectivity

ALPHA_MANIFEST = 0.667
"""The least α that still supports tentative conclusions (Krippendorff 2004, *Content Analysis*, chapter 11)."""

ALPHA_PROJECTIVE = 0.40
"""Below this, chance-corrected agreement is conventionally called poor (Fleiss 1981, for κ)."""

ENTROPY_MANIFEST = 0.10
"""Of the largest possible; that of one dissenter among four annotators in every fourth item (four labels or more)."""

ENTROPY_PROJECTIVE = 0.50

DIVERGENCE_MANIFEST = 0.01
"""Bits above the shuffled floor; a coin with shares .50 and one with .62 are .01 apart."""

DIVERGENCE_PROJECTIVE = 0.05
"""A coin with shares .50 and one with .75 are .05 apart."""

CLASSES: tuple[Subjectivity, ...] = get_args(Subjectivity)
"""From least to most of the person in the label."""

RULE = (
    f"Three figures vote, the median vote is proposed. Krippendorff's α: manifest where its interval lies at or above "
    f"{ALPHA_MANIFEST:.3f}, latent projective where it lies below {ALPHA_PROJECTIVE:.2f}. Mean label entropy of an "
    f"item as a share of the largest possible: manifest up to {ENTROPY_MANIFEST:.2f}, latent projective from "
    f"{ENTROPY_PROJECTIVE:.2f}. Mean Jensen-Shannon divergence between two annotators' labels, less its floor under "
    f"shuffled annotators: manifest up to {DIVERGENCE_MANIFEST:.2f} bits, latent projective from "
    f"{DIVERGENCE_PROJECTIVE:.2f}. Latent pattern between; of two votes the one further from manifest."
)
"""The rule in words."""


@dataclass(frozen=True)
class _Vote:
    """What one figure says: an index into `CLASSES` and the sentence with the number in it."""

    rank: int
    figure: str


def propose_subjectivity(agreement: pl.DataFrame, level: Level, override: Subjectivity | None = None) -> pl.DataFrame:
    """Return the class of the task, what the rule proposes, and the rule with the figures put in.

    Args:
        agreement: AGREEMENT, as `capo_core.agreement.agreement_table` returns it.
        level: which α votes.
        override: the configured class; None leaves it to the rule.

    Returns:
        One row, columns of `schemas.frames.SUBJECTIVITY`. `proposed` is null where none of the figures is defined;
        `subjectivity` then is the override, or null.

    Raises:
        CorpusError: if the table has no α at this level.
    """
    votes = [
        vote
        for vote in (_vote_by_alpha(agreement, level), _vote_by_entropy(agreement), _vote_by_divergence(agreement))
        if vote is not None
    ]
    proposed = _median_class(votes)
    row = (override or proposed, proposed, _explain(votes, proposed, override))
    return check_columns(pl.DataFrame([row], schema=SUBJECTIVITY, orient="row"), SUBJECTIVITY, "subjectivity")


def _vote_by_alpha(agreement: pl.DataFrame, level: Level) -> _Vote | None:
    """Return the vote of α; its interval counts, so that a small sample is not called either extreme."""
    row = _find_overall(agreement, f"krippendorff_alpha_{level}")
    if row is None:
        raise CorpusError(
            f"the agreement table has no krippendorff_alpha_{level}; make it with agreement_table at level {level!r}"
        )
    value = row["value"]
    if value is None:
        return None
    low, high = (value if bound is None else bound for bound in (row["ci_low"], row["ci_high"]))
    rank = 0 if low >= ALPHA_MANIFEST else 2 if high < ALPHA_PROJECTIVE else 1
    return _Vote(rank, f"α ({level}) is {value:.3f} [{low:.3f}, {high:.3f}] on {row['n_items']} items")


def _vote_by_entropy(agreement: pl.DataFrame) -> _Vote | None:
    row = _find_overall(agreement, "label_entropy_normalised")
    if row is None or row["value"] is None:
        return None
    rank = _rank(row["value"], ENTROPY_MANIFEST, ENTROPY_PROJECTIVE)
    return _Vote(rank, f"normalised label entropy is {row['value']:.3f}")


def _vote_by_divergence(agreement: pl.DataFrame) -> _Vote | None:
    rows = [_find_overall(agreement, metric) for metric in ("label_jsd", "label_jsd_shuffled")]
    values = [None if row is None else row["value"] for row in rows]
    if values[0] is None or values[1] is None:
        return None
    rank = _rank(values[0] - values[1], DIVERGENCE_MANIFEST, DIVERGENCE_PROJECTIVE)
    return _Vote(rank, f"divergence is {values[0]:.3f} bits (floor {values[1]:.3f})")


def _rank(value: float, manifest: float, projective: float) -> int:
    """Return the index of the class of a figure that grows with the person's part."""
    return 0 if value <= manifest else 2 if value >= projective else 1


def _median_class(votes: Sequence[_Vote]) -> Subjectivity | None:
    """Return the class of the median vote; of an even number the upper one of the middle two."""
    return CLASSES[sorted(vote.rank for vote in votes)[len(votes) // 2]] if votes else None


def _find_overall(agreement: pl.DataFrame, metric: str) -> dict | None:
    """Return the row of a metric over all annotators, or None."""
    rows = agreement.filter((pl.col("metric") == metric) & pl.col("annotator_a").is_null())
    return rows.row(0, named=True) if rows.height else None


def _explain(votes: Sequence[_Vote], proposed: Subjectivity | None, override: Subjectivity | None) -> str:
    """Return the rule, the figures with their votes, and what became of them."""
    figures = "; ".join(f"{vote.figure}: {_in_words(CLASSES[vote.rank])}" for vote in votes)
    found = f"Here {figures}; proposed: {_in_words(proposed)}." if proposed else "Here no figure is defined."
    if override is None:
        return f"{RULE} {found}"
    kept = "which agrees" if override == proposed else "which takes the place of the proposal"
    return f"{RULE} {found} The configuration says {_in_words(override)}, {kept if proposed else 'which counts'}."


def _in_words(subjectivity: Subjectivity) -> str:
    return subjectivity.replace("_", " ")
