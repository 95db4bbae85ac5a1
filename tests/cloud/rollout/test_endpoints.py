"""The HTTP of lines, jobs, registry and rollout over the real services, without the web application's guard."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from cloud.http import Problem
from cloud.jobs import endpoints as jobs
from cloud.jobs.hourly import TrainingTrigger
from cloud.lines import endpoints as lines
from cloud.registry import endpoints as registry
from cloud.rollout import endpoints as rollout
from tests.cloud.registry.world import LINE, image
from tests.cloud.rollout.site import Site

API = f"/api/v1/lines/{LINE}"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.add_boxes("edge-1", "edge-2")
    return made


@pytest.fixture
def client(site: Site) -> TestClient:
    app = FastAPI()
    for module in (lines, jobs, registry, rollout):
        app.include_router(module.router)
    app.state.services = SimpleNamespace(
        lines=site.lines, jobs=site.jobs, registry=site.registry, rollout=site.rollout,
        training=TrainingTrigger(begin=site.begin, reads=site.reads, now=site.clock, jobs=site.jobs),
    )  # fmt: skip

    @app.exception_handler(Problem)
    async def problem(_: Request, fault: Problem) -> JSONResponse:
        return fault.response()

    @app.middleware("http")
    async def signed_in(request: Request, go_on):  # type: ignore[no-untyped-def]
        request.state.actor = "ana"
        return await go_on(request)

    return TestClient(app)


def test_a_line_is_made_listed_and_extended(client: TestClient) -> None:
    classes = [{"name": "ok", "defect": False}, {"name": "dent", "defect": True, "must_catch": True}]
    made = client.post("/api/v1/lines", json={"name": "tiles", "title": "Tiles", "classes": classes})
    assert made.status_code == 201
    assert made.json()["classes"][1]["must_catch"] is True
    assert client.post("/api/v1/lines", json={"name": "x", "title": "X", "classes": classes[:1]}).status_code == 422
    other = client.post("/api/v1/lines", json={"name": "tiles", "title": "Other", "classes": classes})
    assert (other.status_code, other.json()["code"]) == (409, "line_exists")
    assert client.post("/api/v1/lines/tiles/classes", json={"name": "hole", "defect": True}).status_code == 201
    assert [line["name"] for line in client.get("/api/v1/lines").json()] == [LINE, "tiles"]
    assert client.get("/api/v1/lines/nowhere").json()["code"] == "not_found"


def test_a_reference_image_is_imported(client: TestClient) -> None:
    where = f"{API}/references/gate"
    sent = client.post(where, params={"label": "good", "domain": "mono"}, content=image((1, 99, 1), 0))
    assert (sent.status_code, sent.json()) == (201, {"added": 1, "known": 0})
    assert client.get(where).json()["by_domain"] == {"mono": 1}
    bad = client.post(where, params={"label": "good"}, content=b"no image")
    assert (bad.status_code, bad.json()["code"]) == (422, "unreadable_image")
    assert client.post(where, params={"label": "good", "colour": "x"}, content=b"").status_code == 422
    assert client.post(f"{API}/references/attic", params={"label": "good"}, content=b"").status_code == 422


def test_training_on_demand_is_a_job(client: TestClient) -> None:
    assert client.post(f"{API}/jobs/train").status_code == 202
    assert client.post(f"{API}/jobs/train").json()["code"] == "training_in_flight"
    assert [job["state"] for job in client.get(f"{API}/jobs").json()] == ["ready"]


def test_a_release_from_start_to_rollback(client: TestClient, site: Site) -> None:
    for release in (1, 2):
        site.accept(release)
        made = client.post(f"{API}/releases", json={"adapter_release": release, "reason": "new"})
        assert (made.status_code, made.json()["actor"]) == (201, "ana")
        site.spread()
    assert [c["state"] for c in client.get(f"{API}/candidates").json()] == ["published", "published"]
    assert client.get(f"{API}/candidates/1").json()["report"] == {"summary": "fine"}
    status = client.get(f"{API}/releases/2").json()
    totals = status["totals"]
    assert totals["boxes"] == 2 == sum(value for name, value in totals.items() if name != "boxes")
    assert {box["state"] for box in status["boxes"]} == {"ok"}
    back = client.post(f"{API}/rollback", json={"to": 1, "reason": "customers call"})
    assert (back.status_code, back.json()["rollback_of"]) == (201, 2)
    assert [row["number"] for row in client.get(f"{API}/releases").json()] == [3, 2, 1]


def test_acts_need_a_reason_and_a_running_release(client: TestClient, site: Site) -> None:
    site.accept(1)
    client.post(f"{API}/releases", json={"adapter_release": 1, "reason": "new"})
    assert client.post(f"{API}/releases/1/pause", json={}).status_code == 422
    assert client.post(f"{API}/releases/1/pause", json={"reason": " "}).status_code == 422
    assert client.post(f"{API}/releases/1/pause", json={"reason": "wait"}).json()["paused"] is True
    assert client.post(f"{API}/releases/1/resume", json={"reason": "go"}).json()["paused"] is False
    assert client.post(f"{API}/releases/1/abort", json={"reason": "no"}).json()["state"] == "aborted"
    assert client.post(f"{API}/releases/1/abort", json={"reason": "no"}).json()["code"] == "not_running"
    assert client.post(f"{API}/releases/1/explode", json={"reason": "no"}).status_code == 422
    assert client.get(f"{API}/releases/9").status_code == 404
