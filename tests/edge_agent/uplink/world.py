"""One box and one small, strict ingest on the fake broker, on a clock that moves when told."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from edge_agent.spool import Accepted, Limits, Spool
from edge_agent.uplink import Uplink, UplinkSettings
from edge_agent.uplink.address import subscriptions, will
from models.contracts import topics
from models.contracts.base import decode, sha256_hex
from models.contracts.chunk import chunk_count, decode_chunk
from models.contracts.control import Announce, Command
from models.contracts.telemetry import Aggregate, Heartbeat, Pending
from models.contracts.uplink import (
    Ack,
    AckItem,
    IngestLimits,
    IngestState,
    Loss,
    Offer,
    OfferItem,
    Priority,
    Put,
    RecordAck,
    Result,
    bitmap_encode,
)
from models.link import Inbound
from simulators.broker import Broker
from simulators.disk import SimulatedDisk
from tests.edge_agent.spool.envelopes import EDGE, Clock, builder

KINDS = {"loss": Loss, "agg": Aggregate}


class Ingest:
    """Stores only what it has whole and whose digest is right. Its knobs are attributes."""

    def __init__(self, broker: Broker, *, limits: IngestLimits | None = None) -> None:
        self.limits = limits or IngestLimits()
        self.link = broker.link("ingest", subscriptions=[topics.ALL_UP], client_id="ingest")
        self.items: dict[str, tuple[OfferItem, str, int]] = {}
        self.held: dict[str, dict[int, bytes]] = {}
        self.stored: dict[str, bytes] = {}
        self.numbers: set[tuple[str, int]] = set()
        self.lost: set[tuple[str, int]] = set()
        self.records: Counter[str] = Counter()
        self.heartbeats: list[Heartbeat] = []
        self.states: list[bytes] = []
        self.data: list[tuple[str, int]] = []
        self.data_bytes = 0
        self.offers: list[Offer] = []
        self.answer: dict[str, AckItem] = {}
        self.answer_all: Result | None = None
        self.retry_after_s = 60
        self.credit = 1 << 20
        self.puts: str | None = None
        self.lose_acks = 0
        self.instance = 0

    def come(self) -> None:
        self.instance += 1
        if not self.link.wanted:
            self.link.start(on_message=self.on_message, on_connection=lambda connected: None)
        self.tell(online=True)

    def tell(self, *, online: bool) -> None:
        state = IngestState(online=online, instance=f"i{self.instance}", limits=self.limits)
        self.link.publish(topics.INGEST_STATE, state.encode(), retain=True)

    def on_message(self, message: Inbound) -> None:
        origin = topics.parse_up(message.topic)
        assert origin is not None
        if origin.kind == "offer":
            offer = decode(Offer, message.payload, limit=topics.UP_LIMIT["offer"])
            self.offers.append(offer)
            self.say(offer.epoch, [self.judge(offer.epoch, item) for item in offer.items])
        elif origin.kind == "data":
            self.take(message.payload)
        elif origin.kind == "hb":
            self.heartbeats.append(decode(Heartbeat, message.payload))
        elif origin.kind == "state":
            self.states.append(message.payload)
        else:
            record = decode(KINDS[origin.kind], message.payload)
            self.records[record.id] += 1
            for part in getattr(record, "ranges", []):
                self.lost.update((record.epoch, n) for n in range(part.first, part.last + 1))
            self.say(record.epoch, [], [RecordAck(id=record.id, result="stored")])

    def judge(self, epoch: str, item: OfferItem) -> AckItem:
        if item.sid in self.stored:
            return AckItem(sid=item.sid, result=Result.HAVE)
        if item.sid in self.answer:
            return self.answer[item.sid]
        if self.answer_all is not None:
            return AckItem(sid=item.sid, result=self.answer_all, retry_after_s=self.retry_after_s)
        if self.puts is not None:
            order = Put(url=f"{self.puts}/{item.sid}", expires_at=item.captured_at)
            self.items[item.sid] = (item, epoch, 0)
            return AckItem(sid=item.sid, result=Result.WANT, put=order)
        size = min(self.limits.chunk_bytes, item.max_chunk or self.limits.chunk_bytes)
        if item.sid not in self.items or self.items[item.sid][2] != size:
            self.items[item.sid], self.held[item.sid] = (item, epoch, size), {}
        bitmap = bitmap_encode(set(self.held[item.sid]), chunk_count(item.size, size))
        return AckItem(sid=item.sid, result=Result.WANT, chunks=bitmap, chunk=size)

    def take(self, payload: bytes) -> None:
        chunk = decode_chunk(payload)
        self.data.append((chunk.sid, chunk.index))
        self.data_bytes += len(chunk.data)
        if chunk.sid not in self.items or chunk.sid in self.stored:
            return
        item, epoch, size = self.items[chunk.sid]
        if chunk.size not in (size, item.size):
            return
        held = self.held[chunk.sid]
        held[chunk.index] = chunk.data
        if len(held) == chunk.count:
            self.store(item, epoch, b"".join(held[i] for i in range(chunk.count)))
            self.say(epoch, [AckItem(sid=chunk.sid, result=Result.STORED)])

    def store(self, item: OfferItem, epoch: str, image: bytes) -> None:
        assert sha256_hex(image) == item.sha256
        assert len(image) == item.size
        self.stored[item.sid] = image
        self.numbers.add((epoch, item.seq))

    def restart(self) -> None:
        """Lose what was staged, as an ingest without a durable staging area would."""
        self.items.clear()
        self.held.clear()
        self.come()

    def say(self, epoch: str, items: list[AckItem], records: list[RecordAck] | None = None, edge: str = EDGE) -> None:
        if self.lose_acks > 0:
            self.lose_acks -= 1
            return
        ack = Ack(edge=edge, epoch=epoch, items=items, records=records or [], credit_bytes=self.credit)
        self.link.publish(topics.dn(EDGE, "ack"), ack.encode())


class World:
    """The whole scene. `run` lets seconds pass in small steps."""

    def __init__(self, folder: Path, *, seed: int = 1, settings: UplinkSettings | None = None, **limits: Any) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.disk = SimulatedDisk(rng=random.Random(seed))
        self.broker = Broker(rng=random.Random(seed))
        self.ingest = Ingest(self.broker, limits=IngestLimits(**limits))
        self.folder = folder
        self.settings = settings or UplinkSettings(ack_timeout_s=5.0)
        self.commands: list[Command] = []
        self.announcements: list[Announce] = []
        self.uploads: dict[str, bytes] = {}
        self.fail_puts = 0
        self.samples: dict[str, bytes] = {}
        self.open()

    def open(self) -> None:
        self.spool = Spool(
            self.folder,
            edge=EDGE,
            fs=self.disk,
            now=self.clock.now,
            mono=self.clock.mono,
            rng=self.rng,
            limits=Limits(max_bytes=50 << 20, ballast_bytes=0, min_free_bytes=0),
        )
        self.uplink = Uplink(
            spool=self.spool,
            link=self.broker.link(EDGE, subscriptions=subscriptions(EDGE, "cells"), will=will(EDGE)),
            edge=EDGE,
            settings=self.settings,
            heartbeat=self.heartbeat,
            on_command=self.commands.append,
            on_announce=self.announcements.append,
            now=self.clock.now,
            mono=self.clock.mono,
            rng=self.rng,
            put=self.put_object,
        )
        self.uplink.connect()

    def heartbeat(self) -> Heartbeat:
        books = self.spool.account()
        return Heartbeat(
            edge=EDGE, epoch=books.epoch, sent_at=self.clock.now(), clock_ok=True, version="1", line="cells",
            max_seq=books.max_seq, pending=Pending(n=books.pending, bytes=books.pending_bytes, oldest_age_s=0),
            pending_ranges=books.ranges, inspected=0, selected=0, dropped_frames=0, release=1, disk_free=1,
        )  # fmt: skip

    def put_object(self, order: Put, image: bytes, timeout: float) -> None:
        if self.fail_puts > 0:
            self.fail_puts -= 1
            raise OSError("403")
        self.uploads[order.url] = image

    def put(self, size: int, prio: Priority = Priority.HARD) -> str:
        image = self.rng.randbytes(size)
        answer = self.spool.put(builder(image, self.rng), image, prio)
        assert isinstance(answer, Accepted)
        self.samples[answer.sid] = image
        return answer.sid

    def run(self, seconds: float, *, step: float = 0.25) -> None:
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            for _ in range(50):
                busy = self.uplink.turn()
                if not self.broker.deliver() and not busy:
                    break
            self.clock.seconds += step

    @property
    def pending(self) -> int:
        return self.spool.account().pending

    def close(self) -> None:
        self.uplink.stop()
        self.spool.close()
