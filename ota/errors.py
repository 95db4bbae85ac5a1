"""Errors of signing and verifying, cut by what the caller does next.

OtaError
├── TransientError      try again later, with backoff
├── BlockedError        the box must change first: room on its disk, its clock
├── RefusedError        this release will never be taken as it is; `reason` goes into the signed report
│   └── SecurityError   somebody may be lying: never retried silently, counted, shown to a person
└── PublishError        publishing half: the request contradicts what is signed; a person changes the request
    ├── ConflictError   the repository moved on: start again from its current state
    └── NotPublished    there is no such base, adapter or channel in the repository
"""

from __future__ import annotations

from models.contracts.control import ReportReason


class OtaError(Exception):
    """Any fault of this package. The text says what to do next."""


class TransientError(OtaError):
    """Network, server or disk trouble that may pass: keep what runs and try again later."""

    reason = ReportReason.TRANSPORT


class BlockedError(OtaError):
    """The box itself is in the way. `reason` is DISK_FULL or CLOCK; sizes in bytes when it is the disk."""

    def __init__(self, message: str, *, reason: ReportReason, needed: int = 0, free: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.needed = needed
        self.free = free


class RefusedError(OtaError):
    """Permanent for this release: another release may be fine."""

    def __init__(self, message: str, *, reason: ReportReason) -> None:
        super().__init__(message)
        self.reason = reason


class SecurityError(RefusedError):
    """A signature, digest, version or local file is not what it must be. What runs now keeps running."""


class PublishError(OtaError):
    """The repository refuses to sign this; nothing was made visible to boxes."""


class ConflictError(PublishError):
    """Somebody published in between, or the name is taken by other bytes."""


class NotPublished(PublishError, LookupError):
    """The named thing is not listed by the role that would have to list it."""
