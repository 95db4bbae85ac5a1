"""The thread that runs the big model: parts whose verdict waits first, audited parts when none does.

`ask` waits for an answer at most as long as it is told. A part that nobody waits for any more is not begun; one that
is under way is finished, since a session cannot be left in the middle. Audited parts wait in a short queue; one that
finds it full is lost to the estimate. That is not chosen by what the big model would have said, but it is not
independent of it either: many escalations fill the box, busy hours are hard hours, and lost audits thin out just
those. The number of lost audits shows how far the estimate can be trusted.

Whoever watches the big model (the updater, during probation) sees every inspection made here, late ones too: a model
too slow for the line must fail its probation. The watch runs on this thread, after the answer was handed over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from edge_agent.decision import Judgement
from edge_agent.health import Meter
from edge_agent.look import judged, look
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, LineModel

AUDIT_QUEUE = 8
"""Audited parts that may wait; their pixels stay in memory."""
_log = structlog.get_logger("cascade")


class Watch(Protocol):
    """Who wants to see each inspection: the updater, during probation."""

    def inspected(self, inspection: Inspection, judgement: Judgement, pixels: Pixels | None) -> None: ...


@dataclass(eq=False, slots=True)
class _Asked:
    model: LineModel
    pixels: Pixels
    answer: Inspection | None = None
    ready: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Audit:
    model: LineModel
    pixels: Pixels
    done: Callable[[Judgement], None]


class SecondLook:
    """See the module."""

    def __init__(self, *, meter: Meter, watch: Watch) -> None:
        self._meter, self._watch = meter, watch
        self._changed = threading.Condition()
        self._asked: deque[_Asked] = deque()
        self._audits: deque[_Audit] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="second-look", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> int:
        """End after the inspection under way; returns how many audited parts were not looked at. Stop callers first."""
        with self._changed:
            self._stopping = True
            left = len(self._audits)
            self._audits.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return left

    def ask(self, model: LineModel, pixels: Pixels, *, within_s: float) -> Inspection | None:
        """The model's answer, or None when it does not come within that time; at once for a time of 0 or less."""
        if within_s <= 0:
            return None
        asked = _Asked(model, pixels)
        with self._changed:
            self._asked.append(asked)
            self._changed.notify()
        if not asked.ready.wait(within_s):
            with self._changed:
                if asked in self._asked:
                    self._asked.remove(asked)
        return asked.answer

    def audit(self, model: LineModel, pixels: Pixels, done: Callable[[Judgement], None]) -> bool:
        """Look when there is time and tell `done`, on this object's thread; False when the queue is full."""
        with self._changed:
            if len(self._audits) >= AUDIT_QUEUE or self._stopping:
                return False
            self._audits.append(_Audit(model, pixels, done))
            self._changed.notify()
            return True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except Exception as fault:  # noqa: BLE001 - the thread's outermost edge: the next part needs it
                self._meter.count("pipeline_faults")
                _log.error("a second look was not finished", exc_info=fault)

    def _next(self) -> _Asked | _Audit | None:
        with self._changed:
            while True:
                if self._asked:
                    return self._asked.popleft()
                if self._audits:
                    return self._audits.popleft()
                if self._stopping:
                    return None
                self._changed.wait()

    def _do(self, job: _Asked | _Audit) -> None:
        inspection = look(job.model, job.pixels, self._meter)
        judgement = judged(inspection, latency_ms=inspection.latency_ms)
        if isinstance(job, _Asked):
            job.answer = inspection
            job.ready.set()
        else:
            job.done(judgement)
        self._watch.inspected(inspection, judgement, job.pixels)
