"""Intervals for a share when the sample is small and its weights differ: Student quantile, Wilson, design effect.

Pure arithmetic. A share close to 0 or 1 has a skewed estimate and, with luck, an estimated variance of 0, so
"value +- 1.96 standard errors" would promise too much. Instead the variance is turned into an effective sample size and
Wilson's score interval is taken at that size. With few minority labels (wrong ones, when most are right) the estimated
variance is itself a guess: it is shrunk towards the variance a model expects, which is never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
PRIOR_LABELS = 0.5
"""How many minority labels the model's variance is worth. Tuned on seeds >= 100: docs/decisions/0003."""


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def covers(self, truth: float) -> bool:
        return self.low <= truth <= self.high


def student_quantile(df: int, *, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t: the Cornish-Fisher expansion of Abramowitz & Stegun 26.7.5.

    Off by less than 0.2 % from 5 degrees of freedom on; estimates here have at least 18.
    """
    x = NormalDist().inv_cdf(0.5 + level / 2)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / float(df) ** power for power, term in enumerate(terms, start=1))


def wilson(share: float, size: float, *, quantile: float) -> Interval:
    """Wilson's score interval (JASA 1927) for `share` in 0..1 seen in an effective sample of `size`.

    Recommended for complex samples at the effective size by Franco, Little, Louis & Slud (J. Survey Statistics and
    Methodology 2019) and by Kott (Survey Methodology 43-2, 2017). An infinite size (a census) has no width.
    """
    if math.isinf(size):
        return Interval(share, share)
    square = quantile**2
    centre = (share + square / (2 * size)) / (1 + square / size)
    half = quantile / (1 + square / size) * math.sqrt(share * (1 - share) / size + square / (4 * size**2))
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))


def effective_size(share: float, variance: float, *, labels: int, minority: int, expected: float) -> float:
    """The size of a simple random sample that would be as precise.

    ``labels / deff``; deff is the estimated design effect ``variance / (share (1 - share) / labels)`` (Kish 1965),
    moved towards the `expected` one by the weight `PRIOR_LABELS` against `minority`, the labels on the rarer side:
    modelled design effects repair the coverage of estimated ones (Franco et al. 2019). Infinite when neither leaves
    any variance (every part is labelled).

    Args:
        share: kept off 0 and 1 by half a label before it divides.
        expected: a model's design effect; 0 only for a census.
    """
    edge = 1 / (2 * labels)
    inner = min(max(share, edge), 1 - edge)
    estimated = variance * labels / (inner * (1 - inner))
    design = (minority * estimated + PRIOR_LABELS * expected) / (minority + PRIOR_LABELS)
    return labels / design if design > 0 else math.inf


def counted_low(count: float, quantile: float) -> float:
    """The lower end of a Poisson mean of which `count` events were seen, as a share of `count`.

    Byar's approximation ``(1 - 1/9c - z/3sqrt(c))^3`` (Breslow & Day, Statistical Methods in Cancer Research II, 1987).
    """
    if count <= 0:
        return 0.0
    return float(max(1 - 1 / (9 * count) - quantile / (3 * math.sqrt(count)), 0.0) ** 3)


def widened(value: float, interval: Interval, *, below: float, above: float) -> Interval:
    """Add an independent half-width (same level) to each side of `value` by squares: MOVER, Zou & Donner 2008.

    The result is cut to 0..1, and always holds `value` cut likewise.
    """
    low = value - math.hypot(max(value - interval.low, 0.0), below)
    high = value + math.hypot(max(interval.high - value, 0.0), above)
    return Interval(min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0))
