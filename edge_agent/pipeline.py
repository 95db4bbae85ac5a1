"""One frame through the box: decode, inspect, decide, tell the line, select, spool. Never waits for the uplink.

Cameras offer frames to a bounded queue; one thread takes them in order. A frame that finds the queue full is answered
UNSURE at once, counted as dropped and journalled: a belt does not wait, and a part without an answer would be worse.
The line hears the verdict before anything else is done with the part.

Before the first model is installed every part is UNSURE with release 0; it is counted but cannot be sampled, since
there is no model to name in its envelope. A part that was inspected while a model is on probation is also shown to the
previous one, after its verdict went out.

On a box with a gate (`edge_agent.cascade`) two models decide; each has its own terms and memory for the selection.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from edge_agent.aggregates import PeriodLedger
from edge_agent.cameras import Frame
from edge_agent.cascade import Cascade
from edge_agent.clock import Clock
from edge_agent.decision import Judgement, cannot_judge
from edge_agent.envelope import Envelopes
from edge_agent.health import Meter
from edge_agent.look import judged, look
from edge_agent.outputs import Journal, RejectOutput
from edge_agent.part import InspectedPart, journal_row
from edge_agent.selector.rule import Candidate, Kept, Selector, Skip
from edge_agent.selector.source import TermSource
from edge_agent.selector.terms import Terms
from edge_agent.spool.sample import Accepted, NotAccepted
from edge_agent.spool.spool import Build
from models.contracts.sample import CannotJudge, Selection, Stratum
from models.contracts.uplink import Priority
from models.runtime.image import Pixels, Unreadable, decode_image
from models.runtime.inspector import Inspection, Inspector, LineModel

PRIORITIES = {
    Stratum.HARD: Priority.HARD,
    Stratum.AUDIT: Priority.AUDIT,
    Stratum.FLAGGED: Priority.FLAGGED,
    Stratum.CANNOT_JUDGE: Priority.HARD,
}
REMEMBERED_PARTS = 32
"""How far back an operator can flag a part that was not kept; their bytes stay in memory."""
_log = structlog.get_logger("pipeline")


class Put(Protocol):
    """The spool's door; see `edge_agent.spool.spool.Spool.put`."""

    def __call__(self, build: Build, image: bytes, prio: Priority) -> Accepted | NotAccepted: ...


class Watch(Protocol):
    """Who wants to see each inspected part, after its verdict: the updater, during probation."""

    def inspected(self, inspection: Inspection, judgement: Judgement, pixels: Pixels | None) -> None: ...


class Pipeline:
    """See the module."""

    def __init__(
        self,
        *,
        inspector: Inspector,
        put: Put,
        output: RejectOutput,
        journal: Journal,
        selector: Selector,
        ledger: PeriodLedger,
        envelopes: Envelopes,
        terms: TermSource,
        watch: Watch,
        judged: Callable[[str, CannotJudge | None], None],
        meter: Meter,
        clock: Clock,
        hour_s: int,
        queue_frames: int,
        cascade: Cascade | None = None,
        counting: threading.Lock | None = None,
    ) -> None:
        self._inspector, self._put, self._output, self._journal = inspector, put, output, journal
        self._selector, self._ledger, self._envelopes, self._terms = selector, ledger, envelopes, terms
        self._watch, self._judged, self._meter, self._clock, self._hour_s = watch, judged, meter, clock, hour_s
        self._frames: queue.Queue[Frame | None] = queue.Queue(maxsize=queue_frames)
        self._cascade, self._gate_terms = cascade, TermSource()
        self.counting = counting or threading.Lock()
        """Held around ledger, selector state and journal; whoever snapshots them holds it too."""
        self._recent: deque[tuple[InspectedPart, str | None]] = deque(maxlen=REMEMBERED_PARTS)
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Finish the frames already taken, then end; waits at most `timeout` seconds. Stop the cameras first."""
        if self._thread.is_alive():
            self._frames.put(None, timeout=timeout)
            self._thread.join(timeout)

    def offer(self, frame: Frame) -> None:
        """Called by cameras; returns at once."""
        try:
            self._frames.put_nowait(frame)
        except queue.Full:
            self._drop(frame)

    def room(self) -> bool:
        """Whether at most half the queue is taken. The other half is left to cameras that cannot wait."""
        return self._frames.qsize() <= self._frames.maxsize // 2

    def _drop(self, frame: Frame) -> None:
        self._meter.count("dropped_frames")
        judgement = cannot_judge(CannotJudge.LATE, latency_ms=self._age_ms(frame))
        self._signal(frame, judgement)
        _log.warning("frame dropped: the inspector is behind", camera=frame.camera, serial=frame.part.serial)
        with self.counting:
            self._book(InspectedPart(frame, self._inspector.current, judgement), kept=None, sid=None)

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            try:
                self.process(frame)
            except Exception as fault:  # noqa: BLE001 - the thread's outermost edge: the line must go on
                self._meter.count("pipeline_faults")
                _log.error("a part was not finished", serial=frame.part.serial, exc_info=fault)

    def process(self, frame: Frame) -> InspectedPart:
        """All steps for one frame, on the caller's thread."""
        part = self._look(frame)
        self._signal(frame, part.judgement)
        self._meter.count("inspected")
        self._meter.latency(self._age_ms(frame))
        reason = part.judgement.decision.cannot_judge
        if part.judgement.call is None:
            self._meter.count("unjudged")
        self._judged(frame.camera, reason)
        with self.counting:
            self._finish(part)
        if self._cascade is not None:
            self._cascade.after(part)
        elif part.inspection is not None:
            self._watch.inspected(part.inspection, part.judgement, part.pixels)
        return part

    def _look(self, frame: Frame) -> InspectedPart:
        model = self._inspector.current  # read once: no frame sees half of each model
        nothing = InspectedPart(frame, None, cannot_judge(None, latency_ms=self._age_ms(frame)))
        if model is None and self._cascade is None:
            return nothing
        try:
            pixels = decode_image(frame.data)
        except Unreadable as fault:
            _log.warning("unreadable frame", serial=frame.part.serial, detail=str(fault)[:200])
            return InspectedPart(frame, model, cannot_judge(CannotJudge.UNREADABLE, latency_ms=self._age_ms(frame)))
        if self._cascade is not None:
            return self._cascade.look(frame, pixels)
        if model is None:
            return nothing
        inspection = look(model, pixels, self._meter)
        return InspectedPart(frame, model, judged(inspection, latency_ms=self._age_ms(frame)), inspection, pixels)

    def _signal(self, frame: Frame, judgement: Judgement) -> None:
        try:
            self._output.signal(frame.part.serial, judgement.decision.verdict)
        except OSError as fault:
            self._meter.count("output_faults")
            _log.error("the line did not take a verdict", serial=frame.part.serial, detail=str(fault))

    def _finish(self, part: InspectedPart) -> None:
        if part.model is None:
            self._book(part, kept=None, sid=None)
            return
        self._selector.use_model(part.model.manifest_sha, stage="gate" if part.decided_at_gate else "line")
        candidate = self._candidate(part)
        choice = self._selector.consider(candidate)
        if isinstance(choice, Kept):
            sid = self._store(part, part.model, choice.selection, candidate)
            self._book(part, kept=choice.selection, sid=sid)
            return
        if choice.reason is Skip.BUDGET:
            self._meter.count("over_budget")
            _log.warning("hour's bytes spent: a chosen part was not kept", serial=part.frame.part.serial)
        self._book(part, kept=None, sid=None)

    def flag(self, serial: str) -> str | None:
        """An operator pointed at a recent part: the sid under which it is kept, kept now if it was not.

        None when the part is not among the last `REMEMBERED_PARTS`, was not inspected, or the spool could not take it.
        """
        with self.counting:
            for part, sid in reversed(self._recent):
                if part.frame.part.serial == serial:
                    return sid or self._keep_flagged(part)
        return None

    def _keep_flagged(self, part: InspectedPart) -> str | None:
        if part.model is None:
            return None
        candidate = self._candidate(part)
        sid = self._store(part, part.model, self._selector.flagged(candidate), candidate)
        if sid is not None:
            self._recent = deque(((p, sid if p is part else s) for p, s in self._recent), maxlen=REMEMBERED_PARTS)
        return sid

    def _candidate(self, part: InspectedPart) -> Candidate:
        frame = part.frame
        terms: Terms | None = None
        if part.inspection is not None and part.judgement.call is not None:
            source = self._gate_terms if part.decided_at_gate else self._terms
            terms = source.of(part.inspection, part.judgement.call)
        return Candidate(id=frame.id, at=frame.captured_at.timestamp(), size=len(frame.data), terms=terms)

    def _store(self, part: InspectedPart, model: LineModel, selection: Selection, candidate: Candidate) -> str | None:
        """Spool the sample; its sid, or None when the spool could not take it and has declared it lost."""
        frame = part.frame
        build = self._envelopes.builder(part, model, selection)
        answer = self._put(build, frame.data, PRIORITIES[selection.stratum])
        if isinstance(answer, NotAccepted):
            self._meter.count("not_accepted")
            return None
        self._meter.count("selected")
        self._selector.accepted(answer.sid, candidate, selection.stratum)
        return answer.sid

    def _book(self, part: InspectedPart, *, kept: Selection | None, sid: str | None) -> None:
        frame = part.frame
        self._recent.append((part, sid))
        if self._cascade is not None:
            self._cascade.count(part)
        self._ledger.add(
            part.judgement,
            at=frame.captured_at,
            camera=frame.camera,
            release=part.release,
            product=frame.part.product,
            selected=sid is not None,
        )
        self._journal.write(journal_row(part, hour_s=self._hour_s, kept=kept, sid=sid))

    def _age_ms(self, frame: Frame) -> float:
        return (self._clock.mono_ns() - frame.mono_ns) / 1e6
