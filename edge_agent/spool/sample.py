"""The words of the spool: what goes in, what comes out, and the limits it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from models.contracts.uplink import LossReason, Priority

RecordKind = Literal["loss", "agg", "flag", "report"]
Health = Literal["ok", "degraded", "full"]


class State(StrEnum):
    """Where a sequence number is. It only moves forward; ACKED and LOST are final."""

    WRITING = "writing"
    READY = "ready"
    ACKED = "acked"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_bytes` bounds the blobs. Thinning starts at `high` of it, or below `min_free_bytes` on the disk, and
    aims at `low`. `ballast_bytes` is kept on disk to be given up when tombstones need room. Final rows are kept
    `keep_s` seconds for the audit.
    """

    max_bytes: int = 4 << 30
    ballast_bytes: int = 64 << 20
    min_free_bytes: int = 2 << 30
    high: float = 0.9
    low: float = 0.8
    keep_s: float = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Accepted:
    """The sample is durable."""

    sid: str
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """The sample is lost. `seq` is declared to the cloud; None when not even a number could be stored."""

    reason: LossReason
    seq: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample that waits for the cloud. `meta` is the envelope as plain JSON, `size` the bytes of the image."""

    sid: str
    epoch: str
    seq: int
    sha256: str
    size: int
    type: str
    meta_sha: str
    meta: dict[str, Any]
    prio: Priority
    pi_survive: float
    captured_at: datetime
    clock_ok: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A small document that is resent until the cloud acknowledges its id."""

    id: str
    kind: RecordKind
    payload: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """One consistent look at the books of the current epoch, for the heartbeat.

    `pending` counts all epochs in this spool; `ranges` are the current epoch's, cut when `complete` is False.
    `lost` is cumulative by reason; "unnumbered" counts samples whose number could not even be stored.
    """

    epoch: str
    max_seq: int
    pending: int
    pending_bytes: int
    oldest_age_s: float
    ranges: list[tuple[int, int]]
    complete: bool
    health: Health
    lost: dict[str, int] = field(default_factory=dict)
    records: int = 0
