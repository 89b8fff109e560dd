"""Curves through growing samples, and the advice read from them: by hand."""

from __future__ import annotations

import numpy as np
import pytest

from capo_core.convergence_curves import (
    WidthCurve,
    advise,
    correct_spread,
    describe_curves,
    fit_mean,
    fit_width,
    needed_size,
    summarise,
)

SIZES = np.array([10, 20, 40, 80, 160])


def test_mean_curve_is_recovered() -> None:
    curve = fit_mean(SIZES, 0.7 - 1.5 * SIZES**-0.8, 0.0, 1.0)
    assert curve is not None
    assert (curve.asymptote, curve.scale, curve.exponent) == pytest.approx((0.7, -1.5, 0.8), abs=1e-3)
    assert curve.rmse == pytest.approx(0.0, abs=1e-6)
    assert curve.at(320) == pytest.approx(0.7 - 1.5 * 320**-0.8, abs=1e-4)


def test_asymptote_stays_within_what_the_figure_can_be() -> None:
    rising = fit_mean(SIZES, np.array([0.5, 0.7, 0.85, 0.95, 1.0]), 0.0, 1.0)
    assert rising is not None
    assert rising.asymptote <= 1.0


def test_width_curve_is_recovered() -> None:
    curve = fit_width(SIZES, 2.0 * SIZES**-0.5)
    assert curve is not None
    assert (curve.scale, curve.exponent) == pytest.approx((2.0, 0.5))
    # 2 / √n ≤ .1 from n = 400.
    assert needed_size(curve, 0.1, 160) == 400


def test_nothing_is_fitted_to_as_many_points_as_parameters() -> None:
    assert fit_mean(SIZES[:3], np.array([0.1, 0.2, 0.3]), 0.0, 1.0) is None
    assert fit_mean(SIZES, np.array([0.1, 0.2, 0.3, np.nan, np.nan]), 0.0, 1.0) is None
    assert fit_width(SIZES[:2], np.array([0.2, 0.1])) is None
    assert fit_width(SIZES, np.array([0.2, 0.1, 0.0, 0.0, np.nan])) is None
    assert describe_curves(None, None) is None


def test_formula_carries_the_numbers() -> None:
    mean, width = fit_mean(SIZES, 0.7 - 1.5 * SIZES**-0.8, 0.0, 1.0), fit_width(SIZES, 2.0 * SIZES**-0.5)
    assert describe_curves(mean, width) == "mean = 0.700 - 1.5 n^-0.80; width = 2 n^-0.50"
    assert describe_curves(None, width) == "width = 2 n^-0.50"


def test_spread_is_freed_of_the_finite_pool() -> None:
    # √(1 - 75/100) = 1/2; at n = N nothing is left to correct.
    assert correct_spread(np.array([0.3]), np.array([75]), 100) == pytest.approx([0.6])
    assert np.isnan(correct_spread(np.array([0.0]), np.array([100]), 100)).all()


def test_corrected_spread_of_a_mean_is_that_of_independent_samples() -> None:
    # Means of 60 of 100 values spread by σ √(1 - .6) / √60 instead of σ / √60.
    rng = np.random.default_rng(1)
    pool = rng.normal(size=100)
    means = np.array([rng.permutation(pool)[:60].mean() for _ in range(4000)])
    corrected = correct_spread(np.array([means.std()]), np.array([60]), 100)
    assert corrected[0] == pytest.approx(pool.std() / np.sqrt(60), rel=0.05)


def test_summary_by_hand() -> None:
    both = summarise(np.array([0.2, 0.4]), exhaustive=False)
    assert (both.mean, both.sd, both.n_repeats) == pytest.approx((0.3, np.sqrt(0.02), 2))  # Σ d² = .02, over n - 1 = 1
    assert summarise(np.array([0.2, 0.4]), exhaustive=True).sd == pytest.approx(0.1)  # over n = 2
    alone = summarise(np.array([0.2]), exhaustive=True)
    assert alone.mean == pytest.approx(0.2)
    assert np.isnan([alone.sd, alone.low, alone.high]).all()


def test_figure_undefined_in_most_sub_samples_is_undefined() -> None:
    assert np.isnan(summarise(np.array([0.2, np.nan, np.nan]), exhaustive=False).mean)
    assert summarise(np.array([0.2, 0.3, np.nan]), exhaustive=False).mean == pytest.approx(0.25)


def give_advice(width: WidthCurve | None, n_now: int, widest_seen: float | None = None, per_n: float = 1.0) -> str:
    return advise(
        width, 0.1, n_now, what="α", units="annotations per annotator", units_per_n=per_n, widest_seen=widest_seen
    )


def test_advice_names_how_many_more() -> None:
    # 2 / √n = .1 at 400; 100 now, at .2; 300 more, or 150 where only every second item is annotated.
    curve = WidthCurve(2.0, 0.5)
    expected = "about 300 more annotations per annotator would bring the 95% interval of α under 0.10 (now 0.200)"
    assert give_advice(curve, 100) == expected
    assert give_advice(curve, 100, per_n=0.5).startswith("about 150 more")


def test_advice_where_none_are_needed_or_none_would_do() -> None:
    assert give_advice(WidthCurve(2.0, 0.5), 900) == (
        "the 95% interval of α is under 0.10 already: 0.067 with the present 900 annotations per annotator"
    )
    assert "did not narrow with more" in give_advice(WidthCurve(0.3, -0.1), 100)
    assert needed_size(WidthCurve(0.3, -0.1), 0.1, 100) is None
    # 2 n^-.25 = .1 at 160,000: beyond ten times the present 100.
    assert "more than 10 times the present 100" in give_advice(WidthCurve(2.0, 0.25), 100)
    assert needed_size(WidthCurve(2.0, 0.25), 0.1, 100) is None


def test_advice_without_a_curve() -> None:
    assert "cannot be said" in give_advice(None, 100)
    assert "cannot be said" in give_advice(None, 100, widest_seen=0.3)
    assert "already: 0.010 with fewer than the present 100" in give_advice(None, 100, widest_seen=0.01)
