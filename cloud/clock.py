"""Time in the cloud: UTC microseconds since 1970 as an integer, given to services as a function."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

NowUs = Callable[[], int]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


def to_us(moment: datetime) -> int:
    """An aware datetime to microseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """Microseconds to an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)
