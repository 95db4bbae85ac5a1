"""HTTP of jobs: what the line's workers do, did, and why they did not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from cloud.http import Actor, Problem, Services
from cloud.jobs.schemas import JobView

router = APIRouter(prefix="/api/v1/lines", tags=["jobs"])


@router.get("/{line}/jobs")
def list_jobs(
    line: str, services: Services, _: Actor, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[JobView]:
    """The line's jobs, newest first."""
    services.lines.get(line)
    found: list[JobView] = services.jobs.of_line(line, limit=limit)
    return found


@router.post("/{line}/jobs/train", status_code=202)
def train_now(line: str, services: Services, actor: Actor) -> JobView:
    """Train now, without waiting for the next period."""
    services.lines.get(line)
    key = services.training.request(line, actor=actor)
    if key is None:
        raise Problem(409, "training_in_flight", f"Line {line!r} is learning already; wait for that run to end.")
    job: JobView = services.jobs.by_key(key)
    return job
