"""Watching from outside: growing journals, memory, and an API that may be away."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulators.demo.journal import Journals
from simulators.demo.records import CloudApi, Records
from simulators.demo.watch import Watch, estimates, peak_bytes
from tests.simulators.demo.tiny_run import FIRST, SCENARIO, SHOWINGS, records

ROW = {
    "serial": "P000001", "captured_at": "1970-01-01T11:06:45+00:00", "period": 1000, "camera": "cam-1",
    "verdict": "pass", "predicted": "good", "defect_score": 0.1, "confidence": 0.9, "cannot_judge": None,
    "release": 1, "latency_ms": 20.0, "sid": None, "stratum": None,
}  # fmt: skip
ACCURACY = [
    {"period": 1000, "labels": 24, "needed": 20, "status": "ok", "accuracy": {"value": 0.8, "low": 0.6, "high": 0.9}},
    {"period": 1001, "labels": 3, "needed": 20, "status": "not_enough_labels", "accuracy": None},
    {"period": 1002, "labels": 30, "needed": 20, "status": "reviewers_unreliable", "accuracy": None},
]


def line(serial: str) -> bytes:
    return json.dumps({**ROW, "serial": serial}).encode() + b"\n"


def test_a_growing_journal_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "edge-1.jsonl"
    journals = Journals({"edge-1": path})
    assert journals.poll() == []
    path.write_bytes(line("P000001") + line("P000003")[:20])
    assert [entry.serial for entry in journals.poll()] == ["P000001"]
    path.write_bytes(line("P000001") + line("P000003"))
    assert [entry.serial for entry in journals.poll()] == ["P000003"]
    assert journals.poll() == []
    assert [entry.captured_at for entry in journals.entries] == [40_005.0, 40_005.0]


def test_a_line_that_is_no_journals_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"serial": "P1"}\n')
    with pytest.raises(ValueError, match="journal of edge-1: not a journal's line"):
        Journals({"edge-1": tmp_path / "a"}).poll()


def test_peak_memory_of_this_process_and_of_none() -> None:
    assert peak_bytes(os.getpid()) > 10_000_000
    assert peak_bytes(2**22 + 1) == 0


def test_estimates_with_and_without_enough_labels() -> None:
    found = estimates(ACCURACY)
    assert (found[1000].value, found[1000].low, found[1000].high, found[1000].note) == (0.8, 0.6, 0.9, None)
    assert found[1001].value is None
    assert found[1001].note == "not enough labels: 3 of 20"
    assert found[1002].note == "reviewers unreliable"


class FakeApi:
    """The cloud's answers; `away` makes it unreachable."""

    def __init__(self) -> None:
        self.away = False

    def handle(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        answers: dict[str, Any] = {
            "accuracy": ACCURACY,
            "fleet": {"edges": [{"name": "edge-1", "heartbeat": {"release": 2}}], "ingest": {}},
            "queue": {"open": {"estimate": 2, "value": 3}, "tasks": []},
        }
        return httpx.Response(200, json=answers[request.url.path.rsplit("/", 1)[1]])


def watch(tmp_path: Path, fake: FakeApi, now: list[float]) -> Watch:
    api = CloudApi("http://cloud", token="t", transport=httpx.MockTransport(fake.handle))
    journals = Journals({"edge-1": tmp_path / "edge-1.jsonl"})
    known: Records = records()
    return Watch(SCENARIO, FIRST, SHOWINGS, journals, api, records=lambda: known, boxes={}, now=lambda: now[0])


def test_a_snapshot_joins_journals_and_answers(tmp_path: Path) -> None:
    (tmp_path / "edge-1.jsonl").write_bytes(line("P000001"))
    seen = watch(tmp_path, FakeApi(), [FIRST + 50]).look()
    assert (seen.hour, seen.seconds_left) == (2, 30.0)
    assert seen.hours[0].frames == 1
    assert seen.estimates[1].value == 0.8
    assert seen.open_tasks == 5
    assert seen.releases == {"edge-1": 2}
    assert (seen.uploads, seen.labels) == ({1: 1, 2: 1}, {1: 1})


def test_before_the_first_hour_there_is_a_countdown(tmp_path: Path) -> None:
    seen = watch(tmp_path, FakeApi(), [FIRST - 12]).look()
    assert (seen.hour, seen.seconds_left) == (0, 12.0)


def test_when_the_cloud_is_away_the_last_answer_stands(tmp_path: Path) -> None:
    fake, now = FakeApi(), [FIRST + 50]
    one = watch(tmp_path, fake, now)
    one.look()
    fake.away, now[0] = True, FIRST + 60
    assert one.look().open_tasks == 5
    assert one.unanswered == 1
