"""The upload conversation: offer, want, data, stored, and the declaration of what was lost.

A sample leaves the spool only on `stored` or `have`: the cloud's word that the object is durable and the row
committed. A broker's acknowledgement says nothing of the kind and is never taken for one.
"""

from __future__ import annotations

import base64
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from models.contracts.base import (
    Count,
    Epoch,
    Identifier,
    Inclusion,
    Message,
    Positive,
    Sha256,
    Text,
    Timestamp,
)
from models.contracts.chunk import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from models.contracts.ids import Sid

MAX_OFFER_ITEMS = 16
MAX_SAMPLE_BYTES = 32 << 20


class Priority(StrEnum):
    """Upload classes, most urgent first. HARD and AUDIT share by weight, so the audit stream never starves."""

    ALERT = "alert"
    FLAGGED = "flagged"
    HARD = "hard"
    AUDIT = "audit"
    DEBUG = "debug"


class OfferItem(Message):
    """One sample on offer. `meta` is the envelope as JSON and `meta_sha` the digest of its canonical bytes.

    `pi_survive` is the probability with which a sample like this one outlived thinning in a full spool; the
    total inclusion probability is ``meta.selection.pi_select * pi_survive * pi_label``.
    """

    sid: Sid
    seq: Positive
    sha256: Sha256
    size: Positive
    type: Text
    meta_sha: Sha256
    meta: dict[str, Any]
    prio: Priority
    pi_survive: Inclusion = 1.0
    captured_at: Timestamp
    clock_ok: bool
    max_chunk: int | None = Field(default=None, ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)


class Offer(Message):
    """At most 16 samples of one spool."""

    v: Literal[1] = 1
    edge: Identifier
    epoch: Epoch
    items: list[OfferItem] = Field(min_length=1, max_length=MAX_OFFER_ITEMS)


class Result(StrEnum):
    """The cloud's answer for one sample.

    HAVE and STORED end it: delete. WANT asks for chunks or a PUT. LATER keeps it and waits. NO is for ever:
    the sample is quarantined at the edge and declared lost with the code as its reason.
    """

    STORED = "stored"
    HAVE = "have"
    WANT = "want"
    LATER = "later"
    NO = "no"


class Put(Message):
    """A presigned upload in place of chunks. HTTP 200 is no receipt: repeat the offer and wait for STORED."""

    url: str = Field(max_length=4096)
    headers: dict[str, str] = Field(default_factory=dict)
    expires_at: Timestamp


class AckItem(Message):
    """`chunks` is the bitmap of chunks already held, base64, bit i of byte i // 8 (least significant first)."""

    sid: Sid
    result: Result
    chunks: str | None = Field(default=None, max_length=16_384)
    chunk: int | None = Field(default=None, ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)
    put: Put | None = None
    retry_after_s: int | None = Field(default=None, ge=0, le=86_400)
    code: Text | None = None
    detail: Text | None = None


class RecordAck(Message):
    """Receipt for a loss manifest, an aggregate, a flag or a report, by its id."""

    id: Sid
    result: Literal["stored", "no"]
    code: Text | None = None


class Ack(Message):
    """Answers to one edge. `credit_bytes` is what it may now send in all: 0 means send no data."""

    v: Literal[1] = 1
    edge: Identifier
    epoch: Epoch
    items: list[AckItem] = Field(default_factory=list, max_length=64)
    records: list[RecordAck] = Field(default_factory=list, max_length=64)
    credit_bytes: Count | None = None


class LossReason(StrEnum):
    """Why a sequence number will never be stored."""

    CRASH_BEFORE_ACCEPT = "crash_before_accept"
    CORRUPT = "corrupt"
    THINNED = "thinned"
    EVICTED = "evicted"
    IO_ERROR = "io_error"
    REFUSED = "refused"
    ACCOUNTING_ENDED = "accounting_ended"


class LossRange(Message):
    """`first`..`last` inclusive. `policy` names the rule that caused it, for a person to read."""

    first: Positive
    last: Positive
    reason: LossReason
    policy: Text | None = None


class Loss(Message):
    """Sequence numbers declared lost. Durable in the spool and acknowledged by id like a sample."""

    v: Literal[1] = 1
    id: Sid
    edge: Identifier
    epoch: Epoch
    ranges: list[LossRange] = Field(min_length=1, max_length=256)
    declared_at: Timestamp


class IngestLimits(Message):
    chunk_bytes: int = Field(default=MAX_CHUNK_BYTES, ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)
    sample_bytes: Positive = MAX_SAMPLE_BYTES
    offer_items: int = Field(default=MAX_OFFER_ITEMS, ge=1, le=MAX_OFFER_ITEMS)
    unsolicited_bytes: Count = 0


class IngestState(Message):
    """Retained; the will says offline. An edge sends data only while ingest is online."""

    v: Literal[1] = 1
    online: bool
    instance: Text
    versions: list[int] = Field(default_factory=lambda: [1])
    limits: IngestLimits = Field(default_factory=IngestLimits)


def bitmap_encode(held: set[int], count: int) -> str:
    """Base64 bitmap of the chunk numbers in `held`, `count` chunks in all."""
    bits = bytearray(-(-count // 8))
    for index in held:
        bits[index // 8] |= 1 << index % 8
    return base64.b64encode(bits).decode()


def bitmap_missing(text: str | None, count: int) -> list[int]:
    """Chunk numbers below `count` that the bitmap does not hold; all of them when there is no bitmap.

    Raises:
        ValueError: the text is not base64.
    """
    bits = base64.b64decode(text or "", validate=True)
    return [i for i in range(count) if i // 8 >= len(bits) or not bits[i // 8] >> i % 8 & 1]
