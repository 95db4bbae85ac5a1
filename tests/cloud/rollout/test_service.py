"""The rollout over a real TUF repository, with boxes that sign. Times are the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud import audit
from cloud.http import Problem
from cloud.rollout.settings import RolloutDefaults
from models.contracts.control import ReportReason, UpdateState
from ota.errors import TransientError
from tests.cloud.registry.world import LINE
from tests.cloud.rollout.site import Site

FLEET = ("edge-1", "edge-2", "edge-3")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.add_boxes(*FLEET)
    return made


def start(site: Site, release: int) -> int:
    site.accept(release)
    return site.rollout.start(LINE, release, "ana", "because").number


def live(site: Site, release: int) -> int:
    number = start(site, release)
    site.spread()
    assert site.rollout.status(LINE, number).state == "complete"
    return number


def others(site: Site) -> list[str]:
    return [name for name in FLEET if name not in site.channel().plan.canaries]


def test_one_canary_then_all_then_live(site: Site) -> None:
    number = start(site, 1)
    channel = site.channel()
    assert (channel.release, channel.actor, channel.reason, len(channel.plan.canaries)) == (number, "ana", "because", 1)
    assert [channel.plan.includes(name) for name in others(site)] == [False, False]
    site.rollout.advance()
    assert site.channel() == channel
    site.commit(*channel.plan.canaries)
    site.rollout.advance()
    assert all(site.channel().plan.includes(name) for name in FLEET)
    assert site.rollout.status(LINE, number).live_at is None
    site.clock.forward(7)
    site.commit(*others(site))
    site.rollout.advance()
    status = site.rollout.status(LINE, number)
    assert (status.state, status.live_at, status.totals.ok) == ("complete", site.clock(), 3)
    assert site.registry.by_release(LINE, 1).state == "published"
    expected = ["release.started", "release.wave_opened", "release.live", "release.complete"]
    assert [action for action in site.actions() if action.startswith("release")] == expected
    with site.reads() as session:
        assert audit.verify(session) is None


def test_every_signing_is_announced_once_and_again_after_a_restart(site: Site) -> None:
    start(site, 1)
    site.rollout.advance()
    assert len(site.announced()) == 1
    site.commit(*site.channel().plan.canaries)
    site.rollout.advance()
    first, second = site.announced()
    assert second.timestamp_version > first.timestamp_version
    assert (second.release, second.channel) == (1, "stable")
    site.restart()
    site.rollout.advance()
    assert len(site.announced()) == 3


def test_a_bad_release_stops_in_wave_0_and_the_line_goes_back(site: Site) -> None:
    good = live(site, 1)
    bad = start(site, 2)
    canaries = site.channel().plan.canaries
    site.fail(*canaries)
    site.rollout.advance()
    assert site.rollout.status(LINE, bad).state == "aborted"
    back = site.channel()
    assert (back.release, back.rollback_of) == (bad + 1, bad)
    assert back.adapter.sha256 == site.rollout.status(LINE, good).adapter_sha
    assert all(back.plan.includes(name) for name in FLEET)
    incumbent = site.registry.incumbent(LINE)
    assert incumbent is not None
    assert incumbent.release == 1
    site.spread()
    assert site.rollout.status(LINE, back.release).state == "complete"
    assert site.rollout.status(LINE, bad).totals.ok == 0


def test_a_bad_third_release_goes_back_to_the_second(site: Site) -> None:
    live(site, 1)
    live(site, 2)
    start(site, 3)
    site.fail(*site.channel().plan.canaries)
    site.rollout.advance()
    assert site.rollout.history(LINE)[0].adapter_release == 2
    site.spread()
    live(site, 4)


def test_a_bad_first_release_has_no_way_back(site: Site) -> None:
    number = start(site, 1)
    site.fail(*site.channel().plan.canaries)
    site.rollout.advance()
    assert (site.channel().release, site.channel().plan.state) == (number, "aborted")
    assert "release.no_way_back" in site.actions()
    assert site.registry.incumbent(LINE) is None
    site.rollout.advance()
    assert len(site.rollout.history(LINE)) == 1


def test_a_security_event_stops_a_wide_release(site: Site) -> None:
    live(site, 1)
    number = start(site, 2)
    site.commit(*site.channel().plan.canaries)
    site.rollout.advance()
    site.fail(others(site)[0], reason=ReportReason.DIGEST)
    site.rollout.advance()
    assert site.rollout.status(LINE, number).state == "aborted"
    assert "report.security" in site.actions()
    assert site.channel().rollback_of == number


def test_a_commit_with_other_bytes_is_a_failure(site: Site) -> None:
    number = start(site, 1)
    canary = site.channel().plan.canaries[0]
    site.rollout.on_report(site.boxes[canary].report(UpdateState.COMMITTED, number, loaded="f" * 64))
    site.rollout.advance()
    assert site.rollout.status(LINE, number).state == "aborted"


def test_the_latest_wins_at_the_canary_and_waits_after_it(site: Site) -> None:
    first = start(site, 1)
    second = start(site, 2)
    assert site.rollout.status(LINE, first).state == "superseded"
    site.commit(*site.channel().plan.canaries)
    site.rollout.advance()
    site.accept(3)
    with pytest.raises(Problem) as fault:
        site.rollout.start(LINE, 3, "ana", None)
    assert fault.value.code == "rollout_in_flight"
    site.spread()
    assert site.rollout.status(LINE, second).state == "complete"
    assert site.rollout.start(LINE, 3, "ana", None).number == 3


def test_pause_resume_abort(site: Site) -> None:
    live(site, 1)
    number = start(site, 2)
    site.rollout.pause(LINE, number, "ana", "look first")
    assert site.channel().plan.state == "paused"
    site.accept(3)
    with pytest.raises(Problem) as fault:
        site.rollout.start(LINE, 3, "ana", None)
    assert fault.value.code == "paused"
    with pytest.raises(Problem):
        site.rollout.pause(LINE, number, "ana", "again")
    assert site.rollout.status(LINE, number).paused
    site.rollout.resume(LINE, number, "ana", "fine")
    assert site.channel().plan.state == "running"
    site.rollout.abort(LINE, number, "ana", "no")
    assert site.channel().rollback_of == number
    with pytest.raises(Problem) as fault:
        site.rollout.resume(LINE, number, "ana", "?")
    assert fault.value.status == 409


def test_rollback_by_hand(site: Site) -> None:
    live(site, 1)
    live(site, 2)
    made = site.rollout.rollback(LINE, None, "ana", "customers call")
    assert (made.number, made.adapter_release, made.rollback_of) == (3, 1, 2)
    assert all(site.channel().plan.includes(name) for name in FLEET)
    site.spread()
    forward = site.rollout.rollback(LINE, 2, "ana", "it was not the model")
    assert (forward.number, forward.adapter_release) == (4, 2)


@pytest.mark.parametrize(("to", "code"), [(2, "runs_already"), (3, "never_released"), (9, "not_found")])
def test_a_rollback_that_makes_no_sense_is_refused(site: Site, to: int, code: str) -> None:
    live(site, 1)
    live(site, 2)
    site.accept(3)
    with pytest.raises(Problem) as fault:
        site.rollout.rollback(LINE, to, "ana", "x")
    assert fault.value.code == code


def test_a_rollback_with_nothing_before_is_refused(site: Site) -> None:
    with pytest.raises(Problem, match="no release yet"):
        site.rollout.rollback(LINE, None, "ana", "x")
    live(site, 1)
    with pytest.raises(Problem, match="no other release"):
        site.rollout.rollback(LINE, None, "ana", "x")


def test_what_was_not_signed_or_not_accepted_is_not_released(site: Site) -> None:
    site.accept(1, signed=False)
    with pytest.raises(Problem) as fault:
        site.rollout.start(LINE, 1, "ana", None)
    assert fault.value.code == "not_signed"
    with pytest.raises(Problem) as fault:
        site.rollout.start(LINE, 2, "ana", None)
    assert fault.value.status == 404
    assert site.rollout.history(LINE) == []


def ask(site: Site, release: int) -> None:
    site.accept(release)
    with site.begin() as session:
        payload = {"line": LINE, "adapter_release": release, "reason": "gate says yes"}
        site.jobs.enqueue(session, "release", f"release/{LINE}/{release}", payload)


def test_the_gates_jobs_start_rollouts_and_only_once(site: Site) -> None:
    ask(site, 1)
    site.rollout.advance()
    assert site.channel().actor == "gate"
    site.spread()
    ask(site, 2)
    site.rollout.advance()
    site.fail(*site.channel().plan.canaries)
    site.rollout.advance()
    assert site.channel().rollback_of == 2
    site.spread()
    with site.begin() as session:  # a crash between start and finish would run the job again
        site.jobs.enqueue(session, "release", f"release/{LINE}/2-again", {"line": LINE, "adapter_release": 2})
    site.rollout.advance()
    assert len(site.rollout.history(LINE)) == 3


def test_the_gates_jobs_wait_for_a_rollout_under_way_and_the_latest_wins(site: Site) -> None:
    live(site, 1)
    start(site, 2)
    site.commit(*site.channel().plan.canaries)
    site.rollout.advance()
    ask(site, 3)
    ask(site, 4)
    site.rollout.advance()
    assert site.channel().release == 2
    job = site.jobs.by_key(f"release/{LINE}/4")
    assert job is not None
    assert (job.state, job.attempts) == ("ready", 0)
    site.spread()
    site.clock.forward(10)
    site.spread()
    assert [view.adapter_release for view in site.rollout.history(LINE)] == [4, 2, 1]


def test_what_cannot_be_signed_now_is_signed_by_a_later_tick(site: Site) -> None:
    live(site, 1)
    working = site.repository.publish

    def down(*_: object) -> int:
        raise TransientError("disk is away")

    site.repository.publish = down  # type: ignore[method-assign]
    number = start(site, 2)
    assert site.channel().release == number - 1
    assert "disk is away" in site.rollout.status(LINE, number).waiting_for
    site.repository.publish = working  # type: ignore[method-assign]
    site.rollout.advance()
    assert site.channel().release == number
    assert "disk" not in site.rollout.status(LINE, number).waiting_for


def test_a_crash_between_row_and_signature_is_finished_after_the_restart(site: Site) -> None:
    live(site, 1)
    working = site.repository.publish

    def dies(*_: object) -> int:
        raise OSError("power")

    site.repository.publish = dies  # type: ignore[method-assign]
    number = start(site, 2)
    site.repository.publish = working  # type: ignore[method-assign]
    site.restart()
    site.rollout.advance()
    assert site.channel().release == number
    assert site.announced()[-1].release == number


def test_a_box_away_does_not_hold_the_line_and_is_listed(site: Site) -> None:
    site.set_box("edge-3", online=False)
    number = start(site, 1)
    assert site.channel().plan.canaries != ["edge-3"]
    for _ in range(3):
        channel = site.channel()
        site.commit(*(name for name in ("edge-1", "edge-2") if channel.plan.includes(name)))
        site.rollout.advance()
    status = site.rollout.status(LINE, number)
    assert status.state == "complete"
    assert status.live_at is not None
    assert status.totals.model_dump() == {"ok": 2, "failed": 0, "pending": 0, "offline": 1, "excluded": 0, "boxes": 3}


def test_canaries_that_vanish_are_replaced(site: Site) -> None:
    number = start(site, 1)
    lost = site.channel().plan.canaries[0]
    site.set_box(lost, online=False)
    site.clock.forward(700)
    site.rollout.advance()
    canaries = set(site.channel().plan.canaries) - {lost}
    assert len(canaries) == 1
    site.commit(*canaries)
    site.rollout.advance()
    assert site.rollout.status(LINE, number).wave == 1


def test_bake_and_named_canaries(site: Site) -> None:
    site.restart(RolloutDefaults(bake_s=60, min_parts=10, canary_edges=["edge-2", "edge-99"]))
    number = start(site, 1)
    assert site.channel().plan.canaries == ["edge-2"]
    site.commit("edge-2", parts=9)
    site.rollout.advance()
    assert "bakes" not in site.rollout.status(LINE, number).waiting_for
    site.commit("edge-2", parts=12)
    site.clock.forward(59)
    site.rollout.advance()
    assert site.rollout.status(LINE, number).waiting_for == "wave 1 bakes for another 1 s"
    site.clock.forward(1)
    site.rollout.advance()
    assert site.rollout.status(LINE, number).wave == 1


def test_a_line_without_boxes_takes_a_release(tmp_path: Path) -> None:
    empty = Site(tmp_path)
    number = start(empty, 1)
    empty.rollout.advance()
    assert empty.rollout.status(LINE, number).state == "complete"
    assert empty.channel().plan.includes("edge-new")


def test_unknown_things_are_404(site: Site) -> None:
    for call in (
        lambda: site.rollout.status(LINE, 7),
        lambda: site.rollout.abort(LINE, 7, "ana", "x"),
        lambda: site.rollout.history("nowhere"),
    ):
        with pytest.raises(Problem) as fault:
            call()
        assert fault.value.status == 404


def test_timestamps_are_renewed(site: Site) -> None:
    start(site, 1)
    before = site.rollout.renew_timestamp()
    assert site.rollout.renew_timestamp() == before + 1
