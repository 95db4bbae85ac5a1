"""The web application: every room's endpoints behind one guard, errors as problem+json.

Nothing is built here: `bootstrap` hands in the services.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from cloud import audit
from cloud.accuracy import endpoints as accuracy
from cloud.auth import endpoints as auth
from cloud.auth.guard import Guard
from cloud.auth.tokens import Sessions, TokenBook
from cloud.dashboard import endpoints as dashboard
from cloud.db.tables import Audit
from cloud.fleet import endpoints as fleet
from cloud.http import Actor, Problem, Services
from cloud.jobs import endpoints as jobs
from cloud.labels import endpoints as labels
from cloud.lines import endpoints as lines
from cloud.objects import StoreUnavailable
from cloud.registry import endpoints as registry
from cloud.rollout import endpoints as rollout

ROOMS = (auth, lines, labels, jobs, registry, rollout, accuracy, fleet, dashboard)
log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1")


class Health(BaseModel):
    """`status` is ok or degraded; `parts` says which part is away. Open to everybody, so it says no more."""

    status: str
    version: str
    as_of: int
    parts: dict[str, str]


class AuditEntry(BaseModel):
    """One entry of the chain."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    reason: str | None
    evidence: dict[str, Any]
    sha256: str


@router.get("/health", tags=["system"])
def health(services: Services) -> Health:
    """Whether the parts this process needs work. Always 200 while it can answer: a part that is away shows in it."""
    parts = {"database": "ok", "broker": services.broker_state(), "object_store": services.store_state()}
    try:
        with services.reads() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        log.exception("health_database")
        parts["database"] = "away"
    status = "degraded" if "away" in parts.values() else "ok"
    return Health(status=status, version=version("edgeloop"), as_of=services.now(), parts=parts)


@router.get("/audit", tags=["system"])
def audit_log(
    services: Services,
    _: Actor,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: int | None = None,
    subject: str | None = None,
) -> list[AuditEntry]:
    """Who did what and why, newest first."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Audit.id < before)
    if subject is not None:
        query = query.where(Audit.subject == subject)
    with services.reads() as session:
        return [AuditEntry.model_validate(row, from_attributes=True) for row in session.scalars(query)]


@router.get("/audit/verify", tags=["system"])
def verify_audit(services: Services, _: Actor) -> dict[str, Any]:
    """Recompute the chain: the first entry that breaks it, or none."""
    with services.reads() as session:
        broken = audit.verify(session)
    return {"holds": broken is None, "broken_at": broken}


def create_app(services: Any, *, tokens: TokenBook, sessions: Sessions, secure_cookies: bool) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="edgeloop", version=version("edgeloop"), docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json"
    )
    app.state.services, app.state.tokens, app.state.sessions = services, tokens, sessions
    app.state.secure_cookies = secure_cookies
    app.include_router(router)
    for room in ROOMS:
        app.include_router(room.router)
    dashboard.mount_static(app)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(StoreUnavailable, _store)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_middleware(Guard, tokens=tokens, sessions=sessions)
    return app


async def _problem(_request: Request, fault: Exception) -> Response:
    assert isinstance(fault, Problem)  # noqa: S101 - what it is registered for
    return fault.response()


async def _invalid(_request: Request, fault: Exception) -> Response:
    assert isinstance(fault, RequestValidationError)  # noqa: S101 - what it is registered for
    first = fault.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return Problem(422, "invalid", f"{where}: {first['msg']}").response()


async def _http(_request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)  # noqa: S101 - what it is registered for
    answer = Problem(fault.status_code, "http", str(fault.detail)).response()
    answer.headers.update(fault.headers or {})
    return answer


async def _store(_request: Request, fault: Exception) -> Response:
    log.warning("store_unavailable", error=str(fault))
    return Problem(503, "store_unavailable", "The object store cannot be reached; try again.").response()


async def _database(request: Request, fault: Exception) -> Response:
    log.error("database_fault", path=request.url.path, exc_info=fault)
    return Problem(503, "database_unavailable", "The database cannot be used at the moment; try again.").response()
