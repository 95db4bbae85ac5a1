from __future__ import annotations

from pathlib import Path

import pytest

from cloud.db.tables import Job, Label, Sample, Snapshot
from cloud.jobs.hourly import TrainingTrigger
from tests.cloud.registry.world import LINE, World

HOUR = 40.0


class Site(World):
    """A line with labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.add_line(hour_s=HOUR)
        self.add_box("edge-1")
        self.trigger = TrainingTrigger(begin=self.begin, reads=self.reads, now=self.clock, jobs=self.jobs, min_labels=3)
        self.count = 0

    def label(
        self, n: int = 1, *, sid: str | None = None, name: str | None = "good", undoes: int | None = None
    ) -> None:
        with self.begin() as session:
            for _ in range(n):
                self.count += 1
                mine = sid or f"sid-{self.count}"
                if session.get(Sample, mine) is None:
                    session.add(_sample(mine, self.count, self.clock()))
                    session.flush()
                session.add(
                    Label(sid=mine, line=LINE, name=name, author="ana", method="single", queue="value",
                          labelled_at=self.clock(), undoes=undoes)
                )  # fmt: skip

    def last(self) -> Job:
        with self.reads() as session:
            return session.query(Job).order_by(Job.id.desc()).first()

    def end(self, key: str, state: str = "done") -> None:
        with self.begin() as session:
            session.query(Job).filter_by(key=key).one().state = state


def _sample(sid: str, seq: int, at: int) -> Sample:
    return Sample(
        sid=sid, edge="edge-1", epoch="0" * 16, seq=seq, line=LINE, camera="cam-1", serial=sid, captured_at=at,
        clock_ok=True, received_at=at, stored_at=at, sha256="0" * 64, size=1, type="image/png", verdict="pass",
        stratum="hard", pi_select=0.5, release=1, meta={}, meta_sha="0" * 64,
    )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_enough_labels_enqueue_one_job_per_period(site: Site) -> None:
    site.label(3)
    (key,) = site.trigger.tick()
    assert key == f"train/{LINE}/{int(site.clock() / 1e6 // HOUR)}"
    assert site.trigger.tick() == []
    assert site.last().payload["new_labels"] == 3


def test_too_few_labels_are_skipped_with_the_reason_and_decided_once(site: Site) -> None:
    site.label(2)
    assert site.trigger.tick() == []
    row = site.last()
    assert (row.state, row.result) == ("skipped", {"reason": "too_few_labels", "new_labels": 2, "needed": 3})
    site.label(5)
    assert site.trigger.tick() == []
    site.clock.forward(HOUR)
    assert len(site.trigger.tick()) == 1


def test_only_labels_after_the_newest_snapshot_count(site: Site) -> None:
    site.label(5)
    with site.begin() as session:
        session.add(Snapshot(sha256="a" * 64, line=LINE, labels=5, as_of=site.clock(), created_at=site.clock()))
    site.clock.forward(1)
    site.label(2)
    site.label(3, sid="sid-6")  # the same sample relabelled is one sample
    assert site.trigger.tick() == []
    assert site.last().result["new_labels"] == 2


def test_an_undone_label_and_a_skip_do_not_count(site: Site) -> None:
    site.label(2)
    site.label(3, name=None)
    site.label(1, undoes=1)
    assert site.trigger.tick() == []


def test_never_two_in_flight_and_the_period_waits(site: Site) -> None:
    site.label(3)
    (first,) = site.trigger.tick()
    site.clock.forward(HOUR)
    assert site.trigger.tick() == []
    assert site.last().result["reason"] == "in_flight"
    site.end(first)
    (second,) = site.trigger.tick()
    assert second != first
    assert site.last().state == "ready"


def test_a_candidate_at_the_gate_counts_as_in_flight(site: Site) -> None:
    site.label(3)
    with site.begin() as session:
        site.jobs.enqueue(session, "gate", f"gate/{LINE}/1", {"candidate": 1})
    assert site.trigger.tick() == []
    site.end(f"gate/{LINE}/1", "failed")
    assert len(site.trigger.tick()) == 1


def test_lines_do_not_wait_for_each_other(site: Site) -> None:
    site.add_line("tiles", hour_s=HOUR)
    with site.begin() as session:
        site.jobs.enqueue(session, "train", "train/tiles/0", {})
    site.label(3)
    assert len(site.trigger.tick()) == 1


def test_a_person_may_ask(site: Site) -> None:
    key = site.trigger.request(LINE, actor="ana")
    assert key is not None
    assert site.trigger.request(LINE, actor="ana") is None
