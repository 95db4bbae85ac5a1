"""Heartbeats and presence: the newest word of every box, and what it gives away about a restored or cloned spool."""

from __future__ import annotations

import structlog

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Edge
from cloud.ingest import repository
from cloud.ingest.records import UnknownEdge
from cloud.ingest.rules import MAX_INT
from models.contracts.telemetry import Heartbeat, Presence

log = structlog.get_logger(__name__)


class PresenceBook:
    """Keeps `Edge` rows current. Nothing here is acknowledged: the next heartbeat makes up for a lost one."""

    def __init__(self, *, begin: Begin, now: NowUs) -> None:
        self._begin, self._now = begin, now

    def heartbeat(self, beat: Heartbeat) -> None:
        """Take the newest state of a box.

        Raises:
            UnknownEdge: it is not enrolled.
        """
        with self._begin() as session:
            edge = repository.edge_row(session, beat.edge)
            if edge is None:
                raise UnknownEdge(f"no edge {beat.edge!r}: enrol it with `edgeloop cloud edge add`")
            alarm = sequence_alarm(edge, beat)
            if alarm is not None:
                log.error("sequence_alarm", edge=beat.edge, alarm=alarm)
                audit.record(
                    session, at=self._now(), actor=f"edge:{beat.edge}", action="sequence_alarm", subject=beat.edge,
                    reason=alarm, evidence={"epoch": beat.epoch, "max_seq": beat.max_seq},
                )  # fmt: skip
            edge.online, edge.seen_at, edge.epoch = True, self._now(), beat.epoch
            edge.release, edge.update_state = min(beat.release, MAX_INT), beat.update_state[:32]
            edge.heartbeat = beat.model_dump(mode="json", exclude_none=True)

    def presence(self, presence: Presence) -> None:
        """Online or offline, as the broker tells it.

        Raises:
            UnknownEdge: it is not enrolled.
        """
        with self._begin() as session:
            edge = repository.edge_row(session, presence.edge)
            if edge is None:
                raise UnknownEdge(f"no edge {presence.edge!r}: enrol it with `edgeloop cloud edge add`")
            edge.online = presence.online
            if presence.online:
                edge.seen_at = self._now()


def sequence_alarm(edge: Edge, beat: Heartbeat) -> str | None:
    """What is wrong with the sequence numbers compared with the heartbeat before, or None."""
    before = edge.heartbeat
    if not before or before.get("epoch") != beat.epoch:
        return None
    if beat.max_seq < int(before.get("max_seq", 0)):
        return (
            f"the highest sequence number fell from {before['max_seq']} to {beat.max_seq} within one epoch: "
            "a restored or cloned box?"
        )
    return None
