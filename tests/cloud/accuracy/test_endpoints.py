"""The shape of the answer over HTTP, which the dashboard and the demo read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from cloud.accuracy.endpoints import router
from cloud.accuracy.service import AccuracyService
from cloud.http import Problem
from tests.cloud.accuracy.rows import Book
from tests.cloud.kit import Plant


@pytest.fixture
def client(plant: Plant) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(router)
    app.state.services = SimpleNamespace(
        accuracy=AccuracyService(begin=plant.begin, reads=plant.reads, now=plant.clock)
    )

    @app.middleware("http")
    async def sign_in(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.actor = request.headers.get("x-actor")
        return await call_next(request)

    @app.exception_handler(Problem)
    async def problem(_request: Request, fault: Exception) -> Response:
        assert isinstance(fault, Problem)
        return fault.response()

    with TestClient(app, headers={"x-actor": "ann"}) as made:
        yield made


def test_by_period_and_by_release(plant: Plant, client: TestClient) -> None:
    book = Book(plant)
    for i in range(25):
        book.sample("crack" if i < 2 else "good")
    book.aggregate(250, sum_g=225.0)
    for by in ("period", "release"):
        (row,) = client.get("/api/v1/lines/cells/accuracy", params={"by": by}).json()
        assert row[by] is not None
        assert (row["labels"], row["needed"], row["status"]) == (25, 20, "ok")
        assert row["accuracy"]["low"] < row["accuracy"]["value"] < row["accuracy"]["high"]
        assert set(row["accuracy"]) == {"value", "low", "high", "labels", "effective", "method"}


def test_bad_questions_are_refused(client: TestClient) -> None:
    assert client.get("/api/v1/lines/nowhere/accuracy").status_code == 404
    assert client.get("/api/v1/lines/cells/accuracy", params={"by": "shift"}).status_code == 422
    assert client.get("/api/v1/lines/cells/accuracy", params={"periods": 0}).status_code == 422
