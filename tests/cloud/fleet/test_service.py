"""The fleet: enrolment binds a name to its certificate, status follows what was heard, accounts balance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud.db.tables import Audit, Edge
from cloud.fleet.schemas import NewEdge
from cloud.fleet.service import FleetService
from cloud.http import Problem
from cloud.identity import LocalCa
from tests.cloud.ingest.test_records import heartbeat, loss
from tests.cloud.kit import EPOCH, Plant, Shot, png

NOW = datetime(2026, 9, 21, tzinfo=UTC)


@pytest.fixture
def fleet(plant: Plant) -> FleetService:
    return FleetService(begin=plant.begin, reads=plant.reads, now=plant.clock, ingest_numbers=plant.service.numbers)


def code_of(call, *args, **more) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(Problem) as caught:
        call(*args, **more)
    return caught.value.code


def test_a_box_is_enrolled_with_its_own_certificate(plant: Plant, fleet: FleetService, tmp_path: Path) -> None:
    ca = LocalCa.create(tmp_path / "ca", now=NOW)
    pem = ca.issue("edge-3", kind="device", now=NOW).pem
    view = fleet.enrol(NewEdge(name="edge-3", line="cells", certificate=pem), actor="cli")
    assert (view.status, view.certified) == ("never", True)
    fleet.enrol(NewEdge(name="edge-3", line="cells", certificate=pem), actor="cli")
    assert len(plant.rows(Edge)) == 3
    assert [row.action for row in plant.rows(Audit)] == ["edge_enrolled"] * 2
    assert code_of(fleet.enrol, NewEdge(name="edge-4", line="cells", certificate=pem), actor="cli") == "wrong_name"
    assert code_of(fleet.enrol, NewEdge(name="edge-3", line="other"), actor="cli") == "other_line"
    assert code_of(fleet.enrol, NewEdge(name="edge-5", line="nowhere"), actor="cli") == "not_found"
    assert code_of(fleet.enrol, NewEdge(name="x", line="cells", certificate="no PEM"), actor="a") == "bad_certificate"


def test_status_follows_what_was_heard(plant: Plant, fleet: FleetService) -> None:
    def status() -> str:
        return fleet.fleet("cells").edges[0].status

    assert status() == "never"
    plant.send("hb", heartbeat())
    assert status() == "online"
    plant.send("state", b'{"v":1,"edge":"edge-1","online":false}')
    assert status() == "online"  # for 30 s: it may only be reconnecting
    plant.clock.advance(31)
    assert status() == "offline"
    plant.send("hb", heartbeat())
    assert status() == "online"
    plant.clock.advance(91)
    assert status() == "silent"
    assert fleet.fleet("other").edges == []
    assert fleet.fleet().ingest["hb"] == 2


def test_stored_pending_and_lost_tile_the_sequence(plant: Plant, fleet: FleetService) -> None:
    for seq in (1, 2, 6, 8):
        assert plant.upload(Shot(seq, png(seq))) == "stored"
    plant.send("loss", loss())
    plant.send(
        "hb",
        heartbeat(max_seq=8, pending={"n": 1, "bytes": 9, "oldest_age_s": 1.0}, pending_ranges=[[7, 7]]),
    )
    view = fleet.conservation("cells")
    assert view.holds
    (account,) = view.accounts
    assert (account.edge, account.epoch, account.current) == ("edge-1", EPOCH, True)
    assert (account.stored, account.pending, account.lost, account.missing) == (4, 1, {"thinned": 3}, [])


def test_a_hole_is_found(plant: Plant, fleet: FleetService) -> None:
    plant.upload(Shot(1, png(1)))
    plant.upload(Shot(3, png(3)))
    plant.upload(Shot(1, png(4), edge="edge-2"))
    plant.send("hb", heartbeat(max_seq=4))
    view = fleet.conservation("cells")
    assert not view.holds
    missing = {account.edge: account.missing for account in view.accounts}
    assert missing == {"edge-1": [(2, 2), (4, 4)], "edge-2": []}
    assert code_of(fleet.conservation, "nowhere") == "not_found"
