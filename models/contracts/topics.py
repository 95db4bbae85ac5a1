"""MQTT topics. One place builds them and one place reads them, so an ACL pattern covers them all.

Broker ACL, with the certificate's common name as user name: write ``edgeloop/v1/up/%u/#``, read
``edgeloop/v1/dn/%u/#``, and for every edge read-only ``edgeloop/v1/state/#`` and ``edgeloop/v1/fleet/+/announce``.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

PREFIX = "edgeloop/v1"
INGEST_STATE = f"{PREFIX}/state/ingest"
ALL_UP = f"{PREFIX}/up/+/+"

UpKind = Literal["offer", "data", "loss", "hb", "state", "report", "flag", "agg"]
DownKind = Literal["cmd", "ack"]

UP_QOS: dict[UpKind, Literal[0, 1]] = {
    "offer": 1, "data": 1, "loss": 1, "hb": 0, "state": 1, "report": 1, "flag": 1, "agg": 1,
}  # fmt: skip
UP_LIMIT: dict[UpKind, int] = {
    "offer": 32 << 10, "data": 128 << 10, "loss": 32 << 10, "hb": 16 << 10,
    "state": 4 << 10, "report": 16 << 10, "flag": 4 << 10, "agg": 64 << 10,
}  # fmt: skip
"""Largest payload per kind, bytes. A larger one is a dead letter."""

_UP = re.compile(rf"{PREFIX}/up/([a-z0-9-]{{1,64}})/([a-z]+)")


class Up(NamedTuple):
    edge: str
    kind: UpKind


def up(edge: str, kind: UpKind) -> str:
    """Topic on which `edge` sends `kind`."""
    return f"{PREFIX}/up/{edge}/{kind}"


def dn(edge: str, kind: DownKind) -> str:
    """Topic on which the cloud sends `kind` to `edge`."""
    return f"{PREFIX}/dn/{edge}/{kind}"


def announce(line: str) -> str:
    """Retained hint that a release exists for `line`."""
    return f"{PREFIX}/fleet/{line}/announce"


def parse_up(topic: str) -> Up | None:
    """Who sent what, or None for a topic that is none of ours."""
    match = _UP.fullmatch(topic)
    if match is None or match[2] not in get_args(UpKind):
        return None
    return Up(match[1], match[2])  # type: ignore[arg-type]
