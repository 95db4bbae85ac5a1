"""The uplink's limits, with their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.contracts.uplink import Priority


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """`window` samples are talked about at once. Nothing heard for `ack_timeout_s` is silence: the next try comes after
    a random time of at most ``retry_base_s * 2 ** failures``, capped by `retry_cap_s` (full jitter, as in AWS's
    "Exponential backoff and jitter"). `bytes_per_s` bounds image bytes over time, None for no bound; `burst_bytes` may
    go at once. `weights` share the line between hard and audit samples.
    """

    version: str = "0"
    window: int = 16
    record_window: int = 8
    ack_timeout_s: float = 15.0
    retry_base_s: float = 1.0
    retry_cap_s: float = 300.0
    heartbeat_s: float = 10.0
    poll_s: float = 0.25
    bytes_per_s: float | None = None
    burst_bytes: int = 1 << 20
    put_timeout_s: float = 60.0
    weights: Mapping[Priority, int] = field(default_factory=lambda: {Priority.HARD: 2, Priority.AUDIT: 1})
