"""Signed reports with a counter that only grows, handed to the spool so that they outlive a broken link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge_agent.clock import Clock, Mint
from edge_agent.plain import plain
from edge_agent.updater.slots import SlotStore
from models.contracts.control import DeviceReport, ReportReason, SignedReport, UpdateState


class Signer(Protocol):
    """The box's identity; see `edge_agent.identity.Identity`."""

    edge: str

    def sign_report(self, report: DeviceReport) -> SignedReport: ...


Send = Callable[[SignedReport], None]


class Reporter:
    """Says what this box runs and how updates ended."""

    def __init__(self, *, line: str, store: SlotStore, signer: Signer, send: Send, clock: Clock, mint: Mint) -> None:
        self._line, self._store, self._signer, self._send = line, store, signer, send
        self._clock, self._mint = clock, mint

    def say(
        self,
        state: UpdateState,
        *,
        attempted: int | None = None,
        reason: ReportReason | None = None,
        detail: object = None,
        pause_ms: float | None = None,
        parts: int | None = None,
    ) -> DeviceReport:
        """Sign and send. The counter is on disk before the report exists, so a crash never repeats a number.

        Raises:
            OSError: the counter could not be stored; nothing was sent.
        """
        now = self._clock.now()
        slots = self._store.now
        # Bounded below by the clock: a box that lost its state still counts beyond what the cloud has seen.
        slots = self._store.change(counter=max(slots.counter + 1, int(now.timestamp() * 1000)))
        report = DeviceReport(
            id=self._mint(now),
            edge=self._signer.edge,
            line=self._line,
            counter=slots.counter,
            state=state,
            release=slots.current.release if slots.current else 0,
            attempted=attempted,
            loaded=slots.current.adapter if slots.current else None,
            previous=slots.previous.release if slots.previous else None,
            reason=reason,
            detail=plain(detail) if detail is not None else None,
            attempt=slots.attempt,
            swap_pause_ms=pause_ms,
            parts_in_probation=parts,
            sent_at=now,
        )
        self._send(self._signer.sign_report(report))
        return report
