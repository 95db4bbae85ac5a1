"""Ingest on a link: answers after the effect, tells the broker last, survives poison, says when it is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud.db.tables import DeadLetter, Sample
from cloud.ingest.mqtt import IngestRunner, will
from models.contracts import topics
from models.contracts.base import decode
from models.contracts.uplink import Ack, IngestLimits, IngestState
from models.link import Inbound, OnConnection, OnMessage
from tests.cloud.kit import Plant, Shot, offer, png


@dataclass
class Wire:
    """A link that records what is published; `up` plays the broker."""

    connected: bool = False
    refuse: int = 0
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)
    acked: list[str] = field(default_factory=list)
    stopped: bool = False

    def start(self, *, on_message: OnMessage, on_connection: OnConnection) -> None:
        self.on_message, self.on_connection = on_message, on_connection
        self.connect()

    def connect(self) -> None:
        self.connected = True
        self.on_connection(True)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout: float = 0.0) -> bool:
        if self.refuse > 0:
            self.refuse -= 1
            return False
        self.sent.append((topic, payload, retain))
        return True

    def stop(self) -> None:
        self.stopped = True

    def up(self, topic: str, payload: bytes) -> None:
        self.on_message(Inbound(topic, payload, retained=False, ack=lambda: self.acked.append(topic)))

    def acks(self) -> list[Ack]:
        return [decode(Ack, payload) for topic, payload, _ in self.sent if topic.endswith("/ack")]

    def states(self) -> list[bool]:
        return [
            decode(IngestState, data).online for topic, data, kept in self.sent if topic == topics.INGEST_STATE and kept
        ]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)


def runner(plant: Plant, wire: Wire) -> IngestRunner:
    return IngestRunner(
        link=wire, service=plant.service, dead_letters=plant.dead, instance="i1",
        limits=IngestLimits(unsolicited_bytes=1000),
    )  # fmt: skip


def test_a_sample_travels_and_the_broker_is_told_after_the_row(plant: Plant) -> None:
    wire, shot = Wire(), Shot(1, png(1))
    ingest = runner(plant, wire)
    ingest.start()
    until(lambda: wire.states() == [True])
    wire.up(topics.up("edge-1", "offer"), offer(shot))
    wire.up(topics.up("edge-1", "data"), shot.chunks(16_384)[0])
    until(lambda: len(wire.acked) == 2)
    assert [ack.items[0].result.value for ack in wire.acks()] == ["want", "stored"]
    assert len(plant.rows(Sample)) == 1
    ingest.stop()
    assert wire.states() == [True, False]
    assert wire.stopped


def test_poison_and_strange_topics_do_not_stop_it(plant: Plant) -> None:
    wire = Wire()
    ingest = runner(plant, wire)
    plant.service._handlers["flag"] = lambda edge, data: 1 / 0  # type: ignore[assignment,return-value]
    ingest.start()
    wire.up(topics.up("edge-1", "flag"), b"{}")
    wire.up("edgeloop/v1/up/edge-1/nonsense", b"{}")
    wire.up("somewhere/else", b"{}")
    wire.up(topics.up("edge-1", "offer"), offer(Shot(1, png(1))))
    until(lambda: len(wire.acked) == 4)
    assert len(wire.acks()) == 1
    assert sorted(letter.code for letter in plant.rows(DeadLetter)) == ["crash", "unknown_topic", "unknown_topic"]
    assert ingest.counts["crashed"] == 1
    ingest.stop()


def test_an_answer_the_link_refuses_is_given_again_when_the_edge_asks_again(plant: Plant) -> None:
    wire, shot = Wire(), Shot(1, png(1))
    ingest = runner(plant, wire)
    ingest.start()
    until(lambda: wire.states() == [True])
    wire.refuse = 1
    wire.up(topics.up("edge-1", "offer"), offer(shot))
    until(lambda: ingest.counts["answers_lost"] == 1)
    wire.up(topics.up("edge-1", "offer"), offer(shot))
    until(lambda: len(wire.acks()) == 1)
    ingest.stop()


def test_it_says_online_again_after_a_reconnect(plant: Plant) -> None:
    wire = Wire()
    ingest = runner(plant, wire)
    ingest.start()
    until(lambda: wire.states() == [True])
    wire.refuse = 2
    wire.connect()
    until(lambda: wire.states() == [True, True])
    ingest.stop()


def test_a_full_queue_drops_and_frees_the_broker(plant: Plant) -> None:
    wire = Wire()
    ingest = runner(plant, wire)
    gate = threading.Event()
    plant.service._handlers["hb"] = lambda edge, data: gate.wait(10) and None  # type: ignore[assignment,return-value,func-returns-value]
    ingest.start()
    for _ in range(600):
        wire.up(topics.up("edge-1", "hb"), b"{}")
    assert ingest.counts["dropped_full"] >= 80
    assert len(wire.acked) >= 80
    gate.set()
    until(lambda: len(wire.acked) == 600)
    ingest.stop()


def test_the_will_says_offline() -> None:
    last = will("i1")
    assert (last.topic, last.retain, decode(IngestState, last.payload).online) == (topics.INGEST_STATE, True, False)
