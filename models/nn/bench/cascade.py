"""How much faster a box is with a gate: both models on real frames, the cascade and the big model alone in turns.

    speed-up over the big model alone  >=  0.8 / (t_gate / t_big + escalation + audit)

with the shares as they came out. A part in ten and one in fifty cannot be had from arbitrary models, so the bench sets
the gate's cuts by the quantiles of its own scores, and draws the audited parts; what is measured is time, not quality.
Blocks of the cascade alternate with frames of the big model alone, so that a neighbour on the machine slows both.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.runtime.base import Base, SessionLimits
from models.runtime.bundle import Bundle, open_base, read_base
from models.runtime.cascade import CascadeRule, Route
from models.runtime.cascade_fit import cuts_for
from models.runtime.image import Pixels
from models.runtime.inspector import LineModel, inspect, load_model
from models.runtime.preprocess import preprocess

SHARE_OF_IDEAL = 0.8
BLOCKS = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """How many parts, which shares of them, and threads of each model."""

    parts: int
    escalation: float
    audit: float
    threads: int


@dataclass(frozen=True, slots=True)
class Found:
    """Milliseconds a part of gate and big model alone (means), seconds of the cascade, and the shares as counted."""

    parts: int
    threads: int
    gate_ms: float
    big_ms: float
    cascade_s: float
    escalated: int
    audited: int
    gate_preset: str
    big_preset: str
    gate_pretrained: str
    big_pretrained: str

    @property
    def speedup(self) -> float:
        """Parts per second of the cascade over those of the big model alone."""
        return self.parts * self.big_ms / 1e3 / self.cascade_s

    @property
    def target(self) -> float:
        """See the module."""
        shares = (self.escalated + self.audited) / self.parts
        return SHARE_OF_IDEAL / (self.gate_ms / self.big_ms + shares)


def passes(found: Found) -> bool:
    return found.speedup >= found.target


def measure(
    gate: Bundle, big: Path, images: Sequence[Pixels], wish: Wish, *, say: Callable[[str], None] = lambda text: None
) -> Found:
    """The bench. `big` is the folder of a base or of a trained model: its head's time is nothing beside its trunk's."""
    limits = SessionLimits(threads=wish.threads)
    first = _line_model(gate, limits)
    manifest, files = read_base(big)
    base = open_base(manifest, files, limits=limits)
    frames = list(itertools.islice(itertools.cycle(images), wish.parts))
    say("scoring the parts with the gate")
    rule = _rule(np.array([_score(first, frame) for frame in frames]), first, wish)
    look(base, frames[0])
    say("measuring, the cascade and the big model alone in turns")
    return _timed(first, base, frames, rule=rule, threads=wish.threads)


def _timed(gate: LineModel, big: Base, frames: Sequence[Pixels], *, rule: CascadeRule, threads: int) -> Found:
    rng = random.Random(0)
    gate_s, big_s, routes, cascade_s = [], [], [], 0.0
    for block in np.array_split(np.arange(len(frames)), BLOCKS):
        gate_s += [_clocked(lambda f=frames[i]: inspect(gate, f)) for i in block]
        big_s.append(_clocked(lambda f=frames[block[0]]: look(big, f)))
        for i in block:
            start = time.perf_counter()
            routes.append(_one(gate, big, frames[i], rule, rng))
            cascade_s += time.perf_counter() - start
        big_s.append(_clocked(lambda f=frames[block[-1]]: look(big, f)))
    return Found(
        parts=len(frames), threads=threads, gate_ms=1e3 * float(np.mean(gate_s)),
        big_ms=1e3 * float(np.mean(big_s)), cascade_s=cascade_s,
        escalated=routes.count(Route.ESCALATE), audited=routes.count(Route.AUDIT),
        gate_preset=gate.base.manifest.preset, big_preset=big.manifest.preset,
        gate_pretrained=gate.base.manifest.pretrained, big_pretrained=big.manifest.pretrained,
    )  # fmt: skip


def _one(gate: LineModel, big: Base, frame: Pixels, rule: CascadeRule, rng: random.Random) -> Route:
    """One part through the cascade."""
    routing = rule.route(_score(gate, frame), rng)
    if routing.route is not Route.END_AT_GATE:
        look(big, frame)
    return routing.route


def _rule(scores: np.ndarray, gate: LineModel, wish: Wish) -> CascadeRule:
    """Cuts for the share of escalated parts; the audit share is of those that end at the gate."""
    cuts = cuts_for(scores.astype(np.float64), escalation=wish.escalation, call_at=gate.thresholds.call_at)
    rest = 1 - wish.escalation
    return CascadeRule(cuts, audit_share=min(wish.audit / rest, 1.0) if rest > 0 else 0.0)


def look(base: Base, frame: Pixels) -> None:
    """Everything but the head."""
    base.embed(base.tokens(preprocess(frame, base.manifest.preprocessing)), {})


def _score(model: LineModel, frame: Pixels) -> float:
    found = inspect(model, frame).probabilities
    return float("nan") if found is None else min(float(found[model.head.defect_mask].sum()), 1.0)


def _clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _line_model(bundle: Bundle, limits: SessionLimits) -> LineModel:
    base = open_base(bundle.base, bundle.files, limits=limits)
    return load_model(base, bundle.adapter, base_sha=bundle.base.digest(), blobs=dict(bundle.blobs), release=1)
