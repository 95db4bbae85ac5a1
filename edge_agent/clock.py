"""Time and identity as arguments: the clocks, the state of wall time, and the minting of sample ids.

Order never depends on wall time. What is stamped here is believed by nobody without `ClockState.ok`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.contracts.ids import uuid7
from models.contracts.sample import ClockState

EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
"""No box of this product existed earlier: a clock before it was never set."""
_TIMESYNC = Path("/run/systemd/timesync/synchronized")


def utc_now() -> datetime:
    """The system's wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` wall time, `mono` seconds and `mono_ns` nanoseconds of the same monotonic clock."""

    now: Callable[[], datetime] = utc_now
    mono: Callable[[], float] = time.monotonic
    mono_ns: Callable[[], int] = time.monotonic_ns

    def state(self) -> ClockState:
        """Whether wall time can be believed."""
        synchronised = _TIMESYNC.exists()
        return ClockState(ok=self.now() >= EARLIEST, source="ntp" if synchronised else "unknown")


@dataclass(frozen=True, slots=True)
class Mint:
    """Mints sample and record ids."""

    entropy: Callable[[int], bytes] = secrets.token_bytes

    def __call__(self, at: datetime) -> str:
        return str(uuid7(int(at.timestamp() * 1000), self.entropy(10)))


def period_of(at: datetime, *, hour_s: int) -> int:
    """The hour number: floor(unix seconds / hour_s)."""
    return int(at.timestamp() // hour_s)
