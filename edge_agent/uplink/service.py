"""The uplink's thread: it alone talks, so order and state need no locks; callbacks of the link only fill its inbox.

It carries what `Protocol` decides, adds heartbeat and presence, and passes commands and release hints on. Inspection
never waits for it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from edge_agent.spool.index import IndexFault
from edge_agent.spool.sample import RecordKind
from edge_agent.spool.spool import Spool
from edge_agent.uplink.presigned import PutObject, put_object
from edge_agent.uplink.protocol import Protocol, Send, Upload
from edge_agent.uplink.settings import UplinkSettings
from models.contracts import topics
from models.contracts.base import Malformed, decode
from models.contracts.control import Announce, Command
from models.contracts.telemetry import Heartbeat, Presence
from models.contracts.topics import UP_LIMIT, UP_QOS, UpKind
from models.contracts.uplink import Ack, IngestState
from models.link import Inbound, Link

log = logging.getLogger(__name__)

INBOX = 1024
TURN = 64
"""Messages sent before the inbox is looked at again."""
PUBLISH_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class UplinkStats:
    """For the heartbeat and the status page. `counts` holds events by name, such as stored, later, timeouts."""

    connected: bool
    ingest_online: bool
    credit: int
    sent_bytes: int
    resent_bytes: int
    counts: dict[str, int]


class Uplink:
    """See the module.

    Args:
        heartbeat: makes the content; called on the uplink's thread every `settings.heartbeat_s`.
        on_command, on_announce: called on the uplink's thread; must hand over and return.
        mono: seconds for time-outs; `now` is wall time, for nothing but logs and records of others.
        put: the presigned transport.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        link: Link,
        edge: str,
        settings: UplinkSettings,
        heartbeat: Callable[[], Heartbeat],
        on_command: Callable[[Command], None],
        on_announce: Callable[[Announce], None],
        now: Callable[[], datetime],
        mono: Callable[[], float],
        rng: random.Random,
        put: PutObject = put_object,
    ) -> None:
        self._spool, self._link, self._edge, self._settings = spool, link, edge, settings
        self._heartbeat, self._on_command, self._on_announce = heartbeat, on_command, on_announce
        self._now, self._mono, self._put = now, mono, put
        self._protocol = Protocol(edge=edge, store=spool, settings=settings, rng=rng)
        self._inbox: deque[Inbound | Callable[[], None]] = deque()
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="uplink", daemon=True)
        self._puts = ThreadPoolExecutor(1, thread_name_prefix="uplink-put")
        self._present = False
        self._heartbeat_at = 0.0
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        """Begin; returns at once, whether or not the broker is there."""
        self.connect()
        self._thread.start()

    def connect(self) -> None:
        """Let the link begin. Only for a caller that runs `turn` itself, on a clock of its own; else use `start`."""
        self._link.start(on_message=self._on_message, on_connection=self._on_connection)

    def stop(self, timeout: float = 5.0) -> None:
        """Say offline and stop. What is not acknowledged stays in the spool. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._link.connected:
            self._publish("state", Presence(edge=self._edge, online=False).encode(), retain=True)
        self._link.stop()
        self._puts.shutdown(wait=False, cancel_futures=True)
        self._protocol.close()

    def record(self, kind: RecordKind, key: str, payload: bytes) -> None:
        """Keep a document durably and send it until the cloud has acknowledged `key`.

        Raises:
            ValueError: too large for its topic.
            edge_agent.spool.index.IndexFault: it could not be stored; keep it and try again.
        """
        self._spool.record(kind, key, payload)
        self.nudge()

    def nudge(self) -> None:
        """There is something new in the spool. Never necessary; saves up to `settings.poll_s`."""
        self._wake.set()

    def stats(self) -> UplinkStats:
        counts = self._protocol.counts + self._counts
        return UplinkStats(
            connected=self._link.connected,
            ingest_online=self._protocol.online,
            credit=self._protocol.credit,
            sent_bytes=counts["sent_bytes"],
            resent_bytes=counts["resent_bytes"],
            counts=dict(counts),
        )

    # -- the link's thread -----------------------------------------------------------------------------------------

    def _on_message(self, message: Inbound) -> None:
        self._deliver(message)

    def _on_connection(self, connected: bool) -> None:
        self._deliver(lambda: self._connection(connected))

    def _deliver(self, event: Inbound | Callable[[], None]) -> None:
        # A message may be dropped, since the cloud's answers are asked for again; a change of connection may not.
        if isinstance(event, Inbound) and len(self._inbox) >= INBOX:
            self._counts["inbox_full"] += 1
            event.ack()
            return
        self._inbox.append(event)
        self._wake.set()

    # -- the uplink's thread ---------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                busy = self.turn()
            except Exception:
                # The outermost edge: one bad turn must not end the uplink. Nothing is lost, all state is in the spool.
                self._counts["crashed"] += 1
                log.exception("uplink_turn_failed")
                busy = False
            if not busy:
                self._wake.wait(self._settings.poll_s)

    def turn(self) -> bool:
        """Hear everything, say up to `TURN` things. True: there may be more to say at once."""
        self._hear()
        if not self._link.connected:
            return False
        self._tell_presence()
        self._tell_heartbeat()
        self._spool.tend()
        for _ in range(TURN):
            action = self._protocol.next(self._mono())
            if action is None or self._stopping.is_set():
                return False
            if isinstance(action, Upload):
                self._start_put(action)
            elif not self._send(action):
                return False
            if self._inbox:
                return True
        return True

    def _hear(self) -> None:
        while self._inbox:
            event = self._inbox.popleft()
            if isinstance(event, Inbound):
                self._receive(event)
            else:
                event()

    def _receive(self, message: Inbound) -> None:
        try:
            self._dispatch(message.topic, message.payload)
        except Malformed as fault:
            self._counts["malformed"] += 1
            log.warning("message on %s cannot be read: %s", message.topic, fault)
        finally:
            message.ack()

    def _dispatch(self, topic: str, payload: bytes) -> None:
        if topic == topics.dn(self._edge, "ack"):
            self._protocol.on_ack(decode(Ack, payload), self._mono())
        elif topic == topics.INGEST_STATE:
            self._protocol.on_ingest(decode(IngestState, payload), self._mono())
        elif topic == topics.dn(self._edge, "cmd"):
            command = decode(Command, payload)
            if command.edge == self._edge:
                self._on_command(command)
            else:
                self._counts["wrong_edge"] += 1
        elif topic.endswith("/announce"):
            self._on_announce(decode(Announce, payload))
        else:
            self._counts["stray_messages"] += 1

    def _connection(self, connected: bool) -> None:
        self._protocol.on_connection(connected, self._mono())
        self._present = False
        log.info("broker %s", "connected" if connected else "lost")

    def _send(self, send: Send) -> bool:
        if not self._publish(send.kind, send.payload):
            return False
        self._protocol.sent(send, self._mono())
        return True

    def _publish(self, kind: UpKind, payload: bytes, *, retain: bool = False) -> bool:
        topic, qos = topics.up(self._edge, kind), UP_QOS[kind]
        return self._link.publish(topic, payload, qos=qos, retain=retain, timeout=PUBLISH_TIMEOUT_S)

    def _tell_presence(self) -> None:
        if not self._present:
            presence = Presence(edge=self._edge, online=True, version=self._settings.version)
            self._present = self._publish("state", presence.encode(), retain=True)

    def _tell_heartbeat(self) -> None:
        t = self._mono()
        if t < self._heartbeat_at:
            return
        self._heartbeat_at = t + self._settings.heartbeat_s
        try:
            payload = self._heartbeat().encode()
        except IndexFault:
            self._counts["heartbeats_failed"] += 1
            log.exception("no heartbeat: the spool's books cannot be read")
            return
        if len(payload) > UP_LIMIT["hb"]:
            self._counts["heartbeats_failed"] += 1
            log.error("a heartbeat of %d bytes does not fit its topic", len(payload))
            return
        self._publish("hb", payload)

    def _start_put(self, upload: Upload) -> None:
        def work() -> None:
            try:
                self._put(upload.order, upload.image, self._settings.put_timeout_s)
                ok = True
            except OSError as fault:
                log.warning("presigned upload of %s failed: %s", upload.sid, fault)
                ok = False
            self._deliver(lambda: self._protocol.put_done(upload.sid, ok=ok, t=self._mono()))

        self._puts.submit(work)
