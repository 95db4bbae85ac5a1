"""Exact intervals of a share, for counts and for weighted counts.

Clopper and Pearson (Biometrika 1934): the limits are quantiles of beta distributions, so they are right at zero events,
where a bootstrap has no width and a normal approximation none either. A weighted share is given the interval of its
effective sample size, which may be a fraction (Korn and Graubard, Survey Methodology 1998).
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p

_STEPS = 300
_TINY = 1e-300
_PRECISION = 1e-14
_BISECTIONS = 50


def beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Numerical Recipes 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / _away(1 + term * d), _away(1 + term / c)
            step = d * c
            value *= step
        if abs(step - 1) < _PRECISION:
            break
    return value


def _away(value: float) -> float:
    """Not zero: Lentz's method divides by it."""
    return value if abs(value) > _TINY else _TINY


def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def upper_bound(events: float, n: float, *, level: float = 0.95) -> float:
    """One-sided upper limit of a share; 1 when nothing was seen.

    Raises:
        ValueError: not 0 <= events <= n.
    """
    _check(events, n)
    return 1.0 if events >= n else _beta_quantile(level, events + 1, n - events)


def lower_bound(events: float, n: float, *, level: float = 0.95) -> float:
    """One-sided lower limit of a share; 0 when nothing was seen.

    Raises:
        ValueError: not 0 <= events <= n.
    """
    _check(events, n)
    return 0.0 if events <= 0 else _beta_quantile(1 - level, events, n - events + 1)


def clopper_pearson(events: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Two-sided limits of a share that hold at least `level` of the time.

    Raises:
        ValueError: not 0 <= events <= n.
    """
    side = (1 + level) / 2
    return lower_bound(events, n, level=side), upper_bound(events, n, level=side)


def _check(events: float, n: float) -> None:
    if not 0 <= events <= n:
        raise ValueError(f"{events} events of {n}: a share needs 0 <= events <= n")
