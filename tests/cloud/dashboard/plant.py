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
from cloud.db.tables import DeviceReportRow, Edge, Label, Line, Sample, Table, Task
from cloud.http import Problem
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
    )  # fmt: skip


class RolloutAnswers:
    """Totals that sum to the boxes of the line."""

    def __init__(self, read: Any) -> None:
        self._reads = read

    def status(self, line: str, number: int) -> Any:
        with self._reads() as session:
            edges = session.scalars(select(Edge).where(Edge.line == line)).all()
            failed = set(session.scalars(select(DeviceReportRow.edge).where(DeviceReportRow.attempted == number)))
        boxes = [
            SimpleNamespace(
                edge=edge.name,
                state="failed" if edge.name in failed else "ok" if number < 5 or edge.name == "edge-1" else "pending",
                reason="probation_failed" if edge.name in failed else None,
            )
            for edge in edges
        ]
        totals = {state: sum(box.state == state for box in boxes) for state in ("ok", "failed", "pending", "offline")}
        return SimpleNamespace(totals={**totals, "excluded": 0}, boxes=boxes)


@dataclass
class Plant:
    """The application and what a test may look at and change."""

    app: FastAPI
    services: Any
    actor: str | None = "anna"
    down: bool = False
    refuse: bool = False
    lose_answers: int = 0
    posts: list[tuple[str, str]] = field(default_factory=list)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
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
    def login(request: Request, next: str = "/", error: str | None = None) -> Response:  # noqa: A002
        return login_page(request, error=error, next_path=next)

    app.include_router(router)
    _label_api(app, plant)
    mount_static(app)
    return plant


def _label_api(app: FastAPI, plant: Plant) -> None:
    services = plant.services

    @app.get("/api/v1/lines/{line}/queue")
    def queue(line: str, limit: int = 20) -> Any:
        if plant.down:
            raise Problem(503, "down", "The server is restarting.")
        with services.reads() as session:
            classes = session.get(Line, line).classes
            rows = session.execute(
                select(Task, Sample).join(Sample, Sample.sid == Task.sid)
                .where(Task.line == line, Task.state == "open").order_by(Task.queue, Task.value.desc()).limit(limit)
            ).all()  # fmt: skip
        return [
            {"sid": task.sid, "image_url": f"/api/v1/samples/{task.sid}/image", "queue": task.queue,
             "predicted": sample.predicted, "confidence": sample.confidence, "verdict": sample.verdict,
             "evidence": sample.meta.get("evidence"), "evidence_grid": sample.meta.get("evidence_grid"),
             "classes": classes}
            for task, sample in rows
        ]  # fmt: skip

    @app.get("/api/v1/samples/{sid}/image")
    def image(sid: str) -> Response:
        return Response(cell_image(int(sid[-6:], 16)), media_type="image/png")

    @app.post("/api/v1/samples/{sid}/labels")
    def label(sid: str, body: dict[str, Any], request: Request) -> Any:
        plant.posts.append(("label", sid))
        if plant.down:
            raise Problem(503, "down", "The server is restarting.")
        if plant.refuse:
            raise Problem(409, "closed", "This sample was withdrawn.")
        key = request.headers["idempotency-key"]
        if key not in plant.keys:
            with services.begin() as session:
                row = Label(sid=sid, line="cells", name=body["name"], author=plant.actor or "", method=body["method"],
                            note=body.get("note"), queue="value", labelled_at=seed.NOW + 1)  # fmt: skip
                session.add(row)
                session.get(Task, sid).state = "closed"
                session.flush()
                plant.keys[key] = {"id": row.id}
        if plant.lose_answers:
            plant.lose_answers -= 1
            raise Problem(502, "gateway", "The answer was lost.")
        return plant.keys[key]

    @app.post("/api/v1/samples/{sid}/skip")
    def skip(sid: str) -> Any:
        plant.posts.append(("skip", sid))
        return {}

    @app.post("/api/v1/labels/{label_id}/undo")
    def undo(label_id: int) -> Any:
        plant.posts.append(("undo", str(label_id)))
        with services.begin() as session:
            row = session.get(Label, label_id)
            session.add(Label(sid=row.sid, line="cells", name=None, author=plant.actor or "", method="single",
                              queue="value", labelled_at=seed.NOW + 2, undoes=row.id))  # fmt: skip
            session.get(Task, row.sid).state = "open"
        return {}


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
