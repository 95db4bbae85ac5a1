"""The dashboard in front of a seeded database: small services that answer as the real ones do, and the labels' API.

The knobs are for the tests: `Plant.down` makes the label API fail, `Plant.actor` signs people in and out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, Request, Response
from sqlalchemy import select

from cloud.dashboard.endpoints import mount_static, router
from cloud.dashboard.pages import login_page
from cloud.db.session import open_engine, reads, transactions
from cloud.db.tables import DeviceReportRow, Edge, Label, Release, Table
from cloud.http import Problem
from cloud.labels.endpoints import router as labels_router
from cloud.labels.service import LabelService
from cloud.rollout.planner import Standing
from cloud.rollout.schemas import RolloutStatus
from cloud.rollout.views import status_view
from models.contracts.control import ReportReason
from tests.cloud.dashboard import seed


class AccuracyAnswers:
    """By period: the seeded curve for one line, too few labels for the other."""

    def by_period(self, line: str) -> list[Any]:
        first = seed.START // seed.HOUR
        if line == "modules":
            return [_period(first + seed.HOURS - 1, 12, None)]
        return [_period(first + hour, 62, value) for hour, value in enumerate(seed.ACCURACY)]


def _period(period: int, labels: int, value: float | None) -> Any:
    def estimate(share: float | None, half: float) -> Any:
        if share is None:
            return None
        return SimpleNamespace(value=share, low=max(share - half, 0.0), high=min(share + half, 1.0))

    wrong = None if value is None else 1 - value
    return SimpleNamespace(
        period=period, labels=labels, needed=20, accuracy=estimate(value, 0.041),
        escape=estimate(None if wrong is None else wrong * 0.4, 0.02),
        overkill=estimate(None if wrong is None else wrong * 0.5, 0.02),
        escaped=estimate(None if wrong is None else wrong * 0.1, 0.01),
        overkilled=estimate(None if wrong is None else wrong * 0.3, 0.01),
        status="ok" if value is not None else "not_enough_labels", mistake_rate=None, unreported=[],
    )  # fmt: skip


class RolloutAnswers:
    """Totals that sum to the boxes of the line."""

    def __init__(self, read: Any) -> None:
        self._reads = read

    def status(self, line: str, number: int) -> RolloutStatus:
        with self._reads() as session:
            release = session.scalars(select(Release).where(Release.line == line, Release.number == number)).one()
            edges = session.scalars(select(Edge).where(Edge.line == line).order_by(Edge.name)).all()
            failed = set(session.scalars(select(DeviceReportRow.edge).where(DeviceReportRow.attempted == number)))
        found = [_standing(edge.name, number, failed) for edge in edges]
        return status_view(release, found, "the next wave opens after 600 s and 20 parts per box")


def _standing(name: str, number: int, failed: set[str]) -> Standing:
    if name in failed:
        return Standing(name, "failed", 1, ReportReason.PROBATION_FAILED, seed.NOW, 18)
    if number < 5 or name == "edge-1":
        return Standing(name, "ok", 0, None, seed.NOW, 412)
    return Standing(name, "pending", 1)


@dataclass
class Plant:
    """The application and what a test may look at and change."""

    app: FastAPI
    services: Any
    actor: str | None = "anna"
    down: bool = False
    refuse: bool = False
    lose_answers: int = 0
    posts: list[str] = field(default_factory=list)
    clock: int = seed.NOW

    def labels(self) -> list[tuple[str, str | None, int | None]]:
        """(sid, name, undoes) of every label given during the test."""
        with self.services.reads() as session:
            rows = session.scalars(select(Label).where(Label.labelled_at > seed.NOW).order_by(Label.id)).all()
            return [(row.sid, row.name, row.undoes) for row in rows]


def build(folder: Path, *, seeded: bool = True, tasks: int = 12) -> Plant:
    """A dashboard on a new SQLite database in `folder`."""
    engine = open_engine(f"sqlite:///{folder / 'cloud.db'}")
    Table.metadata.create_all(engine)
    begin, read = transactions(engine), reads(engine)
    if seeded:
        with begin() as session:
            seed.fill(session, tasks=tasks)
    app = FastAPI()
    services = SimpleNamespace(begin=begin, reads=read, accuracy=AccuracyAnswers(), rollout=RolloutAnswers(read))
    plant = Plant(app, services)
    services.now = lambda: plant.clock
    services.labels = LabelService(begin=begin, reads=read, now=lambda: plant.clock + 1)
    services.images = Pictures()
    app.state.services = services

    @app.middleware("http")
    async def sign_in(request: Request, call_next: Any) -> Response:
        if plant.actor is not None:
            request.state.actor = plant.actor
        response: Response = await call_next(request)
        return response

    @app.exception_handler(Problem)
    async def problem(_request: Request, fault: Exception) -> Response:
        assert isinstance(fault, Problem)
        return fault.response()

    @app.get("/login")
    def login(request: Request, next: str = "/", error: str | None = None) -> Response:
        return login_page(request, error=error, next_path=next)

    app.include_router(router)
    app.include_router(labels_router)
    _faults(app, plant)
    mount_static(app)
    return plant


class Pictures:
    """Stands for the object store: an image for every digest."""

    def read(self, sha256: str) -> bytes:
        return cell_image(int(sha256, 16) % 10_000)


def _faults(app: FastAPI, plant: Plant) -> None:
    """The network between browser and API, as bad as the test wants it."""

    @app.middleware("http")
    async def faults(request: Request, call_next: Any) -> Response:
        writes = request.method == "POST" and request.url.path.startswith("/api/")
        if writes:
            plant.posts.append(request.url.path.rsplit("/", 1)[-1])
        if request.url.path.startswith("/api/") and plant.down:
            return Problem(503, "down", "The server is restarting.").response()
        if writes and plant.refuse:
            return Problem(409, "closed", "This sample was withdrawn.").response()
        answer: Response = await call_next(request)
        if writes and plant.lose_answers:
            plant.lose_answers -= 1
            return Problem(502, "gateway", "The answer was lost.").response()
        return answer


def cell_image(number: int, *, side: int = 300) -> bytes:
    """A picture somewhat like an electroluminescence image of a solar cell: busbars, grains, sometimes a dark crack."""
    rng = np.random.default_rng(number)
    grains = cv2.resize(rng.normal(0, 1, (24, 24)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    image = 150 + 22 * grains + rng.normal(0, 5, (side, side)).astype(np.float32)
    for bar in (0.2, 0.5, 0.8):
        image[int(bar * side) - 3 : int(bar * side) + 3] *= 0.35
    if number % 2:
        points = (rng.uniform(0.1, 0.9, (4, 2)) * side).astype(np.int32)
        cv2.polylines(image, [points[points[:, 0].argsort()]], isClosed=False, color=30, thickness=3)
    yes, data = cv2.imencode(".png", np.clip(image, 0, 255).astype(np.uint8))
    assert yes
    return data.tobytes()
