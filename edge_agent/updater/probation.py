"""Is the new model fit to stay? Judged on real parts while the old one is still loaded. Pure but for `shadow`.

Three limits of the release's probe: parts it could not judge, parts on which its forced call differs from the previous
model's, and the 95th percentile of its latency. The first two end the trial as soon as they cannot be met any more. A
part that the previous model could not judge either, or that is too dark for any model, is not held against the new one.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.decision import Judgement, decide
from models.contracts.release_manifest import Probe
from models.contracts.sample import CannotJudge
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, LineModel, inspect

_MODELS_OWN_FAULT = frozenset({CannotJudge.BAD_SCORES, CannotJudge.WRONG_SIZE})


@dataclass(frozen=True, slots=True)
class Passed:
    parts: int


@dataclass(frozen=True, slots=True)
class Failed:
    """`why` names the limit and what was measured."""

    parts: int
    why: str


class Probation:
    """Counts parts against a probe. After a result it is done."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.parts = self._unjudged = self._differing = 0
        self._latencies: list[float] = []

    def start(self) -> Passed | None:
        """A probe of no parts is passed at once."""
        return Passed(0) if self._probe.probation_parts == 0 else None

    def add(self, new: Judgement, old: Judgement | None, *, latency_ms: float) -> Passed | Failed | None:
        """One part seen by both; `old` is None when there is no previous model.

        Args:
            latency_ms: of the new model alone.
        """
        self.parts += 1
        self._latencies.append(latency_ms)
        self._unjudged += _blamed(new, old)
        self._differing += new.call is not None and old is not None and old.call is not None and (
            new.call.defect != old.call.defect
        )  # fmt: skip
        fault = self._beyond()
        if fault is not None:
            return Failed(self.parts, fault)
        if self.parts < self._probe.probation_parts:
            return None
        slow = self._slow()
        return Passed(self.parts) if slow is None else Failed(self.parts, slow)

    def _beyond(self) -> str | None:
        probe, of = self._probe, max(self._probe.probation_parts, 1)
        if self._unjudged > probe.max_unjudged * of:
            return f"could not judge {self._unjudged} parts; {probe.max_unjudged:.0%} of {of} allowed"
        limit = probe.max_disagreement
        if limit is not None and self._differing > limit * of:
            return f"differs from the previous model on {self._differing} parts; {limit:.0%} of {of} allowed"
        return None

    def _slow(self) -> str | None:
        limit = self._probe.latency_p95_ms
        if limit is None:
            return None
        ordered = sorted(self._latencies)
        p95 = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
        return f"latency p95 is {p95:.1f} ms, {limit:.1f} allowed" if p95 > limit else None


def _blamed(new: Judgement, old: Judgement | None) -> bool:
    reason = new.decision.cannot_judge
    if new.call is not None or reason is None:
        return False
    if old is None:
        return reason in _MODELS_OWN_FAULT
    return old.call is not None


def shadow(previous: LineModel, inspection: Inspection, pixels: Pixels) -> Judgement:
    """What the previous model says of the same frame; its image tokens are reused when base and region are the same."""
    model = inspection.model
    same_view = previous.base is model.base and previous.manifest.roi == model.manifest.roi
    if same_view and inspection.tokens is not None:
        embedding = previous.base.embed(inspection.tokens, previous.lora).embedding
        probabilities, reason = previous.head.probabilities(embedding)[0], None
    else:
        again = inspect(previous, pixels)
        if again.probabilities is None:
            return decide(None, classes=previous.head.classes, thresholds=previous.thresholds, reason=again.reason,
                          latency_ms=again.latency_ms)  # fmt: skip
        probabilities, reason = again.probabilities, again.reason
    return decide(
        probabilities, classes=previous.head.classes, thresholds=previous.thresholds, reason=reason, latency_ms=0.0
    )
