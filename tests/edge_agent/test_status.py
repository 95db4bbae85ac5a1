from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from edge_agent.status import StatusPage, as_metrics, as_page

VALUES = {
    "edge": "edge-1",
    "line": "cells",
    "parts": {"inspected": 5},
    "latency_ms": {"p50": None},
    "update": {"trouble": "<script>alert(1)</script>"},
    "box": {"clock_ok": True},
    "cameras": {"cam-1": {"state": "failed", "frames": 3}},
}


@pytest.fixture
def page() -> Iterator[StatusPage]:
    page = StatusPage(lambda: VALUES, host="127.0.0.1", port=0)
    page.start()
    yield page
    page.stop()


def get(page: StatusPage, path: str) -> tuple[str, str]:
    host, port = page.address
    with urlopen(f"http://{host}:{port}{path}", timeout=5) as reply:
        return reply.headers["Content-Type"], reply.read().decode()


def test_json_is_the_snapshot(page: StatusPage) -> None:
    kind, body = get(page, "/status.json")
    assert (kind, json.loads(body)) == ("application/json", VALUES)


def test_the_page_escapes_what_others_wrote(page: StatusPage) -> None:
    _, body = get(page, "/")
    assert "&lt;script&gt;" in body
    assert "<script>" not in body
    assert "edge-1 on line cells" in body


def test_metrics_are_numbers_only(page: StatusPage) -> None:
    lines = get(page, "/metrics")[1].splitlines()
    assert "edgeloop_agent_parts_inspected 5.0" in lines
    assert "edgeloop_agent_box_clock_ok 1.0" in lines
    assert 'edgeloop_agent_camera_ok{camera="cam-1"} 0.0' in lines
    assert not any("trouble" in line or "p50" in line for line in lines)
    for line in lines:
        float(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize(("path", "method", "code"), [("/etc/passwd", "GET", 404), ("/", "POST", 501)])
def test_nothing_else_is_served(page: StatusPage, path: str, method: str, code: int) -> None:
    host, port = page.address
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"http://{host}:{port}{path}", method=method), timeout=5)
    with caught.value:
        assert caught.value.code == code


def test_a_snapshot_that_fails_is_a_500_and_the_page_lives_on() -> None:
    answers = iter([RuntimeError("spool away"), VALUES])

    def snapshot() -> dict[str, object]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    page = StatusPage(snapshot, host="127.0.0.1", port=0)
    page.start()
    try:
        with pytest.raises(HTTPError) as caught:
            get(page, "/status.json")
        with caught.value:
            assert caught.value.code == 500
        assert get(page, "/status.json")[0] == "application/json"
    finally:
        page.stop()


def test_empty_values_have_a_page() -> None:
    assert as_page({})
    assert as_metrics({}) == "\n"
