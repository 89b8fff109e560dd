"""Adjustment of p-values where many hypotheses are tested at once."""

from __future__ import annotations

import numpy as np


def holm_adjust(p_values: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values: rejecting those at most α keeps the family-wise error at α.

    With the m defined p-values in ascending order, p̃_(i) = max_{j ≤ i} min(1, (m - j + 1) p_(j)). Holm 1979, *A simple
    sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6. Valid under any dependence.

    Args:
        p_values: any shape, in [0, 1]; NaN is a test that was not made: it stays NaN and does not count in m.

    Returns:
        As `p_values` in shape.

    Raises:
        ValueError: if a p-value lies outside [0, 1].
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.size, np.nan)
    made = np.flatnonzero(~np.isnan(p_values.ravel()))
    tested = p_values.ravel()[made]
    if ((tested < 0) | (tested > 1)).any():
        wrong = tested[(tested < 0) | (tested > 1)]
        raise ValueError(f"p-values lie in [0, 1], got {wrong[0]:g}; give probabilities, NaN where no test was made")
    order = np.argsort(tested, kind="stable")
    steps = np.minimum(1.0, tested[order] * np.arange(len(tested), 0, -1))
    adjusted[made[order]] = np.maximum.accumulate(steps)
    return adjusted.reshape(p_values.shape)
