"""Ingest on the message link: one thread takes messages in order, answers, and only then tells the broker.

Presence of ingest is a retained message with an offline will: edges send data only while it says online.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter

import structlog

from cloud.ingest.dead_letters import DeadLetters
from cloud.ingest.service import IngestService
from models.contracts import topics
from models.contracts.uplink import IngestLimits, IngestState
from models.link import Inbound, Link, Will

QUEUE = 512
PUBLISH_TIMEOUT_S = 5.0
log = structlog.get_logger(__name__)


def will(instance: str) -> Will:
    """What the broker says for ingest when the connection dies."""
    return Will(topics.INGEST_STATE, IngestState(online=False, instance=instance).encode())


class IngestRunner:
    """Binds the service to a link. `start` returns at once; `stop` finishes the message in hand."""

    def __init__(
        self, *, link: Link, service: IngestService, dead_letters: DeadLetters, instance: str, limits: IngestLimits
    ) -> None:
        self._link, self._service, self._dead = link, service, dead_letters
        self._instance, self._limits = instance, limits
        self._waiting: queue.Queue[Inbound | None] = queue.Queue(QUEUE)
        self._announce = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="ingest", daemon=True)
        self.counts: Counter[str] = Counter()

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._link.connected

    def start(self) -> None:
        """Take up staged uploads, then connect and begin to receive."""
        self._service.start()
        self._thread.start()
        self._link.start(on_message=self._on_message, on_connection=self._on_connection)

    def stop(self, timeout: float = 10.0) -> None:
        """Say offline, end the message in hand, disconnect."""
        if self._link.connected:
            self._publish_state(online=False)
        self._waiting.put(None)
        self._thread.join(timeout)
        self._link.stop()

    def _on_message(self, message: Inbound) -> None:
        """Called on the link's thread. A full queue drops: the edge repeats whatever is not acknowledged."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self.counts["dropped_full"] += 1
            message.ack()

    def _on_connection(self, connected: bool) -> None:
        if connected:
            self._announce.set()
        log.info("broker", connected=connected)

    def _loop(self) -> None:
        while True:
            if self._announce.is_set() and self._publish_state(online=True):
                self._announce.clear()
            try:
                message = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            if message is None:
                return
            self._handle(message)

    def _handle(self, message: Inbound) -> None:
        try:
            reply = self._service.receive(message.topic, message.payload)
        except Exception as fault:
            self.counts["crashed"] += 1
            log.exception("ingest_crashed", topic=message.topic[:256])
            self._dead.add(
                topic=message.topic, edge=None, code="crash", detail=f"{type(fault).__name__}: {fault}",
                payload=message.payload,
            )  # fmt: skip
            reply = None
        if reply is not None and not self._link.publish(reply.topic, reply.payload, timeout=PUBLISH_TIMEOUT_S):
            self.counts["answers_lost"] += 1  # the edge asks again
        message.ack()

    def _publish_state(self, *, online: bool) -> bool:
        state = IngestState(online=online, instance=self._instance, limits=self._limits)
        return self._link.publish(topics.INGEST_STATE, state.encode(), retain=True, timeout=PUBLISH_TIMEOUT_S)
