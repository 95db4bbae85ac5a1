"""HTTP of the registry: what was trained, and what the gate said of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from cloud.http import Actor, Services
from cloud.registry.schemas import CandidateView, view

router = APIRouter(prefix="/api/v1/lines", tags=["registry"])


@router.get("/{line}/candidates")
def list_candidates(
    line: str, services: Services, _: Actor, limit: Annotated[int, Query(ge=1, le=1000)] = 200
) -> list[CandidateView]:
    """The line's candidates, newest first."""
    services.lines.get(line)
    found: list[CandidateView] = services.registry.of_line(line, limit=limit)
    return found


@router.get("/{line}/candidates/{release}")
def get_candidate(line: str, release: int, services: Services, _: Actor) -> CandidateView:
    """One adapter release with the gate's report."""
    return view(services.registry.by_release(line, release))
