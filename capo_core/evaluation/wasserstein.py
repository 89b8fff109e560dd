"""Wasserstein-1 distances of samples whose members belong to items, for any weights of the items.

For distributions of one quantity with distribution functions F and G, W1 = ∫ |F(x) - G(x)| dx: how far probability
has to be moved, in units of the quantity. F and G are step functions. On the grid of all values that occur they are
sums over items of what each item puts at or below a value, so that any weighting of items is a matrix product.

Notation: F features, U grid cells of all features one after another, I items, R weightings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ItemSample:
    """Values of every feature for members of a sample that belong to items.

    Attributes:
        values: [n, F], NaN where undefined.
        items: [n] index of each member's item.
        weights: [n] what each member counts where its item counts 1.
    """

    values: np.ndarray
    items: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class StepFunctions:
    """Distribution functions of several samples on a common grid, apart by item.

    Attributes:
        masses: for each sample [I, U], weight of an item's members at or below the cell's lower end.
        totals: for each sample [I, F], weight of an item's members with a value.
        widths: [U] width of each cell, in scaled units.
        feature_of: [U] feature of each cell, ascending.
    """

    masses: tuple[np.ndarray, ...]
    totals: tuple[np.ndarray, ...]
    widths: np.ndarray
    feature_of: np.ndarray


def build_step_functions(samples: Sequence[ItemSample], scales: np.ndarray, n_items: int) -> StepFunctions:
    """Return the distribution functions of `samples` on the grid of all their values.

    Args:
        samples: with the same F features.
        scales: [F] positive, unit in which each feature's distances are given.
        n_items: I.
    """
    masses: list[list[np.ndarray]] = [[] for _ in samples]
    totals = [np.zeros((n_items, len(scales))) for _ in samples]
    widths, feature_of = [], []
    for feature, scale in enumerate(scales):
        columns = [sample.values[:, feature] for sample in samples]
        grid = np.unique(np.concatenate(columns))
        grid = grid[~np.isnan(grid)]
        widths.append(np.diff(grid) / scale)
        feature_of.append(np.full(max(len(grid) - 1, 0), feature))
        for number, (sample, column) in enumerate(zip(samples, columns, strict=True)):
            defined = ~np.isnan(column)
            steps = np.zeros((n_items, len(grid)))
            cells = sample.items[defined], np.searchsorted(grid, column[defined])
            np.add.at(steps, cells, sample.weights[defined])
            totals[number][:, feature] = steps.sum(axis=1)
            masses[number].append(steps.cumsum(axis=1)[:, :-1])
    return StepFunctions(
        tuple(np.concatenate(parts, axis=1) for parts in masses),
        tuple(totals),
        np.concatenate(widths),
        np.concatenate(feature_of),
    )


def distances_between(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], steps: StepFunctions
) -> np.ndarray:
    """Return W1 of every feature for R weightings, [R, F], NaN where a sample has no value.

    Args:
        first: weighted sums over items of one sample's masses, [R, U], and totals, [R, F].
        second: the same of the other; R may be 1 and then meets every weighting of the first.
        steps: the grid.
    """
    heights = []
    for masses, totals in (first, second):
        with np.errstate(invalid="ignore", divide="ignore"):
            heights.append(masses * np.where(totals > 0, 1.0 / totals, 0.0)[:, steps.feature_of])
    areas = np.abs(heights[0] - heights[1]) * steps.widths
    defined = (first[1] > 0) & (second[1] > 0)
    n_features = first[1].shape[1]
    bounds = np.searchsorted(steps.feature_of, np.arange(n_features))
    padded = np.concatenate([areas, np.zeros((len(areas), 1))], axis=1)  # reduceat needs every bound inside
    sums = np.add.reduceat(padded, bounds, axis=1)
    sums[:, np.diff([*bounds, len(steps.widths)]) == 0] = 0.0  # features with one value only: no cells
    return np.where(defined, sums, np.nan)
