"""Words about releases between cloud and edge: hints, commands, and the edge's signed report.

A hint can at most cause one extra check: what an edge may run is decided by signed metadata alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from models.contracts.base import Count, Finite, Identifier, Message, Positive, Probability, Sha256, Text, Timestamp
from models.contracts.ids import Sid


class Announce(Message):
    """Retained per line, below 200 bytes. A forged one costs a rate-limited metadata check and nothing else."""

    v: Literal[1] = 1
    timestamp_version: Count
    release: Count
    channel: Identifier


class CheckUpdate(Message):
    kind: Literal["check_update"] = "check_update"


class SelectionBudget(Message):
    """Bytes an hour for samples, and the share of them that is pure random audit."""

    kind: Literal["selection_budget"] = "selection_budget"
    line: Identifier
    bytes_per_hour: Positive
    audit_share: Probability


class Command(Message):
    """An order from the cloud. Unknown kinds are refused by the decoder and counted at the edge."""

    v: Literal[1] = 1
    id: Sid
    edge: Identifier
    issued_at: Timestamp
    order: Annotated[CheckUpdate | SelectionBudget, Field(discriminator="kind")]


class UpdateState(StrEnum):
    """Where an edge is with a release. Only COMMITTED counts as success for a rollout."""

    IDLE = "idle"
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    WAITING = "waiting"
    ACTIVATING = "activating"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    BLOCKED = "blocked"


class ReportReason(StrEnum):
    """Why an update did not end in COMMITTED. SECURITY reasons hold the rollout until a person looks."""

    PROBE_FAILED = "probe_failed"
    PROBATION_FAILED = "probation_failed"
    CRASHED = "crashed"
    WRONG_BASE = "wrong_base"
    WRONG_LINE = "wrong_line"
    REQUIREMENTS = "requirements"
    BAD_ADAPTER = "bad_adapter"
    DISK_FULL = "disk_full"
    REVOKED = "revoked"
    SIGNATURE = "signature"
    DIGEST = "digest"
    EXPIRED = "expired"
    ROLLBACK = "rollback"
    CLOCK = "clock"
    TAMPERED = "tampered"
    TRANSPORT = "transport"


SECURITY_REASONS = frozenset(
    {ReportReason.SIGNATURE, ReportReason.DIGEST, ReportReason.ROLLBACK, ReportReason.TAMPERED}
)


class DeviceReport(Message):
    """What the edge says it runs. `loaded` is the digest of the adapter release bytes that were loaded, not fetched.

    `counter` only grows, per edge, and survives restarts: a replayed report is dropped. Vehicle version reports of
    Uptane 2.1.0 (section 5.4.2.1) are the model.
    """

    v: Literal[1] = 1
    id: Sid
    edge: Identifier
    line: Identifier
    counter: Positive
    state: UpdateState
    release: Count
    attempted: Count | None = None
    loaded: Sha256 | None = None
    previous: Count | None = None
    reason: ReportReason | None = None
    detail: Text | None = None
    attempt: Count = 0
    swap_pause_ms: Finite | None = None
    parts_in_probation: Count | None = None
    sent_at: Timestamp


class SignedReport(Message):
    """`body` is the canonical JSON text of a `DeviceReport`; the signature is over exactly these UTF-8 bytes.

    ECDSA P-256 with SHA-256 (FIPS 186-5), DER, base64, by the device's certificate key.
    """

    v: Literal[1] = 1
    id: Sid
    edge: Identifier
    body: str = Field(max_length=8192)
    signature: str = Field(max_length=256)
