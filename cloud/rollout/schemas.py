"""What HTTP takes and gives about releases. Times are microseconds since 1970."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cloud.rollout.planner import BoxState
from models.contracts.base import Text

ReleaseState = Literal["running", "complete", "aborted", "superseded"]
Reason = Annotated[Text, StringConstraints(pattern=r"\S")]


class Asked(BaseModel):
    """Every act on a release says why."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


class StartRequest(Asked):
    """Release this adapter release of the line."""

    adapter_release: Annotated[int, Field(ge=1)]


class RollbackRequest(Asked):
    """Back to this adapter release, as a new, higher release; without `to` the last good one."""

    to: Annotated[int | None, Field(ge=1)] = None


class BoxView(BaseModel):
    """Where one box is with the release. `since` is when it committed or failed."""

    edge: str
    state: BoxState
    wave: int
    reason: str | None
    since: int | None
    parts: int


class Totals(BaseModel):
    """``ok + failed + pending + offline + excluded = boxes``, always."""

    ok: int
    failed: int
    pending: int
    offline: int
    excluded: int
    boxes: int


class ReleaseView(BaseModel):
    """One release of a line. `paused` is a running release somebody holds."""

    line: str
    number: int
    adapter_release: int
    adapter_sha: str
    model_version: str
    rollback_of: int | None
    state: ReleaseState
    paused: bool
    wave: int
    waves: int
    actor: str
    reason: str | None
    created_at: int
    finished_at: int | None
    live_at: int | None


class RolloutStatus(ReleaseView):
    """A release with its boxes. `waiting_for` is what the rollout does next, in words."""

    totals: Totals
    boxes: list[BoxView]
    waiting_for: str
