"""HTTP of releases: list, start, watch, hold, stop, take back."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from cloud.http import Actor, Services
from cloud.rollout.schemas import Asked, ReleaseView, RollbackRequest, RolloutStatus, StartRequest

router = APIRouter(prefix="/api/v1/lines", tags=["releases"])


@router.get("/{line}/releases")
def list_releases(
    line: str, services: Services, _: Actor, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[ReleaseView]:
    """The line's releases, newest first."""
    found: list[ReleaseView] = services.rollout.history(line, limit=limit)
    return found


@router.post("/{line}/releases", status_code=201)
def start_release(line: str, asked: StartRequest, services: Services, actor: Actor) -> ReleaseView:
    """Release an accepted adapter release to the line."""
    services.lines.get(line)
    made: ReleaseView = services.rollout.start(line, asked.adapter_release, actor, asked.reason)
    return made


@router.get("/{line}/releases/{number}")
def release_status(line: str, number: int, services: Services, _: Actor) -> RolloutStatus:
    """One release, with every box of the line."""
    found: RolloutStatus = services.rollout.status(line, number)
    return found


@router.post("/{line}/releases/{number}/{act}")
def act_on_release(
    line: str, number: int, act: Literal["pause", "resume", "abort"], asked: Asked, *, services: Services, actor: Actor
) -> ReleaseView:
    """Hold, let go on, or stop a release. An aborted one is followed by a release that goes back."""
    done: ReleaseView = getattr(services.rollout, act)(line, number, actor, asked.reason)
    return done


@router.post("/{line}/rollback", status_code=201)
def roll_back(line: str, asked: RollbackRequest, services: Services, actor: Actor) -> ReleaseView:
    """Send the line back to an adapter release it ran before."""
    services.lines.get(line)
    made: ReleaseView = services.rollout.rollback(line, asked.to, actor, asked.reason)
    return made
