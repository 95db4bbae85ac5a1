"""Which samples a full spool gives up, and with what probability each of them survives.

Order: debug first; then hard and audit samples by a seeded coin; flagged and alert samples only when nothing else is
left. One round tosses for every eligible sample, so the recorded survival probabilities stay exact: the product over
rounds is the conditional inclusion probability of what is left, and weighting by its inverse stays unbiased whatever
ended the rounds. Dropping the oldest would be simpler and wrong: after an outage the oldest hard sample is as
informative as the newest, so what is redundant goes first. No I/O here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.contracts.uplink import LossReason, Priority

P_MIN, P_MAX = 0.05, 0.95
THINNED_PRIORITIES = (Priority.HARD, Priority.AUDIT)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that may go. `group` is predicted class and time bucket; `score` its hardness in 0..1."""

    sid: str
    bytes: int
    prio: Priority
    group: str
    score: float
    survive: float


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`gone`: sid, reason and rule. `survived`: sid and its new survival probability."""

    gone: list[tuple[str, LossReason, str]]
    survived: list[tuple[str, float]]


def coin(epoch: str, number: int, sid: str) -> float:
    """A uniform number in [0, 1) that anybody can recompute: SHA-256 of epoch, round and sid."""
    digest = hashlib.sha256(f"{epoch}|{number}|{sid}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def survival(candidates: Sequence[Candidate], goal: float) -> list[float]:
    """Survival probabilities in [`P_MIN`, `P_MAX`] whose expected surviving bytes come as near to `goal` as possible.

    Proportional to value: ``(0.2 + score) / sqrt(samples of the same class and hour)``.
    """
    crowd = Counter(candidate.group for candidate in candidates)
    values = [(0.2 + candidate.score) / crowd[candidate.group] ** 0.5 for candidate in candidates]

    def at(scale: float) -> list[float]:
        return [min(max(scale * value, P_MIN), P_MAX) for value in values]

    low, high = 0.0, P_MAX / min(values)
    for _ in range(40):
        middle = (low + high) / 2
        expected = sum(p * candidate.bytes for p, candidate in zip(at(middle), candidates, strict=True))
        low, high = (middle, high) if expected < goal else (low, middle)
    return at(low)


def thin(candidates: Sequence[Candidate], *, excess: int, epoch: str, number: int) -> Verdicts:
    """One round that aims to free `excess` bytes.

    Args:
        number: the round's number, part of the coin's seed; never reused within an epoch.
    """
    gone: list[tuple[str, LossReason, str]] = []
    for candidate in candidates:
        if candidate.prio is Priority.DEBUG and excess > 0:
            gone.append((candidate.sid, LossReason.EVICTED, "debug_first"))
            excess -= candidate.bytes
    if excess <= 0:
        return Verdicts(gone, [])
    eligible = [candidate for candidate in candidates if candidate.prio in THINNED_PRIORITIES]
    if not eligible:
        return Verdicts(gone + _last(candidates, excess), [])
    survived = []
    goal = sum(candidate.bytes for candidate in eligible) - excess
    for candidate, p in zip(eligible, survival(eligible, goal), strict=True):
        if coin(epoch, number, candidate.sid) < p:
            survived.append((candidate.sid, candidate.survive * p))
        else:
            gone.append((candidate.sid, LossReason.THINNED, f"coin round {number} p {p:.4f}"))
    return Verdicts(gone, survived)


def _last(candidates: Sequence[Candidate], excess: int) -> list[tuple[str, LossReason, str]]:
    gone = []
    for candidate in sorted(candidates, key=lambda c: (c.prio is Priority.ALERT, c.score)):
        if excess <= 0:
            break
        if candidate.prio in (Priority.FLAGGED, Priority.ALERT):
            gone.append((candidate.sid, LossReason.EVICTED, "flagged_last"))
            excess -= candidate.bytes
    return gone
