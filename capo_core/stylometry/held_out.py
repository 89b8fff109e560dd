"""Log-probabilities of held-out explanations under every claim of who wrote what, variant by variant.

Kinds of scores; every row is scored by a model of explanations of other contexts:
    human: the model learnt the true annotators.
    shuffled: it learnt annotators permuted within items.
    label_left_out, genre_left_out: it learnt the true annotators of rows with other labels (genres) than the row's.

The chained scores of the first repeat serve the permutation test only (`capo_core.stylometry.exchangeability`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capo_core.stylometry.attribution import Inputs, fit_attributors
from capo_core.stylometry.folding import (
    Explanations,
    Folding,
    Split,
    chained_splits,
    crossed_splits,
    leave_strata_out,
)
from capo_core.stylometry.reduction import LEARNT_REDUCTIONS, Embed, Reducer, Variant, fit_reducer
from capo_core.stylometry.strata import Strata


@dataclass(frozen=True)
class Plan:
    """The splits of one variant: those of every repeat, and the chain's."""

    repeats: tuple[list[Split], ...]
    chained: list[Split]

    @property
    def n_fits(self) -> int:
        """Number of training sets."""
        return sum(len(splits) for splits in self.repeats) + len(self.chained)


@dataclass(frozen=True)
class HeldOutScores:
    """Log-probabilities of one variant by kind, each [n, A]; NaN where a row was not judged.

    Attributes:
        repeats: per repeat, its scores by kind.
        chained: of the first repeat.
    """

    repeats: tuple[dict[str, np.ndarray], ...]
    chained: dict[str, np.ndarray]


def plan_splits(explanations: Explanations, foldings: Sequence[Folding], left_out: Mapping[str, Strata]) -> Plan:
    """Return the splits of a variant.

    Args:
        explanations: n rows.
        foldings: one per repeat.
        left_out: strata to leave out, by kind of scores; empty for none.
    """
    owners = explanations.owners
    repeats = []
    for folding in foldings:
        splits = crossed_splits(folding, {"human": owners, "shuffled": folding.shuffled})
        for kind, strata in left_out.items():
            splits += leave_strata_out(crossed_splits(folding, {kind: owners}), strata.of_row)
        repeats.append(splits)
    chained = chained_splits(foldings[0], {"human": owners})
    for kind, strata in left_out.items():
        chained += leave_strata_out(chained_splits(foldings[0], {kind: owners}), strata.of_row)
    return Plan(tuple(repeats), chained)


def score_held_out(
    explanations: Explanations, variant: Variant, plan: Plan, embed: Embed | None, tell: Callable[[], None]
) -> HeldOutScores | None:
    """Return the scores of one variant, or None where it needs an encoder and there is none.

    Args:
        explanations: n rows.
        variant: what the attributors read.
        plan: of `plan_splits`.
        embed: sentence encoder.
        tell: called after every training set.
    """
    reducer = fit_reducer(variant, explanations.rows, embed)
    if reducer is None:
        return None
    kinds = sorted({kind for split in plan.repeats[0] for kind in split.labellings})

    def score(splits: Sequence[Split]) -> dict[str, np.ndarray]:
        scores = {kind: np.full((len(explanations.owners), len(explanations.annotators)), np.nan) for kind in kinds}
        for split, train, test in _split_inputs(explanations, reducer, splits):
            claims = [
                [explanations.annotators[a] for a in split_owners[split.train]]
                for split_owners in split.labellings.values()
            ]
            for kind, attributor in zip(split.labellings, fit_attributors(train, claims), strict=True):
                scores[kind][split.test] = attributor.log_probabilities(test, explanations.annotators)
            tell()
        return scores

    return HeldOutScores(tuple(score(splits) for splits in plan.repeats), score(plan.chained))


def _split_inputs(
    explanations: Explanations, reducer: Reducer, splits: Sequence[Split]
) -> Iterator[tuple[Split, Inputs, Inputs]]:
    """Yield what is learnt from and what is judged in each split; learnt reductions see the training rows only."""
    if reducer.variant.reduction in LEARNT_REDUCTIONS:
        for split in splits:
            train, test = explanations.rows[split.train], explanations.rows[split.test]
            fitted = fit_reducer(reducer.variant, train, reducer.embed)
            assert fitted is not None  # there is an encoder, or there were no reducer
            yield split, fitted.apply(train), fitted.apply(test)
    else:
        inputs = reducer.apply(explanations.rows)
        for split in splits:
            yield split, _take(inputs, split.train), _take(inputs, split.test)


def _take(inputs: Inputs, rows: np.ndarray) -> Inputs:
    return inputs[rows] if isinstance(inputs, np.ndarray) else [inputs[row] for row in rows]
