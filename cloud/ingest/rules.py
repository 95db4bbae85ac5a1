"""Decisions of ingest that need no I/O: is an offered sample acceptable, which review queue it joins, how much credit.

A refusal here is for ever (`no`): the edge quarantines the sample and declares it lost. What may pass later (store or
database down, unknown edge, no room) is never a refusal.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

from models.contracts.base import Malformed, canonical, parse_as, sha256_hex
from models.contracts.sample import SampleMeta, Stratum
from models.contracts.uplink import AckItem, OfferItem, Result

MAX_INT = 2**31 - 1
ESTIMATE, VALUE = "estimate", "value"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sample will never be taken. `code` is stable, `detail` for a person."""

    code: str
    detail: str

    def answer(self, sid: str) -> AckItem:
        """The refusal as the edge hears it."""
        return AckItem(sid=sid, result=Result.NO, code=self.code, detail=self.detail[:256])


def later(sid: str, retry_after_s: int, code: str, detail: str) -> AckItem:
    """Keep it and ask again."""
    return AckItem(sid=sid, result=Result.LATER, retry_after_s=retry_after_s, code=code, detail=detail[:256])


def check_item(  # noqa: PLR0911 - one guard per rule
    item: OfferItem, *, edge: str, epoch: str, line: str, sample_bytes: int
) -> SampleMeta | Refusal:
    """The envelope of an offered sample, or why it is refused.

    Args:
        edge, epoch: who offers it, from topic and offer; the envelope must agree.
        line: the line the box is enrolled on.
    """
    try:
        meta = parse_as(SampleMeta, item.meta)
        digest = sha256_hex(canonical(item.meta))
    except ValueError as fault:
        return Refusal("bad_meta", str(fault))
    if digest != item.meta_sha:
        return Refusal("meta_digest", "the envelope does not have the digest it was offered with")
    offered = (item.sid, edge, epoch, item.seq, item.sha256, item.size)
    if offered != (meta.sid, meta.edge, meta.epoch, meta.seq, meta.image.sha256, meta.image.size):
        return Refusal("meta_mismatch", "envelope and offer name different samples")
    if meta.line != line:
        return Refusal("wrong_line", f"the sample is of line {meta.line!r}, the edge is enrolled on {line!r}")
    if item.size > sample_bytes:
        return Refusal("too_large", f"{item.size} bytes; at most {sample_bytes} are taken")
    if meta.model.release > MAX_INT or _has_nul(item.meta):
        return Refusal("bad_meta", "a number is too large, or a text holds a NUL character")
    return meta


def _has_nul(document: Any) -> bool:
    """PostgreSQL's JSON cannot hold U+0000."""
    return b"\\u0000" in canonical(document)


def period(captured_us: int, hour_s: float) -> int:
    """The hour number, clamped to what the column holds: a box with a broken clock must not stop ingest."""
    return max(-MAX_INT, min(MAX_INT, math.floor(captured_us / 1e6 / hour_s)))


def uniform(seed: int, purpose: str, sid: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments: the same sample draws the same coin for ever."""
    digest = hashlib.sha256(f"{seed}|{purpose}|{sid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, slots=True)
class Placing:
    """Where a sample's task goes. In the estimation queue `value` is random, so any first part of it is a sample."""

    queue: str
    pi_label: float
    value: float


def place(meta: SampleMeta, *, pi_label: float, seed: int) -> Placing:
    """Toss the sample's coin for the estimation queue; the others are ordered by how much they can teach."""
    if uniform(seed, "queue", meta.sid) < pi_label:
        return Placing(ESTIMATE, pi_label, uniform(seed, "order", meta.sid))
    u = meta.selection.parts.u
    urgent = meta.selection.stratum in (Stratum.FLAGGED, Stratum.CANNOT_JUDGE)
    return Placing(VALUE, pi_label, 1.0 if urgent else (u if u is not None else 0.0))


@dataclass
class Credits:
    """Bytes each edge may have under way, and room for all of them together.

    An admitted upload reserves its size until it ends, so staging stays bounded; an edge with an admitted upload may
    always send one more chunk, so a full staging area drains instead of locking up.
    """

    edge_bytes: int
    total_bytes: int
    chunk_bytes: int
    reserved: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    def admit(self, sid: str, size: int) -> bool:
        """Reserve room for an upload. The first is always admitted, however large."""
        others = sum(self.reserved.values()) - self.reserved.get(sid, 0)
        if others and others + size > self.total_bytes:
            return False
        self.reserved[sid] = size
        return True

    def release(self, sid: str) -> None:
        """The upload ended."""
        self.reserved.pop(sid, None)

    def grant(self, edge: str) -> int:
        """What `edge` may send from now on in all."""
        self.left.setdefault(edge, 0)
        self.left[edge] = max(self.chunk_bytes, min(self.edge_bytes, self.total_bytes // len(self.left)))
        return self.left[edge]

    def spend(self, edge: str, size: int) -> bool:
        """Bytes arrived; True when the edge should be granted more before it runs dry."""
        self.left[edge] = max(0, self.left.get(edge, 0) - size)
        return self.left[edge] < self.edge_bytes // 2


@dataclass(frozen=True, slots=True)
class ReadOffer:
    """An offer with its good items, and answers for the bad ones: one bad sample must not hold up fifteen others."""

    edge: str
    epoch: str
    items: list[OfferItem]
    refused: list[AckItem]


def read_items(documents: list[Any]) -> tuple[list[OfferItem], list[AckItem]]:
    """Split an offer's items into valid ones and refusals of those that at least name a sample.

    Raises:
        Malformed: an item that does not even name its sample.
    """
    items, refused = [], []
    for document in documents:
        try:
            items.append(parse_as(OfferItem, document))
        except Malformed as fault:
            sid = document.get("sid") if isinstance(document, dict) else None
            refused.append(
                parse_as(AckItem, {"sid": sid, "result": "no", "code": "malformed", "detail": str(fault)[:256]})
            )
    return items, refused
