"""Boxes: enrol them, say how they are, and balance their accounts."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Edge, Line
from cloud.fleet import repository
from cloud.fleet.conservation import Account, settle
from cloud.fleet.schemas import AccountView, ConservationView, EdgeView, FleetView, NewEdge, Status
from cloud.http import Problem, not_found
from cloud.identity import common_name

SILENT_AFTER_US = 90_000_000
GRACE_US = 30_000_000
"""A box that reconnects within this time was never shown as offline: MQTT 3.1.1 has no will delay."""


class FleetService:
    """See the module. `ingest_numbers` gives the counters of the ingest thread of this process."""

    def __init__(
        self, *, begin: Begin, reads: Begin, now: NowUs, ingest_numbers: Callable[[], dict[str, int]] = dict
    ) -> None:
        self._begin, self._reads, self._now, self._numbers = begin, reads, now, ingest_numbers

    def enrol(self, new: NewEdge, *, actor: str) -> EdgeView:
        """Make a box known, or give it a new certificate. It stays on its line: moving it would mix two models.

        Raises:
            Problem: 404 for an unknown line, 409 when it is enrolled on another, 422 for a certificate not its own.
        """
        if new.certificate is not None:
            _check_certificate(new)
        with self._begin() as session:
            if session.get(Line, new.line) is None:
                raise not_found("line", new.line)
            edge = session.get(Edge, new.name)
            if edge is not None and edge.line != new.line:
                raise Problem(409, "other_line", f"Edge {new.name!r} is enrolled on line {edge.line!r}.")
            if edge is None:
                edge = Edge(name=new.name, line=new.line, enrolled_at=self._now())
                session.add(edge)
            edge.certificate = new.certificate or edge.certificate
            session.flush()
            audit.record(
                session, at=self._now(), actor=actor, action="edge_enrolled", subject=new.name,
                evidence={"line": new.line, "certificate": new.certificate is not None},
            )  # fmt: skip
            return self._view(edge)

    def fleet(self, line: str | None = None) -> FleetView:
        """Every box, or those of a line."""
        with self._reads() as session:
            views = [self._view(edge) for edge in repository.edges(session, line)]
        return FleetView(as_of=self._now(), edges=views, ingest=self._numbers())

    def conservation(self, line: str) -> ConservationView:
        """Whether every sample of the line's boxes is stored, pending or declared lost.

        Raises:
            Problem: 404 for an unknown line.
        """
        with self._reads() as session:
            if session.get(Line, line) is None:
                raise not_found("line", line)
            accounts = _accounts(session, repository.edges(session, line))
        return ConservationView(
            line=line, as_of=self._now(), holds=all(account.holds for account in accounts), accounts=accounts
        )

    def _view(self, edge: Edge) -> EdgeView:
        return EdgeView(
            name=edge.name, line=edge.line, status=status(edge, self._now()), seen_at=edge.seen_at,
            release=edge.release or 0, update_state=edge.update_state or "idle", epoch=edge.epoch,
            certified=edge.certificate is not None, heartbeat=edge.heartbeat or {},
        )  # fmt: skip


def status(edge: Edge, now: int) -> Status:
    """How a box is. Offline is said `GRACE_US` after it was last heard, silent when it claims to be online."""
    if edge.seen_at is None:
        return "never"
    if not edge.online and now - edge.seen_at > GRACE_US:
        return "offline"
    return "silent" if now - edge.seen_at > SILENT_AFTER_US else "online"


def _check_certificate(new: NewEdge) -> None:
    try:
        name = common_name(new.certificate or "")
    except ValueError as fault:
        raise Problem(422, "bad_certificate", f"This is no usable certificate: {fault}.") from fault
    if name != new.name:
        raise Problem(422, "wrong_name", f"The certificate speaks for {name!r}, not for {new.name!r}.")


def _accounts(session: Session, edges: list[Edge]) -> list[AccountView]:
    names = [edge.name for edge in edges]
    stored, lost = repository.stored_ranges(session, names), repository.lost_ranges(session, names)
    known = {edge.name: edge for edge in edges}
    keys = {*stored, *lost, *((edge.name, beat["epoch"]) for edge in edges if (beat := edge.heartbeat))}
    views = []
    for name, epoch in sorted(keys):
        beat = known[name].heartbeat if (known[name].heartbeat or {}).get("epoch") == epoch else {}
        pending = [(int(first), int(last)) for first, last in beat.get("pending_ranges", [])]
        listed = sum(last - first + 1 for first, last in pending)
        verdict = settle(
            Account(
                max_seq=int(beat.get("max_seq", 0)),
                stored=stored.get((name, epoch), []),
                pending=pending,
                lost=dict(lost.get((name, epoch), {})),
                unlisted=max(0, int(beat.get("pending", {}).get("n", 0)) - listed)
                if not beat.get("pending_complete", True)
                else 0,
            )
        )
        views.append(
            AccountView(
                edge=name,
                epoch=epoch,
                current=bool(beat),
                max_seq=verdict.max_seq,
                stored=verdict.stored,
                pending=verdict.pending,
                lost=verdict.lost,
                recovered=verdict.recovered,
                missing=verdict.missing,
                unlisted=verdict.unlisted,
                holds=verdict.holds,
            )
        )
    return views
