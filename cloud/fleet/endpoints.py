"""HTTP of the fleet: the boxes, enrolling one, conservation of a line."""

from __future__ import annotations

from fastapi import APIRouter

from cloud.fleet.schemas import ConservationView, EdgeView, FleetView, NewEdge
from cloud.http import Actor, Services

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get("/fleet")
def fleet(services: Services, _: Actor, line: str | None = None) -> FleetView:
    """Every box with its newest word."""
    found: FleetView = services.fleet.fleet(line)
    return found


@router.post("/edges", status_code=201)
def enrol(body: NewEdge, services: Services, actor: Actor) -> EdgeView:
    """Make a box known, or give it a new certificate."""
    made: EdgeView = services.fleet.enrol(body, actor=actor)
    return made


@router.get("/lines/{line}/conservation")
def conservation(line: str, services: Services, _: Actor) -> ConservationView:
    """Whether every sample is stored, pending or declared lost."""
    found: ConservationView = services.fleet.conservation(line)
    return found
