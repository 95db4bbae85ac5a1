"""What the uplink says next. No I/O, no clock: fed with answers and time, asked for one message after another.

Order: records (losses, alerts, reports) before offers before data, so that control is never behind a slow image. While
ingest is not online nothing but heartbeat and presence is sent, and those are the service's.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Protocol as Port

from edge_agent.spool.sample import Record
from edge_agent.uplink.pace import Backoff, Silence
from edge_agent.uplink.records import Records, RecordStore
from edge_agent.uplink.samples import Samples, SampleStore
from edge_agent.uplink.settings import UplinkSettings
from models.contracts.topics import UpKind
from models.contracts.uplink import Ack, IngestState, Put

SPOKEN = 1
"""The protocol version of this program; ingest must list it."""


class Store(SampleStore, RecordStore, Port):
    """What the protocol needs of the spool."""


@dataclass(frozen=True, slots=True)
class Send:
    """Publish `payload`; then call `Protocol.sent`. Not taken by the link: forget it, it comes again."""

    kind: UpKind
    payload: bytes
    sids: tuple[str, ...] = ()
    index: int = 0
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """PUT `image` to `order.url`; then call `Protocol.put_done`."""

    order: Put
    sid: str
    image: bytes


class Protocol:
    """See the module."""

    def __init__(self, *, edge: str, store: Store, settings: UplinkSettings, rng: random.Random) -> None:
        self._edge = edge
        backoff = Backoff(base=settings.retry_base_s, cap=settings.retry_cap_s, rng=rng)
        self._silence = Silence(backoff)
        self._samples = Samples(edge=edge, store=store, settings=settings, silence=self._silence, rng=rng)
        self._records = Records(store=store, settings=settings, silence=self._silence, rng=rng)
        self._connected = False
        self._ingest: IngestState | None = None
        self._counts: Counter[str] = Counter()

    @property
    def online(self) -> bool:
        """Whether data may be sent: a connection, and an ingest that says it is there and speaks our version."""
        return self._connected and self._ingest is not None and self._ingest.online and SPOKEN in self._ingest.versions

    @property
    def credit(self) -> int:
        return self._samples.credit

    @property
    def counts(self) -> Counter[str]:
        """Events so far, by name."""
        return self._counts + self._samples.counts + self._records.counts

    def on_connection(self, connected: bool, t: float) -> None:
        if not connected:
            if self._connected:
                self._samples.connection_lost()
            # The retained state comes again with the subscription; until then ingest counts as absent.
            self._ingest = None
        self._connected = connected
        self._silence.reset()
        if connected and self._ingest is not None:
            self._restart(self._ingest, t)

    def on_ingest(self, state: IngestState, t: float) -> None:
        known = self._ingest
        self._ingest = state
        if known is None or not known.online or (known.instance, known.limits) != (state.instance, state.limits):
            self._restart(state, t)

    def _restart(self, state: IngestState, t: float) -> None:
        if state.online:
            self._silence.reset()
            self._samples.restart(state.limits, t)
            self._records.restart(t)

    def on_ack(self, ack: Ack, t: float) -> None:
        """The cloud answers. What is meant for another box is ignored and counted."""
        if ack.edge != self._edge:
            self._counts["wrong_edge"] += 1
            return
        self._silence.heard(t)
        for item in ack.items:
            self._samples.on_answer(item, ack.epoch, t)
        for answer in ack.records:
            self._records.on_answer(answer)
        if ack.credit_bytes is not None:
            self._samples.on_credit(ack.credit_bytes)

    def put_done(self, sid: str, *, ok: bool, t: float) -> None:
        self._samples.put_done(sid, ok=ok, t=t)

    def next(self, t: float) -> Send | Upload | None:
        """What to do now, or None: wait for an answer or for time to pass."""
        if not self.online:
            return None
        self._records.tick(t)
        self._samples.tick(t)
        record = self._records.next(t)
        if record is not None:
            return Send(record.kind, record.payload, record=record)
        offer = self._samples.offer(t)
        if offer is not None:
            return Send("offer", offer[0], sids=tuple(offer[1]))
        data = self._samples.data(t)
        if data is not None:
            return Send("data", data[0], sids=(data[1],), index=data[2])
        put = self._samples.put(t)
        return None if put is None else Upload(*put)

    def sent(self, send: Send, t: float) -> None:
        """The link took what `next` gave."""
        if send.record is not None:
            self._records.sent(send.record, t)
        elif send.kind == "offer":
            self._samples.offered(list(send.sids), t)
        else:
            self._samples.data_sent(send.sids[0], send.index, send.payload, t)

    def close(self) -> None:
        """Give every sample back to the spool."""
        self._samples.forget_all()
