"""The dashboard's addresses. Every page but the language switch asks who is looking and sends strangers to sign in.

Each page is one read-only transaction plus what its service answers. A problem becomes a page, not JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cloud import audit
from cloud.dashboard import fleet, queries, sources, views, words
from cloud.dashboard.i18n import COOKIE, LOCALES
from cloud.dashboard.pages import HEADERS, STATIC, asset, here, local_path, problem_page, render, speech_of
from cloud.dashboard.stream import Pulse, events
from cloud.db.tables import Line
from cloud.http import Problem, Services, not_found

COOKIE_AGE_S = 365 * 86_400
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route whose problems are pages: what went wrong and where to go, in the reader's language."""

    def get_route_handler(self) -> Handler:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except Problem as problem:
                return problem_page(request, status=problem.status, detail=problem.detail)

        return handle


router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def _viewer(request: Request) -> str:
    """Who is looking. Strangers go to the sign-in page and come back here afterwards."""
    actor = getattr(request.state, "actor", None)
    if actor is not None:
        return str(actor)
    if request.headers.get("accept", "").startswith("text/event-stream") or request.headers.get("hx-request"):
        raise HTTPException(401, "Sign in first.")
    raise HTTPException(303, headers={"Location": f"/login?next={quote(here(request), safe='')}"})


Viewer = Annotated[str, Depends(_viewer)]


def _pulse(request: Request) -> Pulse:
    """The application's one pulse, made on first use."""
    state = request.app.state
    if not hasattr(state, "dashboard_pulse"):
        services = state.services

        def read() -> str:
            with services.reads() as session:
                return queries.pulse(session)

        state.dashboard_pulse = Pulse(read)
    pulse: Pulse = state.dashboard_pulse
    return pulse


def _page(request: Request, template: str, *, section: str, **values: Any) -> HTMLResponse:
    """A page inside the frame: navigation, clock, counts. Callers take `seen` first, so that no change is missed."""
    services = request.app.state.services
    with services.reads() as session:
        waiting = sum(queries.open_tasks(session).values())
    return render(request, template, section=section, as_of=services.now(), waiting=waiting, **values)


def _line(rows: list[Line], name: str) -> Line:
    found = next((line for line in rows if line.name == name), None)
    if found is None:
        raise not_found("line", name)
    return found


def _chosen(rows: list[Line], name: str | None) -> Line | None:
    """The line asked for; without a wish the first one."""
    if name:
        return _line(rows, name)
    return rows[0] if rows else None


def _picture(request: Request, line: Line) -> views.LinePicture:
    services, speech = request.app.state.services, speech_of(request)
    accuracy = sources.accuracy(services, line.name)
    with services.reads() as session:
        parts = queries.parts_by_period(session, line.name)
        since = parts[0].period if parts else 0
        releases = queries.releases(session, line.name)
        rows = views.period_rows(
            speech,
            line,
            parts,
            accuracy,
            uploaded=queries.uploaded_by_period(session, line.name, since=since),
            labelled=queries.labelled_by_period(session, line.name, since=since),
            releases=releases,
        )
        state = queries.line_state(session, line.name)
    return views.picture(speech, line, state, rows, releases, now=services.now())


def _lines(services: Any) -> list[Line]:
    with services.reads() as session:
        return list(queries.lines(session))


@router.get("/")
def plant(request: Request, services: Services, _: Viewer) -> HTMLResponse:
    """A card per line."""
    seen = _pulse(request).now()
    pictures = [_picture(request, line) for line in _lines(services)]
    return _page(request, "plant.html", section="plant", seen=seen, pictures=pictures, views=views)


@router.get("/lines/{name}")
def line_page(request: Request, name: str, services: Services, _: Viewer) -> HTMLResponse:
    """Accuracy over time and what lies behind it."""
    seen = _pulse(request).now()
    picture = _picture(request, _line(_lines(services), name))
    chart = views.series(speech_of(request), picture)
    return _page(request, "line.html", section="plant", seen=seen, picture=picture, views=views, chart=chart)


@router.get("/review")
def review_chooser(request: Request, services: Services, _: Viewer) -> Response:
    """Straight to the queue when there is one line, else a choice with the number waiting."""
    seen = _pulse(request).now()
    rows = _lines(services)
    if len(rows) == 1:
        return RedirectResponse(f"/lines/{quote(rows[0].name)}/review", status_code=303)
    with services.reads() as session:
        tasks = queries.open_tasks(session)
    return _page(request, "review_lines.html", section="review", seen=seen, lines=rows, tasks=tasks)


@router.get("/lines/{name}/review")
def review_page(request: Request, name: str, services: Services, actor: Viewer) -> HTMLResponse:
    """The review queue. The page's script asks the API for tasks and sends it labels."""
    seen = _pulse(request).now()
    line = _line(_lines(services), name)
    said = words.review_words(speech_of(request))
    return _page(request, "review.html", section="review", seen=seen, line=line, said=said, author=actor)


@router.get("/fleet")
def fleet_page(request: Request, services: Services, _: Viewer, line: str | None = None) -> HTMLResponse:
    """Every box."""
    seen = _pulse(request).now()
    rows = _lines(services)
    chosen = _line(rows, line) if line else None
    with services.reads() as session:
        edges = queries.boxes(session, chosen.name if chosen else None)
        lost = queries.losses(session)
    boxes = [fleet.box(speech_of(request), edge, lost.get(edge.name, {}), now=services.now()) for edge in edges]
    return _page(request, "fleet.html", section="fleet", seen=seen, boxes=boxes, lines=rows, chosen=chosen)


@router.get("/rollouts")
def rollouts_page(request: Request, services: Services, _: Viewer, line: str | None = None) -> HTMLResponse:
    """A line's releases and how far each has spread."""
    seen = _pulse(request).now()
    rows = _lines(services)
    chosen = _chosen(rows, line)
    shown: list[sources.Rollout] = []
    if chosen is not None:
        with services.reads() as session:
            releases = queries.releases(session, chosen.name, limit=12)
        shown = [sources.rollout(services, chosen.name, release.number) for release in releases]
    return _page(request, "rollouts.html", section="rollouts", seen=seen, rollouts=shown, lines=rows, chosen=chosen)


@router.get("/candidates")
def candidates_page(request: Request, services: Services, _: Viewer, line: str | None = None) -> HTMLResponse:
    """Trained adapters and what the gate said about each."""
    seen = _pulse(request).now()
    rows = _lines(services)
    chosen = _chosen(rows, line)
    shown: list[sources.CandidateReport] = []
    if chosen is not None:
        with services.reads() as session:
            shown = [sources.candidate(speech_of(request), row) for row in queries.candidates(session, chosen.name)]
    return _page(request, "candidates.html", section="candidates", seen=seen, shown=shown, lines=rows, chosen=chosen)


@router.get("/audit")
def audit_page(
    request: Request,
    services: Services,
    _: Viewer,
    before: Annotated[int | None, Query(ge=1)] = None,
    subject: str = "",
) -> HTMLResponse:
    """Who did what and why, newest first."""
    seen = _pulse(request).now()
    with services.reads() as session:
        entries, more = queries.audit_page(session, before=before, subject=subject.strip() or None)
    return _page(
        request, "audit.html", section="audit", seen=seen, entries=entries, more=more, before=before, subject=subject
    )


@router.get("/audit/check")
def check_audit(request: Request, services: Services, _: Viewer) -> HTMLResponse:
    """Recompute the chain of digests and say whether it holds."""
    with services.reads() as session:
        broken = audit.verify(session)
    return render(request, "audit_check.html", broken=broken, at=services.now())


@router.get("/events")
async def stream(request: Request, services: Services, _: Viewer, seen: str = "") -> StreamingResponse:
    """The tab's one event stream."""
    last = request.headers.get("last-event-id") or seen
    speech = speech_of(request)
    body = events(_pulse(request), seen=last, clock=lambda: speech.clock(services.now()))
    return StreamingResponse(body, media_type="text/event-stream", headers={**HEADERS, "X-Accel-Buffering": "no"})


@router.get("/favicon.ico")
def icon() -> RedirectResponse:
    """Browsers ask for it by themselves wherever a page or an answer names no icon."""
    return RedirectResponse(asset("icon.svg"), status_code=307)


@router.post("/language")
def choose_language(code: Annotated[str, Form()], target: Annotated[str, Form(alias="next")] = "/") -> Response:
    """Remember a language in a cookie and go back."""
    if code not in LOCALES:
        raise Problem(
            422, "unknown_language", f"There is no language {code!r} here; choose one of {', '.join(LOCALES)}."
        )
    answer = RedirectResponse(local_path(target), status_code=303)
    answer.set_cookie(COOKIE, code, max_age=COOKIE_AGE_S, samesite="lax", httponly=True)
    return answer


class _Static(StaticFiles):
    """Files named with their digest never change, so browsers may keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["X-Content-Type-Options"] = "nosniff"
        if b"v=" in scope.get("query_string", b"") and response.status_code == 200:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        else:
            response.headers["Cache-Control"] = "no-cache"
        return response


def mount_static(app: FastAPI) -> None:
    """Serve scripts and styles under ``/static``."""
    app.mount("/static", _Static(directory=STATIC), name="static")
