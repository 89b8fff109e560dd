"""Holm's adjustment of p-values."""

from __future__ import annotations

import numpy as np
import pytest

from capo_core.statistics.multiplicity import holm_adjust


def test_holm_equals_the_arithmetic() -> None:
    # ascending .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04; never below the one before: .04 .06 .06 .06
    assert holm_adjust(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_adjusted_values_never_exceed_one() -> None:
    assert holm_adjust(np.array([0.5, 0.9, 0.6])) == pytest.approx([1.0, 1.0, 1.0])


def test_tests_not_made_do_not_count() -> None:
    # two tests were made: .01 · 2, .04 · 1
    adjusted = holm_adjust(np.array([np.nan, 0.04, 0.01, np.nan]))
    assert adjusted[1:3] == pytest.approx([0.04, 0.02])
    assert np.isnan(adjusted[[0, 3]]).all()


def test_shape_is_kept_and_the_family_is_the_whole_array() -> None:
    p = np.array([[0.01, 0.2], [0.03, np.nan]])
    # .01 · 3, .03 · 2, .2 · 1
    assert holm_adjust(p)[0] == pytest.approx([0.03, 0.2])
    assert holm_adjust(p)[1, 0] == pytest.approx(0.06)


def test_ties_are_adjusted_alike_and_nothing_stays_nothing() -> None:
    # .02 · 3, .02 · 2 raised to .06, .5
    assert holm_adjust(np.array([0.02, 0.5, 0.02])) == pytest.approx([0.06, 0.5, 0.06])
    assert holm_adjust(np.array([])).shape == (0,)
    assert np.isnan(holm_adjust(np.array([np.nan]))).all()


def test_family_wise_error_is_kept_where_the_first_hypothesis_is_false() -> None:
    # 2,000 families of five: one false hypothesis (p near 0), four true ones (uniform). Some true one rejected at .05:
    # 1 - (1 - .05/4)^4 = .049; SE .005.
    rng = np.random.default_rng(0)
    p = rng.random((2000, 5))
    p[:, 0] = 1e-9
    errors = np.mean([(holm_adjust(row)[1:] <= 0.05).any() for row in p])
    assert errors == pytest.approx(0.049, abs=0.02)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\].*1\.2"):
        holm_adjust(np.array([0.1, 1.2]))
