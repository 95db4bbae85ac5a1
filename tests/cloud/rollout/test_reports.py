from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.db.tables import DeviceReportRow, Edge
from models.contracts.base import decode
from models.contracts.control import DeviceReport, SignedReport, UpdateState
from tests.cloud.rollout.site import BoxOfTests, Site, certificate


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.add_boxes("edge-1", "edge-2")
    return made


def kept(site: Site) -> int:
    with site.reads() as session:
        return session.query(DeviceReportRow).count()


def test_a_signed_report_is_kept_and_moves_the_box(site: Site) -> None:
    assert site.rollout.on_report(site.boxes["edge-1"].report(UpdateState.COMMITTED, 3, loaded="a" * 64))
    with site.reads() as session:
        edge = session.get(Edge, "edge-1")
        assert edge is not None
        assert (edge.release, edge.update_state, edge.report_counter) == (3, "committed", 1)
    assert kept(site) == 1


def test_redelivered_is_acknowledged_and_kept_once(site: Site) -> None:
    report = site.boxes["edge-1"].report(UpdateState.IDLE, 1)
    assert site.rollout.on_report(report)
    assert site.rollout.on_report(report)
    assert kept(site) == 1


def test_a_replay_is_dropped(site: Site) -> None:
    box = site.boxes["edge-1"]
    old = [box.report(UpdateState.COMMITTED, n) for n in (1, 2)]
    assert site.rollout.on_report(old[1])
    assert not site.rollout.on_report(old[0])
    box.counter = 1
    assert not site.rollout.on_report(box.report(UpdateState.IDLE, 9, id="01890000-0000-7000-8000-000000000000"))
    with site.reads() as session:
        edge = session.get(Edge, "edge-1")
        assert edge is not None
        assert edge.release == 2


def refused(site: Site, report: SignedReport) -> None:
    assert not site.rollout.on_report(report)
    assert kept(site) == 0
    assert site.actions()[-1] == "report.refused"


def test_anothers_key_signs_for_nobody(site: Site) -> None:
    stranger = BoxOfTests("edge-1")
    refused(site, stranger.report(UpdateState.COMMITTED, 1))


def test_one_box_cannot_speak_for_another(site: Site) -> None:
    inner = site.boxes["edge-1"].report(UpdateState.COMMITTED, 1)
    refused(site, inner.model_copy(update={"edge": "edge-2"}))
    refused(site, site.boxes["edge-2"].sign(decode(DeviceReport, inner.body.encode())))


@pytest.mark.parametrize("change", ["body", "signature", "base64", "id"])
def test_a_changed_report_is_refused(site: Site, change: str) -> None:
    report = site.boxes["edge-1"].report(UpdateState.COMMITTED, 1)
    changed = {
        "body": {"body": report.body.replace('"release":1', '"release":2')},
        "signature": {"signature": site.boxes["edge-1"].report(UpdateState.IDLE, 1).signature},
        "base64": {"signature": "not base64!"},
        "id": {"id": "01890000-0000-7000-8000-000000000000"},
    }[change]
    refused(site, report.model_copy(update=changed))


def test_an_unknown_box_and_one_without_certificate_are_refused(site: Site) -> None:
    refused(site, BoxOfTests("edge-9").report(UpdateState.IDLE, 1))
    site.set_box("edge-1", certificate=None)
    refused(site, site.boxes["edge-1"].report(UpdateState.IDLE, 1))


def test_a_report_for_another_line_is_refused(site: Site) -> None:
    refused(site, site.boxes["edge-1"].report(UpdateState.IDLE, 1, line="tiles"))


def test_a_certificate_of_another_key_type_is_refused(site: Site) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    site.set_box("edge-1", certificate=certificate(key, "edge-1"))
    refused(site, site.boxes["edge-1"].report(UpdateState.IDLE, 1))
