"""How this box appears at the broker: client id, subscriptions and will. The broker's ACL allows exactly these."""

from __future__ import annotations

import random

from models.contracts import topics
from models.contracts.telemetry import Presence
from models.link import Address, Will
from models.link.mqtt import MqttLink


def subscriptions(edge: str, line: str | None = None) -> list[str]:
    """Answers, commands, whether ingest is there, and hints of new releases of `line` (None: of every line)."""
    return [
        topics.dn(edge, "ack"),
        topics.dn(edge, "cmd"),
        topics.INGEST_STATE,
        topics.announce(line if line is not None else "+"),
    ]


def will(edge: str) -> Will:
    """What the broker says for a box that vanished."""
    return Will(topics.up(edge, "state"), Presence(edge=edge, online=False).encode())


def open_link(edge: str, address: Address, *, line: str | None = None, rng: random.Random | None = None) -> MqttLink:
    """The box's connection, not started yet. `edge` must be the common name of the certificate in `address`."""
    return MqttLink(address=address, client_id=edge, subscriptions=subscriptions(edge, line), will=will(edge), rng=rng)
