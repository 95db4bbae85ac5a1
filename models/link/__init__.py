"""The message link both ends use: a port, its paho implementation in `mqtt`, a fake in `simulators.broker`.

The link promises little on purpose: at least once while connected, no order across reconnects, nothing kept by the
broker. Every promise of the product rests on application acknowledgements in `models.contracts.uplink`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Qos = Literal[0, 1]


@dataclass(frozen=True, slots=True)
class Inbound:
    """A received message. `ack` tells the broker it is taken; call it after the message's effects are durable."""

    topic: str
    payload: bytes
    retained: bool
    ack: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Will:
    """Published by the broker when the connection dies without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of one identity. The certificate's common name is the user name at the broker."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is. Without `tls` the link is plain text: loopback and tests only."""

    host: str
    port: int
    tls: Tls | None = None


OnMessage = Callable[[Inbound], None]
OnConnection = Callable[[bool], None]


class Link(Protocol):
    """One connection that heals by itself. Callbacks run on the link's own thread and must not block for long."""

    @property
    def connected(self) -> bool: ...

    def start(self, *, on_message: OnMessage, on_connection: OnConnection) -> None:
        """Begin connecting and return at once; `on_connection(True)` after every (re)subscription."""
        ...

    def publish(self, topic: str, payload: bytes, *, qos: Qos = 1, retain: bool = False, timeout: float = 0.0) -> bool:
        """Hand a message to the link.

        Waits up to `timeout` seconds for a free in-flight place. True means handed over, nothing more; False means not
        connected or no place: nothing was queued.
        """
        ...

    def stop(self) -> None:
        """Say goodbye and stop. The will is not published. Idempotent."""
        ...
