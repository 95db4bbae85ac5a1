"""Exact limits against published and closed-form values."""

from __future__ import annotations

from math import comb

import pytest

from models.runtime.intervals import beta_cdf, clopper_pearson, lower_bound, upper_bound


def test_zero_events_have_the_closed_form() -> None:
    assert upper_bound(0, 598) == pytest.approx(1 - 0.05 ** (1 / 598), abs=1e-9)
    assert lower_bound(0, 598) == 0.0
    assert upper_bound(7, 7) == 1.0
    assert upper_bound(0, 0) == 1.0


@pytest.mark.parametrize(("events", "n"), [(1, 10), (5, 10), (9, 10), (3, 200), (150, 400)])
def test_limits_are_where_the_binomial_tails_are_two_and_a_half_percent(events: int, n: int) -> None:
    low, high = clopper_pearson(events, n)

    def mass(p: float, counts: range) -> float:
        return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    assert mass(high, range(events + 1)) == pytest.approx(0.025, abs=1e-7)
    assert mass(low, range(events, n + 1)) == pytest.approx(0.025, abs=1e-7)
    assert low < events / n < high


def test_the_beta_function_of_fractions_is_smooth_between_whole_numbers() -> None:
    assert beta_cdf(0.3, 1, 1) == pytest.approx(0.3)
    assert beta_cdf(0.25, 0.5, 0.5) == pytest.approx(1 / 3)  # the arcsine law
    assert (beta_cdf(0.0, 2, 3), beta_cdf(1.0, 2, 3)) == (0.0, 1.0)
    assert upper_bound(2, 50) < upper_bound(2.5, 50) < upper_bound(3, 50)


@pytest.mark.parametrize(("events", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(events: float, n: float) -> None:
    with pytest.raises(ValueError, match="events of"):
        clopper_pearson(events, n)
