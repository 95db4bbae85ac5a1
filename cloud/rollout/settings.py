"""How a release spreads when nobody says otherwise."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from models.contracts.base import Identifier
from models.contracts.release_manifest import Failures, Probe, RolloutPlan, Wave

Seconds = Annotated[int, Field(ge=0, le=604_800)]


class RolloutDefaults(BaseModel):
    """One canary, then every box, once the canary committed, baked and inspected parts.

    Args:
        channel: the channel all boxes follow.
        canaries: how many boxes go first, taken from those that are online.
        canary_edges: names that go first instead, where the line has them.
        bake_s: seconds after the last commit of a wave before the next opens.
        min_parts: parts every box of a wave must have inspected with the release.
        exclude_after_s: a box silent for so long no longer holds a rollout up; it stays listed as excluded.
        success_percent: committed boxes of those that tried, below which a wave does not open the next.
        probe: what a box checks before and after it swaps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    channel: Identifier = "stable"
    canaries: Annotated[int, Field(ge=0, le=1000)] = 1
    canary_edges: list[Identifier] = Field(default_factory=list, max_length=1000)
    bake_s: Seconds = 600
    min_parts: Annotated[int, Field(ge=0)] = 20
    exclude_after_s: Seconds = 1800
    success_percent: Annotated[float, Field(ge=0, le=100)] = 95.0
    max_failures: Failures = Failures()
    probe: Probe = Probe()

    def plan(self, *, salt: str, canaries: list[str]) -> RolloutPlan:
        """The plan of an ordinary release. Without canaries there is one wave for all."""
        everyone = Wave(percent=100.0)
        first = Wave(percent=0.0, min_devices=1, bake_s=self.bake_s, min_parts=self.min_parts)
        return RolloutPlan(
            salt=salt, canaries=canaries, waves=[first, everyone] if canaries else [everyone],
            success_percent=self.success_percent, max_failures=self.max_failures,
        )  # fmt: skip

    def rollback_plan(self, *, salt: str) -> RolloutPlan:
        """Everybody at once: a line that runs a bad release is not made to wait."""
        return RolloutPlan(salt=salt, waves=[Wave(percent=100.0)], success_percent=0.0, max_failures=self.max_failures)
