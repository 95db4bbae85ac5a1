"""What the tables of the cloud say, as plain rows: written into a real database, read back as the demo does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from cloud.db.session import open_engine, reads, transactions
from cloud.db.tables import (
    BaseRow,
    Candidate,
    DeviceReportRow,
    Edge,
    Label,
    Line,
    Release,
    Sample,
    Snapshot,
    Table,
)
from simulators.demo.records import CloudApi, read_records

LINE = "cells"
S = 1_000_000


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'cloud.db'}")
    Table.metadata.create_all(engine)
    with transactions(engine)() as session:
        session.add(Line(name=LINE, title="Cells", classes=[], created_at=0))
        session.flush()
        session.add(Edge(name="edge-1", line=LINE, enrolled_at=0))
    yield engine
    engine.dispose()


def sample(number: int) -> Sample:
    return Sample(
        sid=f"sid-{number}", edge="edge-1", epoch="0" * 16, seq=number, line=LINE, camera="cam-1",
        serial=f"P{number:06d}", captured_at=number * S, clock_ok=True, received_at=number * S,
        stored_at=number * S + S, sha256="a" * 64, size=1, type="image/png", verdict="pass", stratum="hard",
        pi_select=0.5, release=1, meta={}, meta_sha="b" * 64,
    )  # fmt: skip


def label(id: int, number: int, name: str | None, *, at: int, undoes: int | None = None) -> Label:
    return Label(
        id=id, sid=f"sid-{number}", line=LINE, name=name, author="r", method="single", queue="estimate",
        labelled_at=at * S, undoes=undoes,
    )  # fmt: skip


def blob(letter: str, length: int) -> dict[str, object]:
    return {"sha256": letter * 64, "length": length}


def test_uploads_and_the_labels_that_count(engine: Engine) -> None:
    with transactions(engine)() as session:
        session.add_all([sample(1), sample(2), sample(3)])
        session.flush()
        session.add_all(
            [
                label(1, 1, "good", at=10),
                label(2, 1, "defective", at=20),  # corrected: the newest counts
                label(3, 2, "good", at=12),
                label(4, 2, None, at=13, undoes=3),  # taken back: none counts
                label(5, 3, "good", at=5),
            ]
        )
    found = read_records(reads(engine), LINE)
    assert [(one.serial, one.stored_at) for one in found.uploads] == [("P000001", 2), ("P000002", 3), ("P000003", 4)]
    assert [(one.serial, one.name, one.at) for one in found.labels] == [
        ("P000003", "good", 5.0),
        ("P000001", "defective", 20.0),
    ]


def test_what_was_trained_released_and_reported(engine: Engine) -> None:
    manifest = {"head": {"blob": blob("a", 10)}, "refs": blob("b", 20), "adapter": {"blob": blob("c", 300)}}
    with transactions(engine)() as session:
        session.add(BaseRow(sha256="d" * 64, family="nano", version=1, manifest={}, checkpoint="e" * 64, created_at=0))
        session.add(Snapshot(sha256="f" * 64, line=LINE, labels=9, as_of=40 * S, created_at=40 * S))
        session.flush()
        for number, snapshot in ((1, None), (2, "f" * 64)):
            session.add(
                Candidate(
                    line=LINE, release=number, model_version="v", state="published", manifest=manifest,
                    manifest_sha="1" * 64, base_sha="d" * 64, snapshot=snapshot, created_at=0, decided_at=45 * S,
                )
            )  # fmt: skip
        session.add(
            Release(
                line=LINE, number=2, adapter_release=2, adapter_sha="1" * 64, state="complete", wave_opened_at=0,
                manifest={}, actor="gate", created_at=46 * S, live_at=55 * S,
            )
        )  # fmt: skip
        session.add(
            DeviceReportRow(
                edge="edge-1", line=LINE, counter=1, state="committed", release=2, loaded="1" * 64,
                report={}, received_at=54 * S,
            )
        )  # fmt: skip
    found = read_records(reads(engine), LINE)
    assert [(one.release, one.as_of, one.labels, one.bytes) for one in found.trained] == [
        (1, None, 0, 330),
        (2, 40.0, 9, 330),
    ]
    assert [(one.number, one.created_at, one.live_at) for one in found.rolled] == [(2, 46.0, 55.0)]
    assert [(one.edge, one.loaded, one.at) for one in found.told] == [("edge-1", "1" * 64, 54.0)]


def test_another_lines_rows_are_not_ours(engine: Engine) -> None:
    with transactions(engine)() as session:
        session.add(sample(1))
    assert read_records(reads(engine), "other").uploads == []


def test_an_unhealthy_or_absent_cloud_is_not_healthy() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert not CloudApi("http://cloud", token="t", transport=httpx.MockTransport(refuse)).healthy()
    broken = httpx.MockTransport(lambda _request: httpx.Response(503))
    assert not CloudApi("http://cloud", token="t", transport=broken).healthy()
