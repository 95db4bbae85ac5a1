"""Once a second: close finished hours, save counters, take operator flags. Never in the way of a part for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from edge_agent.aggregates import PeriodLedger
from edge_agent.checkpoint import Checkpoint
from edge_agent.clock import Clock, Mint
from edge_agent.flags import FlagInbox
from edge_agent.pipeline import Pipeline
from edge_agent.selector.pace import Pace, PaceState
from edge_agent.spool.sample import RecordKind
from models.contracts.telemetry import Flag

TICK_S = 1.0
SAVE_EVERY_S = 2.0
_log = structlog.get_logger("housekeeping")


class RecordDoor(Protocol):
    """Durable records; see `edge_agent.uplink.Uplink.record`."""

    def __call__(self, kind: RecordKind, key: str, payload: bytes) -> None: ...


class Housekeeper:
    """See the module."""

    def __init__(
        self,
        *,
        edge: str,
        line: str,
        pipeline: Pipeline,
        ledger: PeriodLedger,
        pace: Pace,
        checkpoint: Checkpoint,
        flags: FlagInbox,
        record: RecordDoor,
        epoch: Callable[[], str],
        clock: Clock,
        mint: Mint,
    ) -> None:
        self._edge, self._line = edge, line
        self._pipeline, self._ledger, self._pace, self._checkpoint = pipeline, ledger, pace, checkpoint
        self._flags, self._record, self._epoch, self._clock, self._mint = flags, record, epoch, clock, mint
        self._stop = threading.Event()
        self._saved = clock.mono()
        self.faults = 0
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End and save once more. Stop the pipeline first, so that nothing is counted after."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.save()

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            try:
                self.tick()
            except Exception as fault:  # noqa: BLE001 - the thread's outermost edge: tried again in a second
                self.faults += 1
                _log.error("housekeeping failed", exc_info=fault)

    def tick(self) -> None:
        """One round.

        Raises:
            OSError, IndexFault: something could not be stored; nothing was forgotten, the next round tries again.
        """
        self._close_periods()
        if self._clock.mono() - self._saved >= SAVE_EVERY_S:
            self.save()
        self._take_flags()

    def save(self) -> None:
        """The counters, now."""
        with self._pipeline.counting:
            parts: dict[str, Any] = {"ledger": self._ledger.snapshot(), "pace": self._pace.snapshot()}
        self._checkpoint.save(parts)
        self._saved = self._clock.mono()

    def _close_periods(self) -> None:
        with self._pipeline.counting:
            due = self._ledger.due(self._clock.now(), epoch=self._epoch())
        for period, records in due:
            for aggregate in records:
                self._record("agg", aggregate.id, aggregate.encode())
            with self._pipeline.counting:
                self._ledger.closed(period)
            self.save()
            _log.info("hour closed", period=period, parts=sum(c.n for a in records for c in a.cells))

    def _take_flags(self) -> None:
        for path, request in self._flags.waiting():
            sid, now = self._pipeline.flag(request.serial), self._clock.now()
            flag = Flag(
                id=self._mint(now),
                edge=self._edge,
                line=self._line,
                sid=sid,
                serial=request.serial,
                reason=request.reason,
                claimed=request.claimed,
                flagged_at=now,
            )
            self._record("flag", flag.id, flag.encode())
            self._flags.done(path, sid=sid)
            _log.info("part flagged", serial=request.serial, sid=sid)


def restore(parts: dict[str, Any], *, ledger: PeriodLedger) -> PaceState | None:
    """Put saved counters back; returns the pace's state or None. Damaged parts are left out with a log line."""
    try:
        if "ledger" in parts:
            ledger.restore(parts["ledger"])
        return Pace.restore(parts["pace"]) if "pace" in parts else None
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        _log.error("saved counters are damaged and were not used", why=str(fault))
        return None
