"""Tests for two models on the same images: is the drop real, and how big a drop would have been seen.

All are one-sided: the gate only asks whether the candidate is worse.
"""

from __future__ import annotations

import math

LEVEL = 0.05
Z95 = 1.6448536269514722
"""One-sided 95 % quantile of the standard normal."""


def normal_cdf(z: float) -> float:
    """P(N(0,1) <= z)."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def mcnemar_exact(lost: int, won: int) -> float:
    """One-sided exact p of "no more lost than won" (McNemar 1947): P(Binomial(lost + won, 1/2) >= lost).

    Args:
        lost: images the incumbent got right and the candidate wrong.
        won: the other way round.
    """
    n = lost + won
    return float(sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n)


def margin_p(lost: int, won: int, n: int, margin: float) -> float:
    """One-sided p of "the drop of the rate is at most `margin`" for paired proportions, by Tango's score test.

    Tango (1998), Statistics in Medicine 17, 891-908: ``Z = (b - c - n d) / sqrt(n (2 q + d (1 - d)))`` with q the
    maximum likelihood estimate of P(won) where the drop is exactly `margin`.
    """
    if n == 0:
        return 1.0
    b, c, d = lost, won, margin
    linear = -b - c + (2 * n - b + c) * d
    q = (math.sqrt(linear * linear + 8 * n * c * d * (1 - d)) - linear) / (4 * n)
    variance = n * (2 * q + d * (1 - d))
    excess = b - c - n * d
    if variance <= 0:
        return 0.0 if excess > 0 else 1.0
    return 1 - normal_cdf(excess / math.sqrt(variance))


def drop_is_evident(lost: int, won: int, n: int, margin: float) -> bool:
    """Whether there is one-sided 95 % evidence that the rate fell by more than `margin`.

    Both tests must say so: the score test carries the margin, the exact one keeps it honest on a handful of images.
    """
    return margin_p(lost, won, n, margin) < LEVEL and mcnemar_exact(lost, won) < LEVEL


def power(drop: float, *, margin: float, error: float) -> float:
    """Probability that a candidate truly worse by `drop` is refused by "observed drop > margin".

    Args:
        error: standard error of the paired difference on this many images.
    """
    if error <= 0:
        return 1.0 if drop > margin else 0.0
    return normal_cdf((drop - margin) / error)
