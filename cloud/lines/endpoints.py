"""HTTP of lines: make one, list them, add a class, import reference images."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict

from cloud.http import Actor, Problem, Services
from cloud.lines.schemas import ImportResult, LineSpec, LineView, NewClass, Purpose, ReferenceCounts, ReferenceItem
from models.contracts.base import Count, Text

router = APIRouter(prefix="/api/v1/lines", tags=["lines"])
MAX_IMAGE_BYTES = 64 << 20


class ReferenceQuery(BaseModel):
    """What an imported image shows. `active_from` is in microseconds since 1970."""

    model_config = ConfigDict(extra="forbid")
    label: Text
    domain: Text | None = None
    group: Text | None = None
    must_catch: bool = False
    active_from: Count = 0


@router.get("")
def list_lines(services: Services, _: Actor) -> list[LineView]:
    """Every line."""
    lines: list[LineView] = services.lines.all()
    return lines


@router.post("", status_code=201)
def create_line(spec: LineSpec, services: Services, actor: Actor) -> LineView:
    """Make a line."""
    made: LineView = services.lines.create(spec, actor=actor)
    return made


@router.get("/{line}")
def get_line(line: str, services: Services, _: Actor) -> LineView:
    """One line."""
    found: LineView = services.lines.get(line)
    return found


@router.post("/{line}/classes", status_code=201)
def add_class(line: str, new: NewClass, services: Services, actor: Actor) -> LineView:
    """Append a class; the next training run learns it."""
    changed: LineView = services.lines.add_class(line, new, actor=actor)
    return changed


@router.get("/{line}/references/{purpose}")
def count_references(line: str, purpose: Purpose, services: Services, _: Actor) -> ReferenceCounts:
    """How many reference images the line has, by class and domain."""
    counts: ReferenceCounts = services.lines.counts(line, purpose)
    return counts


@router.post("/{line}/references/{purpose}", status_code=201)
async def add_reference(
    line: str,
    purpose: Purpose,
    request: Request,
    about: Annotated[ReferenceQuery, Query()],
    *,
    services: Services,
    actor: Actor,
) -> ImportResult:
    """Import one image: its bytes are the request's body."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_IMAGE_BYTES:
            raise Problem(413, "image_too_large", f"An image may have {MAX_IMAGE_BYTES >> 20} MiB.")
    item = ReferenceItem(bytes(data), about.label, about.domain, about.group, about.must_catch)
    result: ImportResult = await run_in_threadpool(
        services.lines.add_references, line, purpose, [item], active_from=about.active_from, actor=actor
    )
    return result
