"""Losses, aggregates, flags, reports, heartbeats: taken once, acknowledged after the commit, refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.clock import from_us
from cloud.db.tables import AggregateRow, Audit, DeadLetter, Edge, FlagRow, LossRow, Task
from models.contracts.base import canonical
from tests.cloud.kit import EPOCH, NOW, Plant, Shot, png

AT = from_us(NOW).isoformat()
ID = "0190163d-8694-739b-aea5-966c26f8ad90"


def loss(**changes: Any) -> bytes:
    ranges = [{"first": 3, "last": 5, "reason": "thinned", "policy": "coin"}]
    return canonical(
        {"v": 1, "id": ID, "edge": "edge-1", "epoch": EPOCH, "ranges": ranges, "declared_at": AT} | changes
    )


def aggregate(**changes: Any) -> bytes:
    cell = {"camera": "cam-1", "release": 1, "predicted": "good", "n": 10, "n_selected": 2, "hist": [0] * 20}
    document = {
        "v": 1, "id": ID, "edge": "edge-1", "epoch": EPOCH, "number": 1, "line": "cells", "period_start": AT,
        "period_end": AT, "period": 4, "cells": [cell, {**cell, "predicted": "crack"}],
    }  # fmt: skip
    return canonical(document | changes)


def flag(**changes: Any) -> bytes:
    return canonical(
        {"v": 1, "id": ID, "edge": "edge-1", "line": "cells", "serial": "P1", "reason": "wrong", "flagged_at": AT}
        | changes
    )


def heartbeat(**changes: Any) -> bytes:
    document = {
        "v": 1, "edge": "edge-1", "epoch": EPOCH, "sent_at": AT, "clock_ok": True, "version": "0.1", "line": "cells",
        "max_seq": 5, "pending": {"n": 0, "bytes": 0, "oldest_age_s": 0.0}, "inspected": 9, "selected": 5,
        "dropped_frames": 0, "release": 2, "disk_free": 1,
    }  # fmt: skip
    return canonical(document | changes)


@pytest.mark.parametrize(
    ("kind", "payload", "table", "rows"),
    [("loss", loss(), LossRow, 1), ("agg", aggregate(), AggregateRow, 2), ("flag", flag(), FlagRow, 1)],
)
def test_a_record_is_taken_once_and_acknowledged_each_time(
    plant: Plant, kind: Any, payload: bytes, table: Any, rows: int
) -> None:
    for _ in range(3):
        answer = plant.send(kind, payload)
        assert answer is not None
        assert [(record.id, record.result) for record in answer.records] == [(ID, "stored")]
    assert len(plant.rows(table)) == rows


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        ("loss", loss(ranges=[{"first": 5, "last": 3, "reason": "thinned"}]), "bad_range"),
        ("agg", aggregate(line="other"), "wrong_line"),
        ("agg", aggregate(period=2**40), "bad_cell"),
        ("agg", aggregate(cells=[{"camera": "c", "release": 1, "n": 1, "n_selected": 2}]), "bad_cell"),
        ("agg", aggregate(cells=[{"camera": "c", "release": 1, "n": 1, "n_selected": 0, "hist": [-1]}]), "bad_cell"),
        ("flag", flag(line="other"), "wrong_line"),
        (
            "flag",
            canonical({"v": 1, "id": ID, "edge": "edge-1", "line": "cells", "reason": "", "flagged_at": AT}),
            "no_part",
        ),
        ("loss", loss(ranges=[]), "malformed"),
        ("agg", aggregate(cells="none"), "malformed"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(plant: Plant, kind: Any, payload: bytes, code: str) -> None:
    answer = plant.send(kind, payload)
    assert answer is not None
    assert [(record.result, record.code) for record in answer.records] == [("no", code)]
    assert plant.rows(LossRow) == plant.rows(AggregateRow) == plant.rows(FlagRow) == []
    if code == "malformed":
        assert len(plant.rows(DeadLetter)) == 1
    else:
        assert [row.action for row in plant.rows(Audit)] == ["record_refused"]


@pytest.mark.parametrize("kind", ["loss", "agg", "flag", "report", "hb", "state"])
def test_garbage_is_a_dead_letter_without_an_answer(plant: Plant, kind: Any) -> None:
    assert plant.send(kind, b"\x00garbage") is None
    assert [letter.code for letter in plant.rows(DeadLetter)] == ["malformed"]


def test_a_record_of_an_unknown_edge_is_not_answered_so_the_edge_keeps_it(plant: Plant) -> None:
    assert plant.send("loss", loss(edge="edge-9"), edge="edge-9") is None
    assert plant.rows(LossRow) == []


def test_a_flag_moves_the_open_task_to_the_front(plant: Plant) -> None:
    shots = [Shot(seq, png(seq), u=0.1) for seq in range(1, 9)]
    for shot in shots:
        plant.upload(shot)
    task = next(row for row in plant.rows(Task) if row.queue == "value")
    plant.send("flag", flag(sid=task.sid))
    (moved,) = [row for row in plant.rows(Task) if row.sid == task.sid]
    assert moved.value == 1.0


def test_a_report_goes_to_the_rollout_and_its_word_decides_the_answer(plant: Plant) -> None:
    payload = canonical({"v": 1, "id": ID, "edge": "edge-1", "body": "{}", "signature": "x"})
    answer = plant.send("report", payload)
    assert answer is not None
    assert answer.records[0].result == "stored"
    plant.report_answer = False
    answer = plant.send("report", payload)
    assert answer is not None
    assert (answer.records[0].result, answer.records[0].code) == ("no", "report")
    assert [report.edge for report in plant.reports] == ["edge-1", "edge-1"]


def test_a_heartbeat_and_presence_keep_the_box_current(plant: Plant) -> None:
    assert plant.send("hb", heartbeat()) is None
    edge = next(row for row in plant.rows(Edge) if row.name == "edge-1")
    assert (edge.online, edge.seen_at, edge.release, edge.epoch) == (True, NOW, 2, EPOCH)
    assert edge.heartbeat["max_seq"] == 5
    plant.send("state", canonical({"v": 1, "edge": "edge-1", "online": False}))
    assert not next(row for row in plant.rows(Edge) if row.name == "edge-1").online


def test_a_sequence_number_that_falls_is_an_alarm(plant: Plant) -> None:
    plant.send("hb", heartbeat(max_seq=50))
    plant.send("hb", heartbeat(max_seq=49))
    assert [row.action for row in plant.rows(Audit)] == ["sequence_alarm"]
    plant.send("hb", heartbeat(max_seq=1, epoch="f" * 16))
    assert len(plant.rows(Audit)) == 1


def test_a_heartbeat_for_another_edge_is_refused(plant: Plant) -> None:
    plant.send("hb", heartbeat(), edge="edge-2")
    assert [letter.code for letter in plant.rows(DeadLetter)] == ["wrong_edge"]
    assert all(edge.seen_at is None for edge in plant.rows(Edge))
