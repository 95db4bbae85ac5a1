"""HTTP of labels: the queue, one sample with its image, label, undo, skip, flag."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from cloud.http import Actor, Problem, Services
from cloud.labels.schemas import LabelView, NewFlag, NewLabel, QueueView, SampleView
from cloud.objects import ObjectMissing, StoreUnavailable

router = APIRouter(prefix="/api/v1", tags=["labels"])
_IMAGE_HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@router.get("/lines/{line}/queue")
def queue(
    line: str,
    services: Services,
    _: Actor,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: str | None = None,
) -> QueueView:
    """Open tasks: the estimation queue first, then by value."""
    page: QueueView = services.labels.queue(line, limit, after)
    return page


@router.get("/samples/{sid}")
def sample(sid: str, services: Services, _: Actor) -> SampleView:
    """One sample with its envelope and the history of its labels."""
    found: SampleView = services.labels.sample(sid)
    return found


@router.get("/samples/{sid}/image")
def image(sid: str, services: Services, _: Actor) -> Response:
    """The bytes as the camera gave them. Unreadable ones come as a download, never for a browser to guess at."""
    sha256, media_type = services.labels.image(sid)
    try:
        data = services.images.read(sha256)
    except ObjectMissing as fault:
        raise Problem(410, "image_lost", f"The object store has lost the image of sample {sid}.") from fault
    except StoreUnavailable as fault:
        raise Problem(503, "store_unavailable", "The object store cannot be reached; try again.") from fault
    headers = dict(_IMAGE_HEADERS, ETag=f'"{sha256}"')
    if not media_type.startswith("image/"):
        headers["Content-Disposition"] = f'attachment; filename="{sid}.bin"'
    return Response(data, media_type=media_type, headers=headers)


@router.post("/samples/{sid}/labels", status_code=201)
def add_label(sid: str, body: NewLabel, services: Services, actor: Actor) -> LabelView:
    """Judge a sample, or correct a judgement."""
    made: LabelView = services.labels.label(sid, body.name, actor, body.method, body.note)
    return made


@router.post("/samples/{sid}/skip")
def skip(sid: str, services: Services, actor: Actor) -> dict[str, str]:
    """Close the task without a label."""
    return {"sid": sid, "state": services.labels.skip(sid, actor)}


@router.post("/samples/{sid}/flag", status_code=201)
def flag(sid: str, body: NewFlag, services: Services, actor: Actor) -> dict[str, str]:
    """Ask for a second look."""
    return {"sid": sid, "flag": services.labels.flag(sid, actor, body.reason)}


@router.post("/labels/{label_id}/undo", status_code=201)
def undo(label_id: int, services: Services, actor: Actor) -> LabelView:
    """Take one's own label back."""
    made: LabelView = services.labels.undo(label_id, actor)
    return made
