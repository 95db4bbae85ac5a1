"""Keep or skip: one coin per part, its probability recorded with everything that made it.

    pi = clip(a b + (1 - a) b0 u / mean(u) c, pi_min, 1),   b0 = B / N,  b = min(b0, what is left per part left)

with audit share a, hour's budget B in samples, expected parts N, pace c (`edge_agent.selector.pace`). A near duplicate
of the last 256 uploads gets a tenth. The same coin names the stream: below the audit floor it is AUDIT, which is a
simple random sample, above it HARD. A part that cannot be judged is kept, up to a quarter of the hour's bytes; beyond
that it is thinned to the smallest probability, recorded as ever. Flagged parts are kept always and outside the budget.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.selector.memory import RecentUploads
from edge_agent.selector.pace import ENVELOPE_BYTES, Pace, Rates
from edge_agent.selector.terms import Terms
from models.contracts.sample import Selection, SelectionParts, Stratum

POLICY = "hard-audit-v1"
DUPLICATE_FACTOR = 0.1
UNJUDGED_SHARE = 0.25
SMALLEST = 1e-6
_MEAN_MEMORY = 200.0
_PRIOR_MEAN = 0.3


class Skip(StrEnum):
    """Why a part was not kept."""

    COIN = "coin"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Candidate:
    """`id` feeds the coin, `at` is unix seconds, `size` the image's bytes; `terms` is None when it was not judged."""

    id: str
    at: float
    size: int
    terms: Terms | None


@dataclass(frozen=True, slots=True)
class Kept:
    selection: Selection


@dataclass(frozen=True, slots=True)
class Skipped:
    """`pi` is the probability the part had; with reason BUDGET it had none in the end."""

    reason: Skip
    pi: float


def coin(seed: int, part_id: str) -> float:
    """A uniform number in [0, 1) that depends on nothing but seed and part."""
    digest = hashlib.sha256(f"{seed}|select|{part_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


class Selector:
    """See the module. Not thread-safe: one pipeline calls it."""

    def __init__(self, *, pace: Pace, audit_share: float, pi_min: float, seed: int) -> None:
        self.pace = pace
        self._audit_share, self._pi_min, self._seed = audit_share, pi_min, seed
        self._recent = RecentUploads()
        self._memories: dict[str, tuple[str, RecentUploads]] = {}
        self._mean, self._mean_weight = _PRIOR_MEAN, 0.0
        self.skipped = dict.fromkeys(Skip, 0)

    def set_budget(self, *, bytes_per_hour: int, audit_share: float) -> None:
        """The cloud's order, from the next part on."""
        self.pace.bytes_per_hour, self._audit_share = bytes_per_hour, audit_share

    def use_model(self, digest: str, *, stage: str = "line") -> None:
        """The next part was judged by that model; directions of another do not compare.

        Args:
            stage: models that take turns on one box (a gate and the line's model) each keep a memory of their own.
        """
        known = self._memories.get(stage)
        if known is None or known[0] != digest:
            known = self._memories[stage] = (digest, RecentUploads())
        self._recent = known[1]

    def consider(self, candidate: Candidate) -> Kept | Skipped:
        """Keep this part? The caller spools it and, once that is accepted, calls `accepted`."""
        size = candidate.size + ENVELOPE_BYTES
        rates = self.pace.arrive(candidate.at, size=size)
        draw = coin(self._seed, candidate.id)
        terms = candidate.terms
        chosen = self._unjudged(rates, draw) if terms is None else self._judged(terms, rates, draw)
        if draw >= chosen.pi_select:
            return self._skip(Skip.COIN, chosen)
        if size > self.pace.left:
            return self._skip(Skip.BUDGET, chosen)
        return Kept(chosen)

    def flagged(self, candidate: Candidate) -> Selection:
        """A part a person pointed at."""
        terms = candidate.terms or Terms()
        parts = _parts(terms, floor=1.0, pace=0.0, draw=coin(self._seed, candidate.id))
        return Selection(stratum=Stratum.FLAGGED, pi_select=1.0, policy=POLICY, parts=parts)

    def accepted(self, sid: str, candidate: Candidate, stratum: Stratum) -> None:
        """The spool has the sample: it counts against the budget and for near duplicates."""
        if stratum is not Stratum.FLAGGED:
            self.pace.spend(candidate.size + ENVELOPE_BYTES, unjudged=stratum is Stratum.CANNOT_JUDGE)
        if candidate.terms is not None and candidate.terms.direction is not None:
            self._recent.add(sid, candidate.terms.direction)

    def _skip(self, reason: Skip, chosen: Selection) -> Skipped:
        self.skipped[reason] += 1
        return Skipped(reason, chosen.pi_select)

    def _unjudged(self, rates: Rates, draw: float) -> Selection:
        spent_out = self.pace.spent_unjudged >= UNJUDGED_SHARE * self.pace.bytes_per_hour
        pi = max(min(self._pi_min, rates.least), SMALLEST) if spent_out else 1.0
        parts = _parts(Terms(), floor=pi, pace=rates.pace, draw=draw)
        return Selection(stratum=Stratum.CANNOT_JUDGE, pi_select=pi, policy=POLICY, parts=parts)

    def _judged(self, terms: Terms, rates: Rates, draw: float) -> Selection:
        hardness = terms.hardness
        floor = min(self._audit_share * min(rates.base, rates.even), 1.0)
        relative = 1.0 if hardness is None else hardness / max(self._mean, 1e-3)
        self._learn(hardness)
        pi = floor + (1 - self._audit_share) * rates.base * relative * rates.pace
        pi = min(max(pi, min(self._pi_min, rates.least)), 1.0)
        twin = None
        if terms.direction is not None:
            self._recent.observe(terms.direction)
            twin = self._recent.duplicate_of(terms.direction)
        if twin is not None:
            pi, floor = pi * DUPLICATE_FACTOR, floor * DUPLICATE_FACTOR
        pi = max(pi, SMALLEST)
        stratum = Stratum.AUDIT if draw < floor else Stratum.HARD
        parts = _parts(terms, floor=floor, pace=rates.pace, draw=draw, twin=twin)
        return Selection(stratum=stratum, pi_select=pi, policy=POLICY, parts=parts)

    def _learn(self, hardness: float | None) -> None:
        """The running mean of u, after it was used: a part's probability depends on earlier parts only."""
        if hardness is not None:
            self._mean_weight = min(self._mean_weight + 1, _MEAN_MEMORY)
            self._mean += (hardness - self._mean) / (self._mean_weight + 1)


def _parts(terms: Terms, *, floor: float, pace: float, draw: float, twin: str | None = None) -> SelectionParts:
    return SelectionParts(
        margin=terms.margin,
        novelty=terms.novelty,
        disagreement=terms.disagreement,
        u=terms.hardness,
        floor=floor,
        pace=pace,
        near_duplicate_of=twin,
        draw=draw,
    )
