"""Limits of the box's downloads, with their units, and the guard against a slow drip. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ota.errors import TransientError

Monotonic = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults suit a plant network. A transfer below `min_rate` over `rate_window_s`, or longer than its total
    deadline, is given up and resumed later: python-tuf alone would wait on a drip for days.
    """

    connect_s: float = 10.0
    idle_s: float = 30.0
    metadata_total_s: float = 30.0
    transfer_total_s: float = 4 * 3600.0
    min_rate: int = 32 << 10
    rate_window_s: float = 60.0
    manifest_bytes: int = 1 << 20
    chunk_bytes: int = 64 << 20
    spare_bytes: int = 16 << 20
    spare_share: float = 0.1
    clock_tolerance: timedelta = timedelta(minutes=5)


class RateGuard:
    """Raises when a transfer is too slow. Only time spent in the transfer counts, by a monotonic clock."""

    def __init__(self, limits: Limits, monotonic: Monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._opened = monotonic()
        self._received = 0

    def received(self, count: int) -> None:
        """Account for `count` bytes.

        Raises:
            TransientError: the window that just ended brought fewer bytes than the minimum rate asks for.
        """
        self._received += count
        elapsed = self._monotonic() - self._opened
        if elapsed < self._limits.rate_window_s:
            return
        if self._received < self._limits.min_rate * elapsed:
            raise TransientError(
                f"{self._received} bytes in {elapsed:.1f} s is below {self._limits.min_rate} B/s: will resume later"
            )
        self._opened, self._received = self._monotonic(), 0
