"""Intervals against reference values and at their edges."""

from __future__ import annotations

import math

import pytest

from cloud.accuracy.intervals import Interval, counted_low, effective_size, student_quantile, widened, wilson


@pytest.mark.parametrize(("df", "table"), [(5, 2.5706), (18, 2.1009), (19, 2.0930), (30, 2.0423), (120, 1.9799)])
def test_student_quantile_agrees_with_the_printed_table(df: int, table: float) -> None:
    assert student_quantile(df) == pytest.approx(table, rel=2e-3)


def test_wilson_agrees_with_newcombes_example() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 1998, method 3)."""
    found = wilson(81 / 263, 263, quantile=1.959964)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_wilson_never_has_zero_width_short_of_a_census() -> None:
    assert wilson(1.0, 30, quantile=1.96).low < 0.9
    assert wilson(1.0, 30, quantile=1.96).high == 1.0
    assert wilson(0.0, 30, quantile=1.96).high > 0.1
    assert wilson(0.7, math.inf, quantile=1.96) == Interval(0.7, 0.7)


def test_effective_size_is_the_label_count_without_a_design_effect() -> None:
    plain = 0.9 * 0.1 / 100
    assert effective_size(0.9, plain, labels=100, minority=10, expected=1.0) == pytest.approx(100)
    assert effective_size(0.9, 2 * plain, labels=100, minority=10, expected=2.0) == pytest.approx(50)


def test_without_minority_labels_the_expected_design_effect_decides() -> None:
    assert effective_size(1.0, 0.0, labels=40, minority=0, expected=1.6) == pytest.approx(25)
    few = effective_size(0.975, 0.0, labels=40, minority=1, expected=1.0)
    many = effective_size(0.5, 0.0, labels=40, minority=20, expected=1.0)
    assert 40 < few < many < math.inf


def test_a_census_has_no_variance_left() -> None:
    assert math.isinf(effective_size(0.9, 0.0, labels=100, minority=10, expected=0.0))


@pytest.mark.parametrize(("count", "exact"), [(2, 0.121), (5, 0.325), (20, 0.611), (100, 0.814)])
def test_the_lower_end_of_a_count_agrees_with_the_exact_one(count: int, exact: float) -> None:
    assert counted_low(count, 1.96) == pytest.approx(exact, abs=0.01)
    assert counted_low(1, 1.96) < 0.0254
    assert counted_low(0, 1.96) == 0.0


def test_widening_adds_by_squares_and_stays_a_share() -> None:
    found = widened(0.5, Interval(0.47, 0.53), below=0.04, above=0.0)
    assert (found.low, found.high) == (pytest.approx(0.45), pytest.approx(0.53))
    assert widened(0.99, Interval(0.9, 1.02), below=0.5, above=0.5) == Interval(pytest.approx(0.482, abs=1e-3), 1.0)
    assert widened(1.0, Interval(1.01, 1.03), below=0.0, above=0.0).covers(1.0)
