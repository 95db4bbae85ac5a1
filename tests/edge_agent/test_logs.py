"""Logs tell what happened and never what a frame held."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from edge_agent.logs import configure


@pytest.fixture(autouse=True)
def restored() -> object:
    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


def test_a_traceback_has_no_locals(capsys: pytest.CaptureFixture[str]) -> None:
    configure(edge="edge-1", line="cells")

    def open_door(key: str) -> None:
        raise ValueError("the door is stuck" if key else "no key")

    try:
        open_door("s3cret-key")
    except ValueError:
        structlog.get_logger("test").exception("door_failed")
        logging.getLogger("library").exception("door failed")
    said = capsys.readouterr().err
    assert "s3cret-key" not in said
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["edge"] for event in events] == ["edge-1", "edge-1"]
    assert all("the door is stuck" in json.dumps(event) for event in events)
    assert all("open_door" in json.dumps(event) for event in events)
