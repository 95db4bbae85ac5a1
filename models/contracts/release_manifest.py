"""Which release to run: the channel manifest, signed by the line's online channel role.

Uptane's split in one repository: base and adapter roles say what is good, the channel role chooses among it and
carries the rollout plan. A rollback is a new, higher release whose content is an older digest.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.contracts.base import Count, Finite, Identifier, Manifest, Positive, Sha256, Text, Timestamp

BUCKETS = 10_000
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class TargetRef(Manifest):
    """A target by its TUF path and the digest it must have."""

    path: Text
    sha256: Sha256
    length: Positive


class Requires(Manifest):
    """What a box must be and have. An empty list means any."""

    hardware: list[Text] = Field(default_factory=list, max_length=64)
    min_agent: Text | None = None
    memory_mb: Count = 0
    disk_mb: Count = 0


class Probe(Manifest):
    """Checks before commit. `probation_parts` are inspected with the new model while the old one is kept loaded."""

    latency_p95_ms: Finite | None = None
    probation_parts: Count = 20
    max_disagreement: Annotated[float, Field(ge=0, le=1)] | None = None
    max_unjudged: Annotated[float, Field(ge=0, le=1)] = 0.2


class Wave(Manifest):
    """`percent` of the line's boxes by hash cohort; the next wave waits for `bake_s` and `min_parts` per box."""

    percent: Percent
    min_devices: Count = 0
    bake_s: Count = 0
    min_parts: Count = 0


class Window(Manifest):
    """Maintenance window in the site's time zone (IANA name), days 0 = Monday, minutes after midnight."""

    tz: Text
    days: list[Annotated[int, Field(ge=0, le=6)]] = Field(min_length=1)
    start_minute: Annotated[int, Field(ge=0, le=1439)]
    minutes: Annotated[int, Field(ge=1, le=1440)]


class Failures(Manifest):
    """The rollout aborts at ``max(count, percent of attempted)`` failures once `min_sample` boxes attempted."""

    count: Positive = 2
    percent: Percent = 2.0
    min_sample: Positive = 1


class RolloutPlan(Manifest):
    """How a release spreads. `wave` is the one that is open now: opening the next is a new signed manifest."""

    salt: Text
    canaries: list[Identifier] = Field(default_factory=list, max_length=1000)
    waves: list[Wave] = Field(min_length=1, max_length=32)
    wave: Count = 0
    success_percent: Percent = 95.0
    max_failures: Failures = Field(default_factory=Failures)
    mode: Literal["forced", "soft", "time_forced", "download_only"] = "forced"
    window: Window | None = None
    state: Literal["running", "paused", "aborted"] = "running"
    approval: Literal["none", "after_canary", "every_wave"] = "none"
    not_before: Timestamp | None = None

    @model_validator(mode="after")
    def _waves_grow(self) -> RolloutPlan:
        percents = [wave.percent for wave in self.waves]
        if percents != sorted(percents) or percents[-1] != 100:
            raise ValueError("wave percentages must grow and end at 100")
        if self.wave >= len(self.waves):
            raise ValueError(f"wave {self.wave} of {len(self.waves)}")
        return self

    def bucket(self, edge: str) -> int:
        """The box's place in 0..9999: SHA-256 of salt and name, so a new plan shuffles the order."""
        return int.from_bytes(hashlib.sha256(f"{self.salt}|{edge}".encode()).digest()[:8], "big") % BUCKETS

    def wave_of(self, edge: str) -> int:
        """The first wave that includes the box: 0 for a canary, else by bucket."""
        if edge in self.canaries:
            return 0
        place = self.bucket(edge)
        return next(i for i, wave in enumerate(self.waves) if place < wave.percent * 100)

    def includes(self, edge: str) -> bool:
        """Whether the box may take the release now."""
        return self.state == "running" and self.wave_of(edge) <= self.wave


class ChannelManifest(Manifest):
    """The release a line should run. `release` only ever grows; metadata versions and this number never shrink."""

    schema_version: Literal[1] = 1
    kind: Literal["channel"] = "channel"
    line: Identifier
    channel: Identifier
    release: Positive
    model_version: Text
    base: TargetRef
    adapter: TargetRef
    requires: Requires = Field(default_factory=Requires)
    probe: Probe = Field(default_factory=Probe)
    plan: RolloutPlan
    rollback_of: Positive | None = None
    reason: Text | None = None
    actor: Text
    revoked: list[Sha256] = Field(default_factory=list, max_length=4096)
    min_release: Count = 0
    max_age_s: Count | None = None
    created_at: Timestamp
