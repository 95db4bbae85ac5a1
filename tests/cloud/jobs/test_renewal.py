"""A line that learns nothing new for a week is still signed: trainer, gate and timestamp over a real repository."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest

from cloud.db.tables import Job
from cloud.gate.service import GateService
from cloud.jobs.hourly import GATE, PROPOSE, RENEW, TRAIN, TrainingTrigger
from cloud.jobs.renewal import RenewalTrigger
from cloud.jobs.schemas import LeasedJob
from cloud.jobs.worker import Beat, Worker
from models.contracts.tuf_layout import adapter_role
from ota.client import ReleaseClient
from ota.errors import RefusedError
from tests.cloud.registry.world import LINE
from tests.cloud.rollout.site import Site as RolloutSite
from tests.ota.stage import serving

DAYS = 86_400.0
ROLE = adapter_role(LINE)


class Site(RolloutSite):
    """A line with one signed release."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trigger = RenewalTrigger(
            begin=self.begin, reads=self.reads, now=self.clock, jobs=self.jobs, repository=self.repository
        )
        self.add_boxes("edge-1")
        self.accept(1)
        self.rollout.start(LINE, 1, actor="test", reason="first")
        self.rollout.advance()

    def life(self) -> timedelta:
        return self.repository.expiries()[ROLE] - self.clock.now()

    def enqueue(self, kind: str, key: str) -> None:
        with self.begin() as session:
            self.jobs.enqueue(session, kind, f"{kind}/{LINE}/{key}", {})

    def end(self, key: str, state: str = "done") -> None:
        with self.begin() as session:
            session.query(Job).filter_by(key=key).one().state = state

    def work(self) -> bool:
        """Both workers: the trainer's proposal as `cloud.trainer` makes it, and the gate itself."""
        gate = GateService(
            begin=self.begin, reads=self.reads, now=self.clock, lines=self.lines, registry=self.registry,
            jobs=self.jobs, blobs=self.blobs, repository=self.repository, key=self.keys.signer("gate"),
        )  # fmt: skip
        return Worker(jobs=self.jobs, handlers={PROPOSE: self.propose, RENEW: gate.renew}, owner="w").run_one()

    def propose(self, job: LeasedJob, _beat: Beat) -> dict[str, str]:
        proposal = self.repository.propose_renewal(LINE, self.keys.signer("trainer"))
        with self.begin() as session:
            payload = {"line": LINE, "proposal": base64.b64encode(proposal).decode()}
            self.jobs.enqueue(session, RENEW, f"{RENEW}/{LINE}/{job.id}", payload)
        return {}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_role_with_more_than_half_its_life_left_is_let_be(site: Site) -> None:
    site.clock.forward(3 * DAYS)
    assert site.trigger.tick() == []


def test_an_old_role_is_renewed_once_and_published(site: Site) -> None:
    site.clock.forward(4 * DAYS)
    assert len(site.trigger.tick()) == 1
    assert site.trigger.tick() == []
    assert site.work()
    assert site.trigger.tick() == []
    assert site.work()
    assert site.life() == timedelta(days=7)
    assert site.trigger.tick() == []
    site.rollout.renew_timestamp()
    site.clock.forward(3.5 * DAYS)  # beyond the first seven days
    site.rollout.renew_timestamp()
    with serving() as server:
        client = _box(site, server.show(site.folder / "repository").url)
        assert client.check(LINE, "stable").release == 1


def test_without_a_renewal_a_box_refuses_the_line(site: Site) -> None:
    """What this is for."""
    site.clock.forward(7.2 * DAYS)
    site.rollout.renew_timestamp()
    with serving() as server:
        client = _box(site, server.show(site.folder / "repository").url)
        with pytest.raises(RefusedError):
            client.check(LINE, "stable")


@pytest.mark.parametrize("kind", [TRAIN, GATE, RENEW])
def test_a_line_that_learns_or_is_judged_is_not_renewed_beside_it(site: Site, kind: str) -> None:
    site.clock.forward(4 * DAYS)
    site.enqueue(kind, "7")
    assert site.trigger.tick() == []
    site.end(f"{kind}/{LINE}/7")
    assert len(site.trigger.tick()) == 1


@pytest.mark.parametrize("kind", [PROPOSE, RENEW])
def test_a_line_does_not_learn_while_it_is_renewed(site: Site, kind: str) -> None:
    training = TrainingTrigger(begin=site.begin, reads=site.reads, now=site.clock, jobs=site.jobs, min_labels=1)
    site.enqueue(kind, "7")
    assert training.request(LINE, actor="ana") is None
    site.end(f"{kind}/{LINE}/7")
    assert training.request(LINE, actor="ana") is not None


def test_a_renewal_that_failed_is_asked_for_again_in_the_next_hour(site: Site) -> None:
    site.clock.forward(4 * DAYS)
    first = site.trigger.tick()
    site.end(first[0], "failed")
    assert site.trigger.tick() == []
    site.clock.forward(3600)
    assert len(site.trigger.tick()) == 1


def test_a_line_without_a_role_is_none_of_its_business(site: Site) -> None:
    site.clock.forward(4 * DAYS)
    site.add_line("wafers")
    assert [key.split("/")[1] for key in site.trigger.tick()] == [LINE]


def _box(site: Site, url: str) -> ReleaseClient:
    return ReleaseClient(
        folder=site.folder / "box", root=site.repository.root_bytes(), url=url, now=site.clock.now
    )  # fmt: skip
