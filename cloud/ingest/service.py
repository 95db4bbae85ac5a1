"""One message in, at most one answer out, whatever the transport: reads, checks who says it, hands it to its handler.

Rules: the edge in the topic (which the broker bound to the certificate) must be the edge in the payload; what cannot be
read is a dead letter; a database or disk that is away makes the answer `later`, never a lost sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from cloud.ingest.dead_letters import DeadLetters
from cloud.ingest.presence import PresenceBook
from cloud.ingest.records import NO_EPOCH, Records, UnknownEdge
from cloud.ingest.rules import ReadOffer, read_items
from cloud.ingest.uploads import Uploads
from models.contracts import topics
from models.contracts.base import Malformed, decode, parse_as, parse_json
from models.contracts.chunk import ChecksumMismatch, UnknownVersion, decode_chunk
from models.contracts.control import SignedReport
from models.contracts.telemetry import Aggregate, Flag, Heartbeat, Presence
from models.contracts.uplink import MAX_OFFER_ITEMS, Ack, Loss, Offer, RecordAck

log = structlog.get_logger(__name__)
AWAY = (OperationalError, InterfaceError, OSError)


class Reply(NamedTuple):
    """What to publish."""

    topic: str
    payload: bytes


class WrongSender(ValueError):
    """The payload speaks for another edge than the topic."""


class IngestService:
    """See the module. One thread calls `receive`."""

    def __init__(
        self, *, uploads: Uploads, records: Records, presence: PresenceBook, dead_letters: DeadLetters
    ) -> None:
        self._uploads, self._dead = uploads, dead_letters
        self.counts: Counter[str] = Counter()
        self._handlers: dict[str, Callable[[str, bytes], Ack | None]] = {
            "offer": self._offer,
            "data": self._data,
            "loss": lambda edge, data: records.loss(_of(edge, decode(Loss, data))),
            "agg": lambda edge, data: records.aggregate(_of(edge, decode(Aggregate, data))),
            "flag": lambda edge, data: records.flag(_of(edge, decode(Flag, data))),
            "report": lambda edge, data: records.report(_of(edge, decode(SignedReport, data))),
            "hb": lambda edge, data: presence.heartbeat(_of(edge, decode(Heartbeat, data))),
            "state": lambda edge, data: presence.presence(_of(edge, decode(Presence, data))),
        }

    def start(self) -> None:
        """Take up what was under way before a restart."""
        self._uploads.restore()

    def receive(self, topic: str, payload: bytes) -> Reply | None:
        """Handle one message. Returns only after its effects are durable, so the answer may be sent."""
        sender = topics.parse_up(topic)
        if sender is None:
            self._dead.add(topic=topic, edge=None, code="unknown_topic", detail="no such topic", payload=payload)
            return None
        self.counts[sender.kind] += 1
        answer = self._answer(topic, sender, payload)
        return Reply(topics.dn(sender.edge, "ack"), answer.encode()) if answer is not None else None

    def numbers(self) -> dict[str, int]:
        """Counters since the start, for the health page."""
        dead = {f"dead_{code}": n for code, n in self._dead.counts.items()}
        return dict(self.counts) | dict(self._uploads.counts) | dead

    def _answer(self, topic: str, sender: topics.Up, payload: bytes) -> Ack | None:
        try:
            _check_size(sender.kind, payload)
            return self._handlers[sender.kind](sender.edge, payload)
        except Malformed as fault:
            self._dead.add(topic=topic, edge=sender.edge, code=_code(fault), detail=str(fault), payload=payload)
            return _refused_record(sender, payload)
        except WrongSender as fault:
            self._dead.add(topic=topic, edge=sender.edge, code="wrong_edge", detail=str(fault), payload=payload)
        except UnknownEdge as fault:
            self.counts["unknown_edge"] += 1
            self._dead.add(topic=topic, edge=sender.edge, code="unknown_edge", detail=str(fault), payload=b"")
        except AWAY as fault:
            self.counts["away"] += 1
            log.warning("ingest_away", kind=sender.kind, edge=sender.edge, error=str(fault)[:300])
            return self._later(sender, payload)
        return None

    def _offer(self, edge: str, payload: bytes) -> Ack:
        return self._uploads.offer(_read_offer(edge, payload))

    def _data(self, edge: str, payload: bytes) -> Ack | None:
        return self._uploads.chunk(edge, decode_chunk(payload))

    def _later(self, sender: topics.Up, payload: bytes) -> Ack | None:
        """The answer while the database or the disk is away; records are simply not answered, and come again."""
        detail = "the cloud cannot write at the moment"
        if sender.kind == "offer":
            offer = _read_offer(sender.edge, payload)
            sids = [item.sid for item in offer.items]
            return self._uploads.later(sender.edge, offer.epoch, sids, code="busy", detail=detail)
        if sender.kind == "data":
            sid = decode_chunk(payload).sid
            return self._uploads.later(sender.edge, NO_EPOCH, [sid], code="busy", detail=detail)
        return None


def _check_size(kind: topics.UpKind, payload: bytes) -> None:
    if len(payload) > topics.UP_LIMIT[kind]:
        raise Malformed(f"{len(payload)} bytes; at most {topics.UP_LIMIT[kind]} on {kind}")


def _of(edge: str, message: Any) -> Any:
    if message.edge != edge:
        raise WrongSender(f"edge {edge!r} sent a message that speaks for {message.edge!r}")
    return message


def _read_offer(edge: str, payload: bytes) -> ReadOffer:
    """The offer with its bad items apart.

    Raises:
        Malformed: it is no offer, or an item does not even name its sample. WrongSender: it is another edge's.
    """
    document = parse_json(payload, limit=topics.UP_LIMIT["offer"])
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list) or not 0 < len(items) <= MAX_OFFER_ITEMS:
        raise Malformed(f"an offer has 1 to {MAX_OFFER_ITEMS} items")
    good, refused = read_items(items)
    head = parse_as(Envelope, document)
    if head.edge != edge:
        raise WrongSender(f"edge {edge!r} sent an offer that speaks for {head.edge!r}")
    return ReadOffer(head.edge, head.epoch, good, refused)


class Envelope(Offer):
    """An offer without a look at its items."""

    items: list[Any]


def _code(fault: Malformed) -> str:
    if isinstance(fault, UnknownVersion):
        return "chunk_version"
    return "checksum" if isinstance(fault, ChecksumMismatch) else "malformed"


def _refused_record(sender: topics.Up, payload: bytes) -> Ack | None:
    """A record that cannot be read but names itself is refused, so the edge does not send it for ever."""
    if sender.kind not in ("loss", "agg", "flag", "report"):
        return None
    try:
        document = parse_json(payload)
        record = parse_as(RecordAck, {"id": document.get("id"), "result": "no", "code": "malformed"})
        return parse_as(Ack, {"edge": sender.edge, "epoch": document.get("epoch", NO_EPOCH), "records": [record]})
    except (Malformed, AttributeError):
        return None
