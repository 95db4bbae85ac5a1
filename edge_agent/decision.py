"""Scores and thresholds to a verdict. Pure and total: every inspection has a decision, none raises.

Two things are decided. The *verdict* is what the line does: PASS below `pass_below`, REJECT from `reject_above`,
UNSURE between and whenever the frame cannot be judged. The *forced call* is by what accuracy is counted when a part
was UNSURE: defect iff the defect score reaches `call_at`, and `predicted` is the most probable class on that side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contracts.model_manifest import ClassSpec, Thresholds
from models.contracts.sample import CannotJudge, Decision, Verdict


@dataclass(frozen=True, slots=True)
class Call:
    """The forced call. `g` is the calibrated probability that it is right; `margin` top class minus runner-up."""

    defect: bool
    predicted: str
    g: float
    margin: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """`call` is None exactly when the part could not be judged."""

    decision: Decision
    call: Call | None


def cannot_judge(reason: CannotJudge | None, *, latency_ms: float) -> Judgement:
    """UNSURE without scores; `reason` is None only when the box has no model yet."""
    decision = Decision(verdict=Verdict.UNSURE, cannot_judge=reason, latency_ms=_finite(latency_ms))
    return Judgement(decision=decision, call=None)


def decide(
    probabilities: NDArray[np.float32] | None,
    *,
    classes: list[ClassSpec],
    thresholds: Thresholds,
    reason: CannotJudge | None,
    latency_ms: float,
) -> Judgement:
    """The verdict and the forced call.

    Args:
        probabilities: calibrated, one per class, or None when the frame was not judged.
        reason: why it was not judged; scores that are unusable give BAD_SCORES by themselves.
    """
    if reason is not None or probabilities is None:
        return cannot_judge(reason or CannotJudge.BAD_SCORES, latency_ms=latency_ms)
    scores = _usable(probabilities, len(classes))
    if scores is None:
        return cannot_judge(CannotJudge.BAD_SCORES, latency_ms=latency_ms)
    defects = np.array([spec.defect for spec in classes])
    defect_score = float(min(scores[defects].sum(), 1.0))
    call = _call(scores, defects, classes, defect=defect_score >= thresholds.call_at, defect_score=defect_score)
    decision = Decision(
        verdict=_verdict(defect_score, thresholds),
        predicted=call.predicted,
        confidence=float(scores.max()),
        defect_score=defect_score,
        scores={spec.name: float(p) for spec, p in zip(classes, scores, strict=True)},
        latency_ms=_finite(latency_ms),
    )
    return Judgement(decision=decision, call=call)


def _usable(probabilities: NDArray[np.float32], classes: int) -> NDArray[np.float64] | None:
    """Finite, one per class, none outside 0..1 by more than rounding, and a sum that can be scaled to 1."""
    scores = np.asarray(probabilities, dtype=np.float64).ravel()
    if scores.shape != (classes,) or not np.isfinite(scores).all():
        return None
    if scores.min() < -1e-4 or not 0.99 < scores.sum() < 1.01:
        return None
    scores = np.clip(scores, 0.0, 1.0)
    return np.asarray(np.minimum(scores / scores.sum(), 1.0), dtype=np.float64)


def _verdict(defect_score: float, thresholds: Thresholds) -> Verdict:
    if defect_score >= thresholds.reject_above:
        return Verdict.REJECT
    return Verdict.PASS if defect_score < thresholds.pass_below else Verdict.UNSURE


def _call(
    scores: NDArray[np.float64],
    defects: NDArray[np.bool_],
    classes: list[ClassSpec],
    *,
    defect: bool,
    defect_score: float,
) -> Call:
    side = np.flatnonzero(defects == defect)
    best = int(side[scores[side].argmax()])
    top, second = np.sort(scores)[::-1][:2]
    return Call(
        defect=defect,
        predicted=classes[best].name,
        g=defect_score if defect else 1.0 - defect_score,
        margin=float(min(max(top - second, 0.0), 1.0)),
    )


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0
