"""A gate in front of the line's model: who decides a part, until when, and what is answered when that is too late.

The gate sees every part. Where it is certain its verdict goes to the line at once; everything else waits for the line's
model, at most until the part's deadline, counted from the moment the frame was taken. After it the answer is UNSURE or
the gate's own verdict, as configured, and the part is marked: also a part the gate is certain of, which can be late
since one thread takes the parts in order and it may have stood behind others that waited for the line's model. Audited
parts end at the gate like any other; the line's model sees them afterwards and only the estimate of the gate's misses
hears what it said.

Both models are read once per part. Without a usable gate every part goes to the line's model; without the line's model
the gate's certain verdicts stand and everything else is UNSURE. `trouble` says so in words.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from edge_agent.cameras import Frame
from edge_agent.clock import Clock
from edge_agent.decision import Judgement, cannot_judge
from edge_agent.health import Meter
from edge_agent.look import judged, look
from edge_agent.part import InspectedPart, Stage, StageNote
from edge_agent.second_look import SecondLook, Watch
from models.contracts.sample import CannotJudge, Verdict
from models.runtime.cascade import CascadeRule, CascadeTally, Route, outcome
from models.runtime.image import Pixels
from models.runtime.inspector import Inspector, LineModel


class NoGate(StrEnum):
    """Why the gate decides nothing."""

    NOT_INSTALLED = "no release of the gate's line is installed: every part goes to the line's model"
    NO_CUTS = "the gate's release carries no cascade cuts: every part goes to the line's model"
    OTHER_CLASSES = "the gate knows classes that the line's model does not: every part goes to the line's model"


REVOKED = "release {release} of the gate's line is revoked and was removed: every part goes to the line's model"
NO_MODELS = "neither the line nor its gate has a usable release: every part is UNSURE"
OTHER_RELEASE = "the gate's cuts were calibrated against another release of the line: audits measure what they cost now"
NO_LINE_MODEL = "the line has no release: what the gate is not certain of is UNSURE"
OnLate = Literal["unsure", "gate"]


def no_gate(gate: LineModel | None, line: LineModel | None) -> NoGate | None:
    """Why this gate may not decide in front of this model, or None when it may."""
    if gate is None:
        return NoGate.NOT_INSTALLED
    if gate.manifest.cascade is None:
        return NoGate.NO_CUTS
    if line is not None:
        known = {spec.name: spec.defect for spec in line.head.classes}
        if any(known.get(spec.name) is not spec.defect for spec in gate.head.classes):
            return NoGate.OTHER_CLASSES
    return None


def trouble(gate: LineModel | None, line: LineModel | None, *, revoked: int | None = None) -> str | None:
    """What keeps the cascade from working as configured, for people; None when nothing does.

    `OTHER_RELEASE` stops nothing: the gate goes on deciding, but the limit that its cuts were picked for was shown
    against the release of the line that they name. Cuts that name none are not compared.

    Args:
        revoked: the gate's release that was removed because it is revoked.
    """
    why = no_gate(gate, line)
    if line is None:
        return NO_LINE_MODEL if why is None else NO_MODELS
    if gate is None and revoked is not None:
        return REVOKED.format(release=revoked)
    if why is not None:
        return why.value
    cuts = gate.manifest.cascade if gate is not None else None
    against = cuts.calibrated_against if cuts is not None else None
    return OTHER_RELEASE if against not in (None, line.manifest_sha) else None


@dataclass(frozen=True, slots=True)
class CascadePolicy:
    """`audit_share` 0..1 of the parts that end at the gate; `deadline_ms` from the frame's capture to the verdict."""

    audit_share: float
    deadline_ms: float
    on_late: OnLate = "unsure"


class Cascade:
    """See the module. `look`, `count` and `after` are the pipeline thread's; `counting` is the pipeline's lock.

    Args:
        hour: the tally of the hour a part belongs to; called with `counting` held.
        gate_revoked: the gate's release that was removed because it is revoked.
    """

    def __init__(
        self,
        *,
        gate: Inspector,
        line: Inspector,
        policy: CascadePolicy,
        second: SecondLook,
        gate_watch: Watch,
        hour: Callable[[datetime], CascadeTally],
        counting: threading.Lock,
        meter: Meter,
        clock: Clock,
        rng: random.Random,
        gate_revoked: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._gate_revoked = gate_revoked
        self._gate, self._line, self._policy, self._second = gate, line, policy, second
        self._gate_watch, self._hour, self._counting = gate_watch, hour, counting
        self._meter, self._clock, self._rng = meter, clock, rng
        self._total = CascadeTally()

    @property
    def trouble(self) -> str | None:
        return trouble(self._gate.current, self._line.current, revoked=self._gate_revoked())

    def total(self) -> CascadeTally:
        """A copy of the sums since the start."""
        with self._counting:
            return dataclasses.replace(self._total)

    def start(self) -> None:
        self._second.start()

    def stop(self, timeout: float) -> None:
        """After the pipeline; audited parts that were not looked at are counted as lost."""
        left = self._second.stop(timeout)
        with self._counting:
            self._total.n_audits_lost += left
            if left:
                self._hour(self._clock.now()).n_audits_lost += left

    # -- one part --------------------------------------------------------------------------------------------------

    def look(self, frame: Frame, pixels: Pixels) -> InspectedPart:
        """Decide one part; returns when its verdict is known. Waits for the line's model at most until the deadline;
        the gate's own pass is not cut short, so a part that came late, or a slow gate, is answered after it.
        """
        gate, line = self._gate.current, self._line.current  # read once: no part sees half of an update
        if gate is None or gate.manifest.cascade is None or no_gate(gate, line) is not None:
            return self._ungated(frame, pixels, line)
        first = look(gate, pixels, self._meter)
        own = judged(first, latency_ms=self._age_ms(frame))
        rule = CascadeRule(gate.manifest.cascade, self._policy.audit_share)
        routing = rule.route(own.decision.defect_score, self._rng)
        note = StageNote(Stage.GATE, line=line, gate=first, gate_judgement=own)
        if routing.verdict is not None and self._left_s(frame) <= 0:
            return self._late(frame, pixels, note, own=routing.verdict)
        if routing.verdict is not None:
            audited = routing.route is Route.AUDIT and line is not None
            note = dataclasses.replace(note, audit_probability=routing.audit_probability if audited else None)
            return InspectedPart(frame, gate, _with(own, routing.verdict), first, pixels, note)
        if line is None:
            note = dataclasses.replace(note, stage=Stage.NO_LINE_MODEL)
            return InspectedPart(frame, gate, _with(own, Verdict.UNSURE), first, pixels, note)
        return self._escalated(frame, pixels, line, note)

    def _escalated(self, frame: Frame, pixels: Pixels, line: LineModel, note: StageNote) -> InspectedPart:
        """The line's model decides, if it does in time."""
        second = self._second.ask(line, pixels, within_s=self._left_s(frame))
        if second is not None:
            note = dataclasses.replace(note, stage=Stage.LINE)
            return InspectedPart(frame, line, judged(second, latency_ms=self._age_ms(frame)), second, pixels, note)
        return self._late(frame, pixels, note, own=None)

    def _late(self, frame: Frame, pixels: Pixels, note: StageNote, *, own: Verdict | None) -> InspectedPart:
        """The configured answer. `own` is the gate's verdict where it was certain; else its thresholds give it."""
        note = dataclasses.replace(note, stage=Stage.LATE)
        first, seen = note.gate, note.gate_judgement
        if first is None or seen is None or seen.call is None:
            late = cannot_judge(CannotJudge.LATE, latency_ms=self._age_ms(frame))
            return InspectedPart(frame, note.line if first is None else first.model, late, None, pixels, note)
        verdict = own or seen.decision.verdict
        answer = _with(
            seen, verdict if self._policy.on_late == "gate" else Verdict.UNSURE, latency_ms=self._age_ms(frame)
        )
        return InspectedPart(frame, first.model, answer, first, pixels, note)

    def _ungated(self, frame: Frame, pixels: Pixels, line: LineModel | None) -> InspectedPart:
        if line is None:
            return InspectedPart(frame, None, cannot_judge(None, latency_ms=self._age_ms(frame)))
        return self._escalated(frame, pixels, line, StageNote(Stage.LINE, line=line))

    # -- after the verdict -----------------------------------------------------------------------------------------

    def count(self, part: InspectedPart) -> None:
        """Count where the part was decided. Called with `counting` held."""
        note = part.stage
        if note is None:
            return
        for tally in (self._total, self._hour(part.frame.captured_at)):
            if note.stage is Stage.GATE:
                tally.ended(part.judgement.decision.verdict)
            else:
                tally.escalated(late=note.stage is Stage.LATE)

    def after(self, part: InspectedPart) -> None:
        """The line has its verdict: show the part to who watches the gate, and begin its audit."""
        note = part.stage
        if note is None or part.pixels is None:
            return
        if note.audit_probability is not None and note.line is not None:
            self._begin_audit(part, part.pixels, note.line, note.audit_probability)
        if note.gate is not None and note.gate_judgement is not None:
            self._gate_watch.inspected(note.gate, note.gate_judgement, part.pixels)

    def _begin_audit(self, part: InspectedPart, pixels: Pixels, line: LineModel, probability: float) -> None:
        verdict, at = part.judgement.decision.verdict, part.frame.captured_at

        def lost() -> None:
            with self._counting:
                for tally in (self._total, self._hour(at)):
                    tally.n_audits_lost += 1

        def done(big: Judgement) -> None:
            if big.decision.cannot_judge is CannotJudge.BAD_SCORES:  # the model failed: it did not disagree
                lost()
                return
            found = outcome(verdict, big.decision.verdict)
            with self._counting:
                for tally in (self._total, self._hour(at)):
                    tally.audited(found, probability)

        if not self._second.audit(line, pixels, done):
            lost()

    def _age_ms(self, frame: Frame) -> float:
        return (self._clock.mono_ns() - frame.mono_ns) / 1e6

    def _left_s(self, frame: Frame) -> float:
        return (self._policy.deadline_ms - self._age_ms(frame)) / 1e3


def _with(judgement: Judgement, verdict: Verdict, *, latency_ms: float | None = None) -> Judgement:
    """The same scores and forced call under another verdict; a part without scores stays as it is."""
    if judgement.call is None:
        return judgement
    changed: dict[str, object] = {"verdict": verdict}
    if latency_ms is not None:
        changed["latency_ms"] = latency_ms
    return dataclasses.replace(judgement, decision=judgement.decision.model_copy(update=changed))
