"""True accuracy, escape and overkill of a period from few labels of a biased sample whose bias is known.

A part was uploaded and given to the estimation queue with a recorded probability pi, so weighting its label by 1 / pi
undoes the preference for hard parts. Pure: numpy arrays in, numbers out; what counts as a label is decided elsewhere.

Design: Poisson sampling (every part has its own coin) from the finite set of the period's parts, so variances carry
(1 - pi) and a census has none. Reviewers: each label says the wrong side (defect or good) with the same probability e,
independently; e comes from gold items and every side is corrected before it is averaged (`Reviewer`), which for a mean
is Rogan & Gladen's estimator. What is not modelled: a reviewer who errs more on hard parts, and labels missing not at
random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.accuracy.intervals import Interval, counted_low, effective_size, student_quantile, widened, wilson

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_LABELS = 20
MIN_GOLD = 20
MAX_MISTAKES = 0.25
ALLOWED_MISTAKES = 0.03
"""Reviewers nobody has measured: the interval of accuracy holds for every mistake rate up to this one."""
MAX_SLOPE = 1.2
CLIP_G = 0.02
EVEN_SHARE = 0.3
MODEL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Mistakes found on gold items. `rate` is e; below `MIN_GOLD` items nothing is corrected, only allowed for."""

    mistakes: int = 0
    gold: int = 0

    @property
    def corrects(self) -> bool:
        return self.gold >= MIN_GOLD

    @property
    def reliable(self) -> bool:
        """Beyond `MAX_MISTAKES` the correction 1 / (1 - 2e) would amplify noise more than the labels tell."""
        return not self.corrects or self.rate <= MAX_MISTAKES

    @property
    def rate(self) -> float:
        return self.mistakes / self.gold if self.corrects else 0.0

    @property
    def standard_error(self) -> float:
        """Of `rate`, at the Jeffreys mean (mistakes + 1/2) / (gold + 1), so no mistake seen is not none made."""
        if not self.corrects:
            return 0.0
        middle = (self.mistakes + 0.5) / (self.gold + 1)
        return math.sqrt(middle * (1 - middle) / self.gold)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled parts of the estimation queue, one entry per part.

    Args:
        called_defect: the forced call.
        says_defect: the reviewer's word.
        g: calibrated probability that the forced call is right.
        pi: inclusion probability in (0, 1].
        passed, rejected: the verdict; neither is UNSURE.
        judged: False for a frame without scores: it counts for escape and overkill, not for accuracy.
    """

    called_defect: Mask
    says_defect: Mask
    g: Array
    pi: Array
    passed: Mask
    rejected: Mask
    judged: Mask

    def __len__(self) -> int:
        return len(self.pi)

    def only(self, mask: Mask) -> Labelled:
        """The entries where `mask` holds."""
        return Labelled(
            called_defect=self.called_defect[mask],
            says_defect=self.says_defect[mask],
            g=self.g[mask],
            pi=self.pi[mask],
            passed=self.passed[mask],
            rejected=self.rejected[mask],
            judged=self.judged[mask],
        )

    @property
    def agrees(self) -> Array:
        """1 where the forced call and the reviewer say the same, else 0."""
        return np.asarray(self.called_defect == self.says_defect, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Totals:
    """Known over ALL judged parts: how many, and the sum of g. The difference estimator's first term."""

    n: int
    sum_g: float

    @property
    def mean_g(self) -> float:
        return self.sum_g / self.n


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval. `effective` is the size of an equally precise simple random sample."""

    value: float
    low: float
    high: float
    labels: int
    effective: float
    method: str
    corrected: bool


def naive(sample: Labelled) -> float | None:
    """What uploads alone would say: the plain mean, in which hard parts weigh too much. For contrast only."""
    judged = sample.only(sample.judged)
    return float(judged.agrees.mean()) if len(judged) else None


def hajek(sample: Labelled, *, reviewer: Reviewer | None = None, n_parts: int | None = None) -> Estimate | None:
    """Accuracy as ``sum ok/pi / sum 1/pi`` (Hajek 1971), without totals; None below `MIN_LABELS` labels.

    Variance ``sum (1-pi) ((ok - A)/pi)^2 / (sum 1/pi)^2`` (Sarndal, Swensson & Wretman 1992, chapter 5), times
    n / (n - 1).
    """
    judged = sample.only(sample.judged)
    if len(judged) < MIN_LABELS:
        return None
    weight = 1 / judged.pi
    observed = _mean(judged.agrees, weight)
    residual = judged.agrees - observed
    parts = float(n_parts or weight.sum())
    return _accuracy(judged, observed, residual, lost=1, method="hajek", reviewer=reviewer, parts=parts)


def difference(sample: Labelled, totals: Totals, *, reviewer: Reviewer | None = None) -> Estimate | None:
    """Accuracy as ``lambda mean_all(g) + sum (ok - lambda g)/pi / sum 1/pi``; None below `MIN_LABELS` labels.

    lambda is the 1/pi-weighted least-squares slope of ok on g, cut to 0..`MAX_SLOPE`: the generalised regression
    estimator of Cassel, Sarndal & Wretman (Biometrika 1976). Its bias is O(1/n) whatever g is worth: where g says
    nothing the slope is near 0 and the estimate is Hajek's. Variance as Hajek's on the regression residuals, times
    n / (n - 2) (Sarndal et al. 1992, chapter 6).
    """
    judged = sample.only(sample.judged)
    if len(judged) < MIN_LABELS or totals.n < 1:
        return None
    weight = 1 / judged.pi
    agrees, g = judged.agrees, judged.g
    mean_ok, mean_g = _mean(agrees, weight), _mean(g, weight)
    slope = _slope(g - mean_g, agrees - mean_ok, weight)
    observed = mean_ok + slope * (totals.mean_g - mean_g)
    residual = agrees - mean_ok - slope * (g - mean_g)
    return _accuracy(judged, observed, residual, lost=2, method="difference", reviewer=reviewer, parts=float(totals.n))


def escape(sample: Labelled, *, reviewer: Reviewer | None = None) -> Estimate | None:
    """P(verdict PASS | the part is defective). None below `MIN_LABELS` labels or without a defective part in sight."""
    return _ratio(sample, hit=sample.passed, given=sample.says_defect, reviewer=reviewer)


def overkill(sample: Labelled, *, reviewer: Reviewer | None = None) -> Estimate | None:
    """P(verdict REJECT | the part is good). None below `MIN_LABELS` labels or without a good part in sight."""
    return _ratio(sample, hit=sample.rejected, given=~sample.says_defect, reviewer=reviewer)


def escaped(sample: Labelled, *, reviewer: Reviewer | None = None) -> Estimate | None:
    """P(verdict PASS and the part is defective), of ALL parts: times their number, the parts that slipped through."""
    return _ratio(sample, hit=sample.passed, given=sample.says_defect, reviewer=reviewer, of_all=True)


def overkilled(sample: Labelled, *, reviewer: Reviewer | None = None) -> Estimate | None:
    """P(verdict REJECT and the part is good), of ALL parts: times their number, the parts thrown away."""
    return _ratio(sample, hit=sample.rejected, given=~sample.says_defect, reviewer=reviewer, of_all=True)


def _mean(values: Array, weight: Array) -> float:
    return float((values * weight).sum() / weight.sum())


def _slope(x: Array, y: Array, weight: Array) -> float:
    spread = float((weight * x * x).sum())
    slope = float((weight * x * y).sum()) / spread if spread > 1e-12 else 0.0
    return min(max(slope, 0.0), MAX_SLOPE)


def _variance(residual: Array, pi: Array, *, lost: int) -> float:
    weight = 1 / pi
    n = len(pi)
    return float(((1 - pi) * (weight * residual) ** 2).sum() / weight.sum() ** 2) * n / max(n - lost, 1)


@dataclass(frozen=True, slots=True)
class _Anticipated:
    """What a model expects: the variance if g is right, and the design effect whatever g's level."""

    variance: float
    design: float


def _anticipated(g: Array, pi: Array, *, rate: float) -> _Anticipated:
    """The anticipated variance of Isaki & Fuller (JASA 1982): agreement is a coin of probability q in every part.

    ``q = g (1 - e) + (1 - g) e``: the call is right and the reviewer too, or neither. The design effect takes q (1 - q)
    at mean 1, mixed with `EVEN_SHARE` of disagreement anywhere, which keeps it honest when g is overconfident; with
    only the even part it is Kish's effect of unequal weights.
    """
    weight = 1 / pi
    inner = np.clip(g, CLIP_G, 1 - CLIP_G)
    agree = inner * (1 - rate) + (1 - inner) * rate
    spread = agree * (1 - agree)
    lever = (1 - pi) * weight**2 / weight.sum() ** 2
    shape = EVEN_SHARE + (1 - EVEN_SHARE) * spread / _mean(spread, weight)
    return _Anticipated(float((lever * spread).sum()), float((lever * shape).sum()) * len(pi))


def _cautious(variance: float, model: _Anticipated) -> float:
    """Move an estimated variance up towards the model's by `MODEL_SHARE`, never down.

    Rare disagreements among parts that were seldom drawn carry most of the variance and are mostly not in the sample:
    then the estimate is high and its estimated variance low at once, and without this the interval misses the truth
    from above.
    """
    return max(variance, (1 - MODEL_SHARE) * variance + MODEL_SHARE * model.variance)


def _accuracy(
    sample: Labelled,
    observed: float,
    residual: Array,
    *,
    lost: int,
    method: str,
    reviewer: Reviewer | None,
    parts: float,
) -> Estimate:
    """From observed agreement to accuracy: Wilson at the effective size, then the reviewer's share.

    Rogan & Gladen (Am. J. Epidemiology 1978) for a symmetric error: ``A = (A_obs - e) / (1 - 2e)``, applied to the
    value and both ends; the uncertainty of e and the mistakes' own luck ``e (1 - e) / parts`` are added by squares.
    Without gold items the value stays as observed, and the interval is the union of those for e from 0 to
    `ALLOWED_MISTAKES`: mistakes pull agreement towards one half, so it grows on the side away from it.
    """
    reviewer = reviewer or Reviewer()
    right = int(sample.agrees.sum())
    model = _anticipated(sample.g, sample.pi, rate=reviewer.rate)
    size = effective_size(
        observed,
        _cautious(_variance(residual, sample.pi, lost=lost), model),
        labels=len(sample),
        minority=min(right, len(sample) - right),
        expected=model.design,
    )
    quantile = student_quantile(len(sample) - lost)
    raw = wilson(min(max(observed, 0.0), 1.0), size, quantile=quantile)

    def corrected(share: float, rate: float) -> float:
        return (share - rate) / (1 - 2 * rate)

    rate = reviewer.rate
    value = min(max(corrected(observed, rate), 0.0), 1.0)
    rates = (rate,) if reviewer.corrects else (0.0, ALLOWED_MISTAKES)
    ends = Interval(min(corrected(raw.low, e) for e in rates), max(corrected(raw.high, e) for e in rates))
    extra = quantile * math.hypot(
        _half_difference(lambda e: corrected(observed, e), reviewer),
        math.sqrt(rate * (1 - rate) / parts) / (1 - 2 * rate),
    )
    final = widened(value, ends, below=extra, above=extra)
    return Estimate(value, final.low, final.high, len(sample), size, method, reviewer.corrects)


def _half_difference(figure: Callable[[float], float], reviewer: Reviewer) -> float:
    """How far `figure` moves when the mistake rate moves by its standard error."""
    step = reviewer.standard_error
    return abs(figure(reviewer.rate + step) - figure(max(reviewer.rate - step, 0.0))) / 2


def _ratio(
    sample: Labelled, *, hit: Mask, given: Mask, reviewer: Reviewer | None, of_all: bool = False
) -> Estimate | None:
    """``sum hit t/pi / sum t/pi`` with t the corrected side, a ratio estimator; `of_all`: over ``sum 1/pi``.

    Linearised: ``V = sum (1-pi) (t (hit - R)/pi)^2 / (sum t/pi)^2`` (Sarndal et al. 1992, chapter 5), times
    n / (n - 1). The side is corrected before it is averaged, ``t = (said - e) / (1 - 2e)``: where defects are as rare
    as mistakes, an uncorrected escape rate counts mostly mistakes. Wilson at the effective size, as for accuracy. The
    luck of mistakes among the hits is added to the lower side in full, though V holds part of it: where one or two hits
    carry the rate, V cannot tell a mistake from an escape. A share of all parts is so near 0 that Wilson's lower end is
    above it whenever one hit is drawn: there the hits are a Poisson count too, and the lower of both ends holds.
    """
    reviewer = reviewer or Reviewer()
    among = np.ones(len(sample), dtype=bool) if of_all else given
    named = int(among.sum())
    if len(sample) < MIN_LABELS or named == 0:
        return None
    weight, hits = 1 / sample.pi, hit.astype(np.float64)

    def sides(rate: float) -> Array:
        return np.asarray((given.astype(np.float64) - rate) / (1 - 2 * rate))

    def parts(rate: float) -> Array:
        return np.ones(len(sample)) if of_all else sides(rate)

    def figure(rate: float) -> float:
        total = float((weight * parts(rate)).sum())
        return float((weight * sides(rate) * hits).sum()) / total if total > 0 else math.nan

    rate = reviewer.rate
    total, plain = float((weight * parts(rate)).sum()), figure(rate)
    moved = _half_difference(figure, reviewer)
    if not (math.isfinite(plain) and math.isfinite(moved)):
        return None
    value = min(max(plain, 0.0), 1.0)
    scores = sides(rate) * hits - value * parts(rate)
    n = len(sample)
    variance = float(((1 - sample.pi) * (weight * scores) ** 2).sum()) / total**2 * n / (n - 1)
    struck = int((hit & given).sum())
    even = _even_design(sample.pi, among, carriers=hit if of_all and hit.any() else among)
    size = effective_size(value, variance, labels=named, minority=min(struck, named - struck), expected=even)
    quantile = student_quantile(n - 1)
    luck = math.sqrt(rate * (1 - rate) * float((weight[hit] ** 2).sum())) / ((1 - 2 * rate) * total)
    ends = wilson(value, size, quantile=quantile)
    if of_all:
        ends = Interval(min(ends.low, value * counted_low(_even_hits(weight[hit & given]), quantile)), ends.high)
    final = widened(value, ends, below=quantile * math.hypot(moved, luck), above=quantile * moved)
    return Estimate(value, final.low, final.high, named, size, "ratio", reviewer.corrects)


def _even_hits(weight: Array) -> float:
    """How many hits of equal weight would be as uncertain."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0


def _even_design(pi: Array, among: Mask, *, carriers: Mask) -> float:
    """Kish's design effect of a share of the parts `among`, if it lies evenly over `carriers` and only there.

    ``n sum_C (1-pi)/pi^2 / (sum_C 1/pi * sum_A 1/pi)``; with C = A it is Kish's effect of unequal weights.
    """
    own = pi[carriers]
    return float(((1 - own) / own**2).sum() / ((1 / own).sum() * (1 / pi[among]).sum())) * int(among.sum())
