"""An MQTT broker inside the process: the production `Link` port for both ends, with an ACL, retained messages, wills,
and knobs for everything a real one may do to a message.

Nothing moves by itself. `deliver` carries what is waiting, on the caller's thread, so a test decides every order; with
``with broker.running():`` a thread delivers all the time, for services that have threads of their own. Like the real
link it promises at least once while connected, and nothing across a reconnect.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from models.contracts.topics import PREFIX
from models.link import Inbound, OnConnection, OnMessage, Qos, Will

Acl = Callable[[str, str, str], bool]
"""(user, "read" or "write", topic or filter) -> allowed."""


def matches(pattern: str, topic: str) -> bool:
    """MQTT 3.1.1, section 4.7: ``+`` is one level, ``#`` is the rest, and neither leads into ``$`` topics."""
    if topic.startswith("$") != pattern.startswith("$"):
        return False
    levels, parts = pattern.split("/"), topic.split("/")
    for i, level in enumerate(levels):
        if level == "#":
            return True
        if i >= len(parts) or level not in ("+", parts[i]):
            return False
    return len(levels) == len(parts)


def factory_acl(user: str, access: str, topic: str) -> bool:
    """The broker file of a plant: an edge writes its own ``up``, reads its own ``dn``, state and announcements.

    Users named ``cloud`` or ``ingest`` may do anything below the prefix.
    """
    if user in ("cloud", "ingest"):
        return topic.startswith(PREFIX)
    if access == "write":
        return topic.startswith(f"{PREFIX}/up/{user}/")
    own, shared = f"{PREFIX}/dn/{user}/", (f"{PREFIX}/state/#", f"{PREFIX}/fleet/+/announce")
    return topic.startswith(own) or any(topic == pattern or matches(pattern, topic) for pattern in shared)


@dataclass(slots=True)
class _Delivery:
    link: FakeLink
    session: int
    message: Inbound


class Broker:
    """See the module.

    Args:
        rng: decides about drop, duplicate and reorder.
        drop, duplicate, reorder: probability for each delivery; may be changed at any time.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        acl: Acl = factory_acl,
    ) -> None:
        self.rng, self.acl = rng, acl
        self.drop, self.duplicate, self.reorder = drop, duplicate, reorder
        self.down = False
        self.log: list[tuple[str, str, bytes]] = []
        self.counts: Counter[str] = Counter()
        self.retained: dict[str, bytes] = {}
        self._all: list[FakeLink] = []
        self._links: dict[str, FakeLink] = {}
        self._waiting: deque[_Delivery] = deque()
        self._lock = threading.RLock()
        self._something = threading.Condition(self._lock)

    def link(
        self, user: str, *, subscriptions: list[str], will: Will | None = None, client_id: str | None = None
    ) -> FakeLink:  # fmt: skip
        """A link for `user`, not started. A second start with the same client id takes over the first's connection."""
        link = FakeLink(self, user=user, client_id=client_id or user, subscriptions=subscriptions, will=will)
        self._all.append(link)
        return link

    # -- knobs -----------------------------------------------------------------------------------------------------

    def cut(self, user: str) -> None:
        """Break every connection of `user` without a goodbye: what is on the way is gone, the will is published."""
        with self._lock:
            for link in [link for link in self._links.values() if link.user == user]:
                self._disconnect(link, goodbye=False)

    def restore(self, user: str) -> None:
        """Let the links of `user` that want a connection have one again."""
        with self._lock:
            for link in self._all:
                if link.wanted and link.user == user:
                    self._connect(link)

    def go_down(self) -> None:
        """The broker dies: all connections break, no will is published, retained messages are lost."""
        with self._lock:
            self.down = True
            for link in list(self._links.values()):
                self._disconnect(link, goodbye=True)
            self.retained.clear()

    def come_up(self) -> None:
        """It is back, and every link that still wants to be connected reconnects."""
        with self._lock:
            self.down = False
            for link in self._all:
                if link.wanted:
                    self._connect(link)

    # -- delivery --------------------------------------------------------------------------------------------------

    def deliver(self, limit: int = 100_000) -> int:
        """Carry up to `limit` waiting messages, including those their receivers publish. Returns how many."""
        done = 0
        while done < limit and (delivery := self._take()) is not None:
            done += 1
            if delivery.link.session == delivery.session and delivery.link.connected:
                delivery.link.on_message(delivery.message)
        return done

    @contextmanager
    def running(self) -> Iterator[Broker]:
        """A thread delivers until the block ends."""
        stop = threading.Event()

        def loop() -> None:
            while not stop.is_set():
                if not self.deliver(256):
                    with self._something:
                        self._something.wait(0.02)

        thread = threading.Thread(target=loop, name="broker", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join(5.0)

    # -- for FakeLink ----------------------------------------------------------------------------------------------

    def publish(self, link: FakeLink, topic: str, payload: bytes, *, retain: bool) -> bool:
        with self._lock:
            if not self.holds(link):
                return False
            self.log.append((link.user, topic, payload))
            if not self.acl(link.user, "write", topic):
                self.counts["denied"] += 1
                return True  # MQTT 3.1.1 has no way to say no
            self._route(topic, payload, retain=retain)
            return True

    def _route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if retain:
            self.retained[topic] = payload
        for other in self._links.values():
            if any(matches(pattern, topic) for pattern in other.granted):
                self._enqueue(other, topic, payload, retained=False)

    def _enqueue(self, link: FakeLink, topic: str, payload: bytes, *, retained: bool) -> None:
        if self.rng.random() < self.drop:
            self.counts["dropped"] += 1
            return
        copies = 2 if self.rng.random() < self.duplicate else 1
        self.counts["duplicated"] += copies - 1
        for _ in range(copies):
            delivery = _Delivery(link, link.session, Inbound(topic=topic, payload=payload, retained=retained))
            if self._waiting and self.rng.random() < self.reorder:
                self.counts["reordered"] += 1
                self._waiting.insert(self.rng.randrange(len(self._waiting)), delivery)
            else:
                self._waiting.append(delivery)
        self._something.notify_all()

    def _take(self) -> _Delivery | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _connect(self, link: FakeLink) -> None:
        if self.down or link.connected:
            return
        former = self._links.get(link.client_id)
        if former is not None:
            self.counts["takeovers"] += 1
            self._disconnect(former, goodbye=False)
        link.session += 1
        link.granted = [pattern for pattern in link.subscriptions if self.acl(link.user, "read", pattern)]
        self.counts["denied"] += len(link.subscriptions) - len(link.granted)
        self._links[link.client_id] = link
        link.on_connection(True)
        for topic, payload in self.retained.items():
            if any(matches(pattern, topic) for pattern in link.granted):
                self._enqueue(link, topic, payload, retained=True)

    def _disconnect(self, link: FakeLink, *, goodbye: bool) -> None:
        if self._links.get(link.client_id) is not link:
            return
        del self._links[link.client_id]
        self._waiting = deque(delivery for delivery in self._waiting if delivery.link is not link)
        if not goodbye and link.will is not None:
            self._route(link.will.topic, link.will.payload, retain=link.will.retain)
        link.on_connection(False)

    def holds(self, link: FakeLink) -> bool:
        """Whether `link` has a connection."""
        return self._links.get(link.client_id) is link

    def start(self, link: FakeLink) -> None:
        with self._lock:
            self._connect(link)

    def stop(self, link: FakeLink) -> None:
        with self._lock:
            self._disconnect(link, goodbye=True)


class FakeLink:
    """`models.link.Link` over a `Broker`; made by `Broker.link`. `session` counts its connections."""

    def __init__(
        self, broker: Broker, *, user: str, client_id: str, subscriptions: list[str], will: Will | None
    ) -> None:
        self._broker = broker
        self.user, self.client_id, self.subscriptions, self.will = user, client_id, subscriptions, will
        self.granted: list[str] = []
        self.session = 0
        self.wanted = False
        self.refuse_publish = 0
        self.on_message: OnMessage = lambda message: None
        self.on_connection: OnConnection = lambda connected: None

    @property
    def connected(self) -> bool:
        return self._broker.holds(self)

    def start(self, *, on_message: OnMessage, on_connection: OnConnection) -> None:
        self.on_message, self.on_connection, self.wanted = on_message, on_connection, True
        self._broker.start(self)

    def publish(self, topic: str, payload: bytes, *, qos: Qos = 1, retain: bool = False, timeout: float = 0.0) -> bool:
        """As the port says; the next `refuse_publish` calls find no in-flight place."""
        if self.refuse_publish > 0:
            self.refuse_publish -= 1
            return False
        return self._broker.publish(self, topic, payload, retain=retain)

    def stop(self) -> None:
        self.wanted = False
        self._broker.stop(self)
