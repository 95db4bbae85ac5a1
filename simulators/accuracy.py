"""Simulated plant hours with known truth, for measuring whether the accuracy interval can be believed.

One hour is a few numpy arrays: what the model said about each part, what the part really was, what the selector kept,
what survived the spool, what was put into the estimation queue and what the reviewer answered. Selection is the edge's
own `Selector` with its byte budget and near-duplicate memory, eviction the spool's thinning, the queue's coin that of
ingest. Nothing here estimates.

Three regimes. *calibrated*: the defect score is (nearly) the probability of a defect. *miscalibrated*: the same parts
seen by an overconfident, shifted score. *collapsed*: after a product change the score says little and most forced
calls on good parts are wrong. Left out: images, links, frames that cannot be judged, reviewers who err more on hard
parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cloud.ingest.coin import RECENT, label_probability
from edge_agent.selector.pace import ENVELOPE_BYTES, Pace
from edge_agent.selector.rule import Candidate, Kept, Selector
from edge_agent.selector.terms import Terms
from edge_agent.spool import thinning
from models.contracts.ids import uuid7
from models.contracts.uplink import Priority

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Regime = Literal["calibrated", "miscalibrated", "collapsed"]
REGIMES: tuple[Regime, ...] = ("calibrated", "miscalibrated", "collapsed")
HOUR_S = 3600
DIRECTION_WIDTH = 8
REPEAT_WINDOW = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantSettings:
    """What varies. `upload_share` is the byte budget in parts, `repeat_share` parts that look like a recent one,
    `pressure_share` hours in which the spool must give up `given_up` of its bytes, `label_share` the mean coin of the
    estimation queue. Pairs are ranges; each line or hour draws its own.
    """

    parts: tuple[int, int] = (120, 2000)
    upload_share: tuple[float, float] = (0.15, 0.30)
    audit_share: float = 0.3
    pi_min: float = 0.02
    repeat_share: tuple[float, float] = (0.0, 0.1)
    pressure_share: float = 0.4
    given_up: tuple[float, float] = (0.1, 0.5)
    label_share: float = 0.3
    mistake_rate: float = 0.02
    gold_items: tuple[int, int] = (100, 400)
    call_at: float = 0.5
    pass_below: float = 0.3
    reject_above: float = 0.7
    image_bytes: tuple[int, int] = (30_000, 50_000)
    hours_per_line: int = 6


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts of an hour: the defect score, the truth, and what else the selector looks at."""

    score: Array
    defect: Mask
    novelty: Array
    disagreement: Array
    direction: NDArray[np.float32]
    size: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantHour:
    """An hour as the cloud could know it, and the truth beside it. Arrays have one entry per part.

    `pi` is the product of the recorded probabilities, NaN for a part that was not uploaded; `labelled` marks estimate
    labels and `says_defect` the reviewer's word on them, mistakes included (False elsewhere).
    """

    regime: Regime
    called_defect: Mask
    defect: Mask
    g: Array
    passed: Mask
    rejected: Mask
    pi: Array
    uploaded: Mask
    labelled: Mask
    says_defect: Mask
    gold: int
    gold_mistakes: int

    @property
    def ok(self) -> Mask:
        """Whether each forced call is right."""
        return np.asarray(self.called_defect == self.defect)

    @property
    def truth(self) -> float:
        """Accuracy of the forced call over every part of the hour."""
        return float(self.ok.mean())

    @property
    def escape(self) -> float | None:
        """Share of the defective parts that passed; None without a defective part."""
        return float(self.passed[self.defect].mean()) if self.defect.any() else None

    @property
    def overkill(self) -> float | None:
        """Share of the good parts that were rejected; None without a good part."""
        return None if self.defect.all() else float(self.rejected[~self.defect].mean())


def plant_line(seed: int | tuple[int, ...], *, settings: PlantSettings | None = None) -> Iterator[PlantHour]:
    """The hours of one simulated line. The selector lives as long as the line, so its pace and memory are warm."""
    settings = settings or PlantSettings()
    rng = np.random.default_rng(seed)
    low, high = np.log(settings.parts)
    rate = int(np.exp(rng.uniform(low, high)))
    mean_size = sum(settings.image_bytes) / 2 + ENVELOPE_BYTES
    budget = int(rng.uniform(*settings.upload_share) * rate * mean_size)
    pace = Pace(bytes_per_hour=budget, hour_s=HOUR_S)
    selector = Selector(
        pace=pace, audit_share=settings.audit_share, pi_min=settings.pi_min, seed=int(rng.integers(2**31))
    )
    stored: deque[float] = deque(maxlen=RECENT)
    for hour in range(settings.hours_per_line):
        n = max(int(rate * rng.uniform(0.9, 1.1)), settings.parts[0])
        regime = REGIMES[int(rng.integers(len(REGIMES)))]
        parts = parts_of(regime, n, rng, settings=settings)
        pi = _evict(parts, _select(parts, hour, selector), number=hour, settings=settings, rng=rng)
        coin = _coin(pi, stored, share=settings.label_share)
        yield _labelled(parts, pi, coin, regime=regime, settings=settings, rng=rng)


def _coin(pi: Array, stored: deque[float], *, share: float) -> Array:
    """The probabilities of the estimation queue as ingest gives them, one upload after the other."""
    coin = np.full(len(pi), np.nan)
    for index in np.flatnonzero(~np.isnan(pi)):
        coin[index] = label_probability(float(pi[index]), stored, share=share)
        stored.append(float(pi[index]))
    return coin


def _labelled(
    parts: Parts, pi: Array, coin: Array, *, regime: Regime, settings: PlantSettings, rng: np.random.Generator
) -> PlantHour:
    """The cloud's side of the hour: the estimation queue's toss and the reviewer."""
    uploaded = ~np.isnan(pi)
    n = len(pi)
    labelled = uploaded & (rng.random(n) < coin)
    mistaken = rng.random(n) < settings.mistake_rate
    called = parts.score >= settings.call_at
    gold = int(rng.integers(settings.gold_items[0], settings.gold_items[1] + 1))
    return PlantHour(
        regime=regime,
        called_defect=called,
        defect=parts.defect,
        g=np.where(called, parts.score, 1 - parts.score),
        passed=parts.score < settings.pass_below,
        rejected=parts.score > settings.reject_above,
        pi=pi * coin,
        uploaded=uploaded,
        labelled=labelled,
        says_defect=labelled & (parts.defect != mistaken),
        gold=gold,
        gold_mistakes=int(rng.binomial(gold, settings.mistake_rate)),
    )


def _terms(parts: Parts, index: int) -> Terms:
    return Terms(
        margin=float(abs(2 * parts.score[index] - 1)),
        novelty=float(parts.novelty[index]),
        disagreement=float(parts.disagreement[index]),
        direction=parts.direction[index],
    )


def _select(parts: Parts, hour: int, selector: Selector) -> Array:
    """The edge's rule over the hour's parts in order; the recorded probability of the kept ones, else NaN."""
    n = len(parts.score)
    pi = np.full(n, np.nan)
    for index in range(n):
        name = f"{hour}-{index}"
        at = hour * HOUR_S + (index + 0.5) * HOUR_S / n
        candidate = Candidate(id=name, at=at, size=int(parts.size[index]), terms=_terms(parts, index))
        answer = selector.consider(candidate)
        if isinstance(answer, Kept):
            sid = str(uuid7(int(at * 1000), index.to_bytes(10, "big")))
            selector.accepted(sid, candidate, answer.selection.stratum)
            pi[index] = answer.selection.pi_select
    return pi


def _evict(parts: Parts, pi: Array, *, number: int, settings: PlantSettings, rng: np.random.Generator) -> Array:
    """In an hour of pressure the spool thins what it holds; what is left carries its survival probability."""
    held = np.flatnonzero(~np.isnan(pi))
    if rng.random() >= settings.pressure_share or len(held) == 0:
        return pi
    candidates = [
        thinning.Candidate(
            sid=str(index),
            bytes=int(parts.size[index]),
            prio=Priority.HARD,
            group=f"{parts.score[index] >= settings.call_at}",
            score=_terms(parts, int(index)).hardness or 0.0,
            survive=1.0,
        )
        for index in held
    ]
    excess = int(rng.uniform(*settings.given_up) * parts.size[held].sum())
    epoch = rng.bytes(8).hex()
    left = np.full(len(pi), np.nan)
    for sid, survive in thinning.thin(candidates, excess=excess, epoch=epoch, number=number).survived:
        left[int(sid)] = pi[int(sid)] * survive
    return left


def parts_of(regime: Regime, n: int, rng: np.random.Generator, *, settings: PlantSettings) -> Parts:
    """`n` parts of one hour in `regime`."""
    p = _defect_probability(n, rng)
    defect = rng.random(n) < p
    score = p
    if regime == "miscalibrated":
        score = _sigmoid(rng.uniform(1.5, 2.5) * _logit(p) + rng.normal(0, 0.8))
    elif regime == "collapsed":
        score = _sigmoid(rng.uniform(0.1, 0.5) * _logit(p) + rng.uniform(1.0, 4.0) + rng.normal(0, 1.5, n))
    wrong = (score >= settings.call_at) != defect
    unsure = 1 - np.abs(2 * score - 1)
    strange = rng.random(n) + 0.5 * wrong + 0.3 * unsure
    return Parts(
        score=score,
        defect=defect,
        novelty=np.argsort(np.argsort(strange)) / max(n - 1, 1),
        disagreement=np.abs(score - _sigmoid(_logit(score) + rng.normal(0, 0.8, n))),
        direction=_directions(n, repeat_share=rng.uniform(*settings.repeat_share), rng=rng),
        size=rng.integers(settings.image_bytes[0], settings.image_bytes[1] + 1, n),
    )


def _directions(n: int, *, repeat_share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors [n, DIRECTION_WIDTH]; a repeat has the direction of one of the parts just before it."""
    rows = rng.normal(size=(n, DIRECTION_WIDTH))
    for index in np.flatnonzero(rng.random(n) < repeat_share):
        if index > 0:
            rows[index] = rows[index - rng.integers(1, min(int(index), REPEAT_WINDOW) + 1)]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _defect_probability(n: int, rng: np.random.Generator) -> Array:
    """Most parts clearly good, some clearly bad, some in between; the shares differ from hour to hour."""
    bad, between = rng.uniform(0.02, 0.15), rng.uniform(0.03, 0.25)
    kind = rng.random(n)
    clear_good, clear_bad, unclear = rng.beta(1, 40, n), rng.beta(30, 1.5, n), rng.beta(1.6, 1.6, n)
    return np.asarray(np.where(kind < bad, clear_bad, np.where(kind < bad + between, unclear, clear_good)))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30, 30))))


def _logit(p: Array) -> Array:
    inner = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inner / (1 - inner)))
