"""Is the accuracy interval honest? Thousands of simulated hours with known truth; no server, no image.

For every hour with enough labels: does the 95 % interval of accuracy cover the truth, how wide is it beside the
interval of a simple random sample of the same size, and what would the uploads alone have claimed. The simple random
sample is drawn from the same hour and labelled by the same reviewers, with Wilson's interval, the finite-population
correction and the same correction of mistakes (whose uncertainty it is not charged for). A stricter one, labelled
without a mistake, is printed beside it and is no target: it would charge the design with the reviewers' mistakes.

Tuned on seeds >= 100, reported on 0-4 (docs/decisions/0003-accuracy-estimator.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from statistics import NormalDist
from typing import Any

import numpy as np

from cloud.accuracy.estimators import (
    MIN_LABELS,
    Estimate,
    Labelled,
    Reviewer,
    Totals,
    difference,
    escape,
    hajek,
    naive,
    overkill,
)
from cloud.accuracy.intervals import Interval, wilson
from simulators.accuracy import REGIMES, PlantHour, PlantSettings, plant_line

COVERAGE = (0.92, 0.98)
MAX_WIDTH = 1.15
MAX_BIAS = 0.01
MIN_HOURS = 2000
Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Share:
    """An estimate beside the truth. None: not enough labels, or no such part."""

    truth: float
    value: float
    low: float
    high: float

    @property
    def covered(self) -> bool:
        return self.low <= self.truth <= self.high


@dataclass(frozen=True, slots=True)
class Outcome:
    """One hour. `srs` and `srs_clean` are half-widths of the two simple random samples; `unmeasured` is the estimate
    of a plant that has no gold items."""

    regime: str
    parts: int
    uploads: int
    labels: int
    accuracy: Share | None = None
    unmeasured: Share | None = None
    hajek: Share | None = None
    escape: Share | None = None
    overkill: Share | None = None
    naive: float = float("nan")
    srs: float = float("nan")
    srs_covered: bool = False
    srs_clean: float = float("nan")


def to_labelled(hour: PlantHour) -> Labelled:
    """What the cloud would hand to the estimators."""
    mask = hour.labelled
    return Labelled(
        called_defect=hour.called_defect[mask],
        says_defect=hour.says_defect[mask],
        g=hour.g[mask],
        pi=hour.pi[mask],
        passed=hour.passed[mask],
        rejected=hour.rejected[mask],
        judged=np.ones(int(mask.sum()), dtype=bool),
    )


def _share(estimate: Estimate | None, truth: float | None) -> Share | None:
    if estimate is None or truth is None:
        return None
    return Share(truth, estimate.value, estimate.low, estimate.high)


def random_sample(hour: PlantHour, labels: int, *, mistakes: float, rng: np.random.Generator) -> Interval:
    """Wilson's interval of a simple random sample of `labels` parts, at size n / (1 - n/N)."""
    parts = len(hour.ok)
    seen = hour.ok[rng.choice(parts, labels, replace=False)] != (rng.random(labels) < mistakes)
    size = labels / (1 - labels / parts) if labels < parts else float("inf")
    return wilson(float(seen.mean()), size, quantile=Z95)


def judge(hour: PlantHour, rng: np.random.Generator, *, settings: PlantSettings) -> Outcome:
    """Estimate one hour and hold it against its truth."""
    sample = to_labelled(hour)
    seen = Outcome(regime=hour.regime, parts=len(hour.ok), uploads=int(hour.uploaded.sum()), labels=len(sample))
    if len(sample) < MIN_LABELS:
        return seen
    reviewer = Reviewer(mistakes=hour.gold_mistakes, gold=hour.gold)
    totals = Totals(n=len(hour.g), sum_g=float(hour.g.sum()))
    clean = random_sample(hour, len(sample), mistakes=0.0, rng=rng)
    reviewed = random_sample(hour, len(sample), mistakes=settings.mistake_rate, rng=rng)
    srs = _corrected(reviewed, reviewer.rate)
    return replace(
        seen,
        accuracy=_share(difference(sample, totals, reviewer=reviewer), hour.truth),
        unmeasured=_share(difference(sample, totals), hour.truth),
        hajek=_share(hajek(sample, reviewer=reviewer), hour.truth),
        escape=_share(escape(sample, reviewer=reviewer), hour.escape),
        overkill=_share(overkill(sample, reviewer=reviewer), hour.overkill),
        naive=naive(sample) or 0.0,
        srs=srs.half_width,
        srs_covered=srs.covers(hour.truth),
        srs_clean=clean.half_width,
    )


def _corrected(interval: Interval, rate: float) -> Interval:
    ends = ((end - rate) / (1 - 2 * rate) for end in (interval.low, interval.high))
    low, high = (min(max(end, 0.0), 1.0) for end in ends)
    return Interval(low, high)


def run_line(seed: int, line: int, settings: PlantSettings) -> list[Outcome]:
    """All hours of one simulated line."""
    rng = np.random.default_rng((seed, line, 1))
    return [judge(hour, rng, settings=settings) for hour in plant_line((seed, line), settings=settings)]


def run(
    seeds: Sequence[int], *, lines: int, settings: PlantSettings | None = None, processes: int = 1
) -> list[Outcome]:
    """`lines` simulated lines per seed."""
    work = [(seed, line, settings or PlantSettings()) for seed in seeds for line in range(lines)]
    if processes == 1:
        return [outcome for item in work for outcome in run_line(*item)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = pool.map(run_line, *zip(*work, strict=True), chunksize=4)
        return [outcome for line in found for outcome in line]


@dataclass(frozen=True, slots=True)
class Summary:
    """Over the hours of one regime, or all. Shares 0..1; biases and errors in points of accuracy (0.01 = 1 point)."""

    regime: str
    hours: int
    estimated: int
    not_enough_labels: float
    mean_labels: float
    truth: float
    coverage: float
    coverage_unmeasured: float
    width_unmeasured: float
    above: float
    below: float
    half_width: float
    width_to_srs: float
    width_to_srs_clean: float
    srs_coverage: float
    bias: float
    bias_naive: float
    rmse: float
    rmse_naive: float
    rmse_hajek: float
    hajek_coverage: float
    escape_coverage: float
    overkill_coverage: float


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _coverage(shares: list[Share | None]) -> float:
    return _mean([share.covered for share in shares if share is not None])


def summarise(outcomes: Sequence[Outcome], regime: str | None = None) -> Summary:
    """Figures over all hours, or those of one regime."""
    chosen = [one for one in outcomes if regime in (None, one.regime)]
    pairs = [(one, one.accuracy) for one in chosen if one.accuracy is not None]
    done, found = [one for one, _ in pairs], [share for _, share in pairs]
    errors = [share.value - share.truth for share in found]
    naive_errors = [one.naive - share.truth for one, share in pairs]
    hajek_errors = [one.hajek.value - one.hajek.truth for one in done if one.hajek is not None]
    half_width = _mean([(share.high - share.low) / 2 for share in found])
    return Summary(
        regime=regime or "all",
        hours=len(chosen),
        estimated=len(done),
        not_enough_labels=1 - len(done) / len(chosen) if chosen else float("nan"),
        mean_labels=_mean([one.labels for one in done]),
        truth=_mean([share.truth for share in found]),
        coverage=_coverage(list(found)),
        coverage_unmeasured=_coverage([one.unmeasured for one in done]),
        width_unmeasured=_mean([(one.unmeasured.high - one.unmeasured.low) / 2 for one in done if one.unmeasured])
        / _mean([one.srs for one in done]),
        above=_mean([share.low > share.truth for share in found]),
        below=_mean([share.high < share.truth for share in found]),
        half_width=half_width,
        width_to_srs=half_width / _mean([one.srs for one in done]),
        width_to_srs_clean=half_width / _mean([one.srs_clean for one in done]),
        srs_coverage=_mean([one.srs_covered for one in done]),
        bias=_mean(errors),
        bias_naive=_mean(naive_errors),
        rmse=_mean([error**2 for error in errors]) ** 0.5,
        rmse_naive=_mean([error**2 for error in naive_errors]) ** 0.5,
        rmse_hajek=_mean([error**2 for error in hajek_errors]) ** 0.5,
        hajek_coverage=_coverage([one.hajek for one in done]),
        escape_coverage=_coverage([one.escape for one in done]),
        overkill_coverage=_coverage([one.overkill for one in done]),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """`name` is stable; `detail` is for a person."""

    name: str
    ok: bool
    detail: str


def targets(overall: Summary) -> list[Target]:
    """What must hold over all hours."""
    low, high = COVERAGE
    return [
        Target("hours", overall.estimated >= MIN_HOURS, f"{overall.estimated} with an interval, at least {MIN_HOURS}"),
        Target("coverage", low <= overall.coverage <= high, f"{overall.coverage:.1%}, within {low:.0%}-{high:.0%}"),
        Target(
            "coverage_unmeasured",
            low <= overall.coverage_unmeasured <= high,
            f"{overall.coverage_unmeasured:.1%} where no gold items measure the reviewers, within {low:.0%}-{high:.0%}",
        ),
        Target(
            "width",
            overall.width_to_srs <= MAX_WIDTH,
            f"{overall.width_to_srs:.3f} x the half-width of simple random sampling, at most {MAX_WIDTH}",
        ),
        Target("bias", abs(overall.bias) <= MAX_BIAS, f"{100 * overall.bias:+.2f} points, within {100 * MAX_BIAS:.0f}"),
        Target(
            "naive_is_off",
            abs(overall.bias_naive) > 3 * abs(overall.bias),
            f"uploads alone are off by {100 * overall.bias_naive:+.2f} points",
        ),
    ]


def report(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Per regime, then over all hours."""
    return [*(summarise(outcomes, regime) for regime in REGIMES), summarise(outcomes)]


def _known(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def document(seeds: Sequence[int], summaries: Sequence[Summary], goals: Sequence[Target]) -> dict[str, Any]:
    """The JSON answer, under stable names; a figure without a single hour behind it is null."""
    return {
        "schema_version": 1,
        "seeds": list(seeds),
        "summaries": [_known(asdict(one)) for one in summaries],
        "targets": [asdict(one) for one in goals],
        "ok": all(one.ok for one in goals),
    }
