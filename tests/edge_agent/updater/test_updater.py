from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.contracts.control import ReportReason, UpdateState
from models.contracts.release_manifest import Probe
from models.disk import RealFs
from ota.errors import BlockedError, RefusedError, SecurityError, TransientError
from tests.edge_agent.updater.box import Station, plan
from tests.models.runtime.tiny import tiny_base, tiny_release

GOOD = tiny_release(1)
BETTER = tiny_release(2, seed=2)
OPPOSITE = tiny_release(3, seed=3, bias=60.0)  # calls everything a defect
PASSIVE = tiny_release(4, seed=4, bias=-60.0)  # calls everything good


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def states(station: Station) -> list[UpdateState]:
    return [report.state for report in station.reports]


def test_the_first_release_is_taken_watched_and_committed(station: Station) -> None:
    station.releases.offer(1, GOOD)
    station.updater.check()
    assert (station.running, station.store.now.state) == (1, UpdateState.PROBATION)
    station.see(2)
    assert station.woken == 0
    station.see(1)
    assert station.woken == 1
    station.updater.conclude()
    assert station.store.now.state is UpdateState.COMMITTED
    assert states(station) == [UpdateState.IDLE, UpdateState.PROBATION, UpdateState.COMMITTED]
    last = station.last
    assert (last.release, last.loaded, last.parts_in_probation) == (1, GOOD.sha, 3)
    assert last.swap_pause_ms < 50


def test_counters_only_grow_and_survive_restarts_and_loss_of_state(station: Station) -> None:
    station.take(1, GOOD)
    station.updater.stop()
    station.restart()
    (station.folder / "slots.json").unlink()
    station.hand.move(1)
    station.restart()
    counters = [report.counter for report in station.reports]
    assert counters == sorted(set(counters))


def test_a_box_boots_from_its_slot_without_network(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.news = TransientError("no network")
    station.updater.stop()
    station.restart()
    assert station.running == 1
    assert station.last.state is UpdateState.COMMITTED
    with pytest.raises(TransientError):
        station.updater.check()
    assert station.running == 1


def test_the_same_release_is_not_taken_twice(station: Station) -> None:
    station.take(1, GOOD)
    said = len(station.reports)
    for _ in range(3):
        station.updater.check()
    assert (station.releases.fetched, len(station.reports)) == (1, said)


def test_a_model_that_disagrees_too_much_is_reverted_at_once(station: Station) -> None:
    station.take(1, PASSIVE)
    station.releases.offer(2, OPPOSITE, probe=Probe(probation_parts=20, max_disagreement=0.1))
    station.updater.check()
    assert station.running == 2
    station.see(3)
    assert station.running == 1  # before the loop has even looked
    station.updater.conclude()
    assert station.store.now.current.release == 1
    assert (station.last.state, station.last.reason) == (UpdateState.ROLLED_BACK, ReportReason.PROBATION_FAILED)
    assert station.last.attempted == 2
    assert "differs" in station.last.detail


def test_a_rejected_digest_is_not_tried_again_under_any_number(station: Station) -> None:
    station.take(1, PASSIVE)
    probe = Probe(probation_parts=20, max_disagreement=0.1)
    station.releases.offer(2, OPPOSITE, probe=probe)
    station.updater.check()
    station.see(3)
    station.updater.conclude()
    station.releases.offer(3, OPPOSITE, probe=probe)
    for _ in range(2):
        station.updater.check()
    assert (station.running, station.releases.fetched) == (1, 2)
    assert (station.last.state, station.last.attempted) == (UpdateState.REFUSED, 3)
    assert sum(report.attempted == 3 for report in station.reports) == 1
    station.take(4, BETTER)
    assert station.running == 4


def test_a_crash_on_probation_returns_to_the_previous_release(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, BETTER)
    station.updater.check()
    station.restart()  # no stop: the process died
    assert station.running == 1
    assert (station.last.state, station.last.reason) == (UpdateState.ROLLED_BACK, ReportReason.CRASHED)
    station.updater.check()
    assert station.running == 1


def test_a_regular_stop_on_probation_goes_on_with_it(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, BETTER)
    station.updater.check()
    station.see(2)
    station.updater.stop()
    station.restart()
    assert (station.running, station.inspector.previous.release) == (2, 1)
    station.see(3)
    station.updater.conclude()
    assert (station.running, station.store.now.state) == (2, UpdateState.COMMITTED)


def test_the_first_release_of_a_box_survives_two_crashes(station: Station) -> None:
    station.releases.offer(1, GOOD)
    station.updater.check()
    for _ in range(2):
        station.restart()
        assert station.running == 1
    station.restart()
    assert station.running is None
    assert station.last.reason is ReportReason.CRASHED


def test_a_release_that_kills_the_process_while_loading_is_given_up(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, BETTER)

    def die(*_: object) -> None:
        raise KeyboardInterrupt  # what no handler of the updater may catch

    for _ in range(2):
        load, station.updater._loader.load = station.updater._loader.load, die
        with pytest.raises(KeyboardInterrupt):
            station.updater.check()
        assert load
        station.restart()
        assert station.running == 1
    assert (station.last.state, station.last.reason) == (UpdateState.REFUSED, ReportReason.CRASHED)
    station.updater.check()
    assert station.running == 1


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (tiny_release(5, seed=5, nan=True), ReportReason.BAD_ADAPTER),
        (tiny_release(6, seed=6, golden_offset=1.0), ReportReason.PROBE_FAILED),
    ],
)
def test_a_bad_release_never_runs(station: Station, release: object, reason: ReportReason) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, release)
    station.updater.check()
    assert (station.running, station.last.state, station.last.reason) == (1, UpdateState.REFUSED, reason)
    station.updater.check()
    assert station.releases.fetched == 2


def test_an_adapter_for_another_base_never_runs(station: Station) -> None:
    station.take(1, GOOD)
    other = tiny_release(7, base_seed=1)
    news = station.releases.offer(2, other)
    base = tiny_base()
    wrong = news.base.model_copy(update={"sha256": base.sha})
    station.releases.news = news.model_copy(update={"base": wrong})
    station.updater.check()
    assert (station.running, station.last.reason) == (1, ReportReason.WRONG_BASE)


def test_a_new_base_is_swapped_with_its_adapter(station: Station) -> None:
    station.take(1, GOOD)
    station.take(2, tiny_release(8, base_seed=1))
    assert station.running == 2
    assert station.inspector.current.manifest.base == tiny_base(1).sha


def test_a_rollback_release_with_running_content_is_adopted_without_a_trial(station: Station) -> None:
    station.take(1, GOOD)
    station.take(2, BETTER)
    station.take(3, GOOD, rollback_of=2)
    assert (station.running, station.store.now.current.adapter) == (3, GOOD.sha)
    station.releases.offer(4, GOOD)
    station.updater.check()
    assert (station.running, station.last.state, station.last.release) == (4, UpdateState.COMMITTED, 4)
    assert station.inspector.previous is None


def test_a_box_outside_the_open_wave_waits(station: Station) -> None:
    station.take(1, GOOD)
    waves = [{"percent": 0}, {"percent": 100}]
    station.releases.offer(2, BETTER, rollout=plan(waves=waves, canaries=["edge-9"]))
    station.updater.check()
    assert (station.running, station.releases.fetched) == (1, 1)
    assert "wave" in station.updater.trouble
    station.releases.offer(2, BETTER, rollout=plan(waves=waves, canaries=["edge-9"], wave=1))
    station.updater.check()
    assert (station.running, station.updater.trouble) == (2, None)


@pytest.mark.parametrize("state", ["paused", "aborted"])
def test_a_halted_rollout_is_not_taken(station: Station, state: str) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, BETTER, rollout=plan(state=state))
    station.updater.check()
    assert station.running == 1


def test_download_only_brings_the_bytes_and_no_more(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, BETTER, rollout=plan(mode="download_only"))
    for _ in range(2):
        station.updater.check()
    assert (station.running, station.store.now.state, station.releases.fetched) == (1, UpdateState.WAITING, 2)
    station.releases.offer(2, BETTER)
    station.updater.check()
    assert station.running == 2


def test_a_newer_release_waits_while_one_is_on_probation(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.offer(2, BETTER)
    station.updater.check()
    station.releases.offer(3, tiny_release(9, seed=9))
    station.updater.check()
    assert station.running == 2
    station.see(3)
    station.updater.conclude()
    station.updater.check()
    assert station.running == 3


@pytest.mark.parametrize(
    ("fault", "state", "security"),
    [
        (RefusedError("expired", reason=ReportReason.EXPIRED), UpdateState.REFUSED, 0),
        (SecurityError("bad signature", reason=ReportReason.SIGNATURE), UpdateState.REFUSED, 1),
        (BlockedError("no room", reason=ReportReason.DISK_FULL), UpdateState.BLOCKED, 0),
        (BlockedError("clock", reason=ReportReason.CLOCK), UpdateState.BLOCKED, 0),
    ],
)
def test_trouble_is_told_once_and_inspection_goes_on(
    station: Station, fault: Exception, state: UpdateState, security: int
) -> None:
    station.take(1, GOOD)
    said = len(station.reports)
    station.releases.news = fault
    for _ in range(3):
        station.updater.check()
    assert len(station.reports) == said + 1
    assert (station.last.state, station.last.reason, station.running) == (state, fault.reason, 1)
    assert station.updater.security_faults == 3 * security
    station.see(1)
    station.releases.offer(1, GOOD)
    station.updater.check()
    assert (station.store.now.state, station.updater.trouble) == (UpdateState.COMMITTED, None)


def test_a_revoked_model_gives_way_to_the_previous_one(station: Station) -> None:
    station.take(1, GOOD)
    station.take(2, BETTER)
    station.releases.bad = frozenset({BETTER.sha})
    station.releases.offer(3, tiny_release(9, seed=9), rollout=plan(state="paused"))
    station.updater.check()
    assert station.running == 1
    assert (station.last.state, station.last.reason) == (UpdateState.ROLLED_BACK, ReportReason.REVOKED)


def test_a_revoked_model_without_alternative_stays_and_says_so(station: Station) -> None:
    station.take(1, GOOD)
    station.releases.bad = frozenset({GOOD.sha})
    before = len(station.reports)
    for _ in range(3):
        station.updater.check()
    assert (station.running, station.last.reason) == (1, ReportReason.REVOKED)
    assert len(station.reports) == before + 1, "said once, not at each poll"
    assert "release 1 is revoked" in station.updater.trouble
    station.take(2, BETTER)
    assert (station.running, station.updater.trouble) == (2, None)


@pytest.mark.parametrize("on_probation", [False, True])
def test_a_revoked_gate_without_alternative_goes(tmp_path: Path, on_probation: bool) -> None:
    station = Station(tmp_path, dispensable=True)
    station.take(1, GOOD, probe=Probe(probation_parts=30 if on_probation else 3))
    station.releases.bad = frozenset({GOOD.sha})
    station.releases.offer(2, BETTER, rollout=plan(state="paused"))
    before = len(station.reports)
    for _ in range(3):
        station.updater.check()
    assert (station.running, station.store.now.current) == (None, None)
    assert (station.last.state, station.last.reason) == (UpdateState.ROLLED_BACK, ReportReason.REVOKED)
    assert len(station.reports) == before + 1
    assert "release 1 is revoked" in station.updater.trouble
    station.updater.stop()
    station.restart()
    assert (station.running, "release 1 is revoked" in station.updater.trouble) == (None, True)
    station.take(2, BETTER)
    assert (station.running, station.updater.trouble) == (2, None)


def test_a_gate_that_fails_its_probation_without_alternative_goes(tmp_path: Path) -> None:
    station = Station(tmp_path, dispensable=True)
    station.releases.offer(1, GOOD, probe=Probe(probation_parts=30, latency_p95_ms=1e-6))
    station.updater.check()
    station.see(30)
    assert station.running is None, "before the slots are written"
    station.updater.conclude()
    assert (station.store.now.current, station.last.reason) == (None, ReportReason.PROBATION_FAILED)


def test_a_gate_on_probation_does_not_fall_back_to_a_revoked_one(tmp_path: Path) -> None:
    station = Station(tmp_path, dispensable=True)
    station.take(1, GOOD)
    station.releases.offer(2, BETTER, probe=Probe(probation_parts=30, latency_p95_ms=1e-6))
    station.updater.check()
    station.releases.bad = frozenset({GOOD.sha})
    station.updater.check()
    assert station.running == 2
    station.see(30)
    station.updater.conclude()
    assert (station.running, station.store.now.current) == (None, None)


def test_a_channel_that_still_selects_the_revoked_gate_removes_it_too(tmp_path: Path) -> None:
    station = Station(tmp_path, dispensable=True)
    station.take(1, GOOD)
    station.releases.bad = frozenset({GOOD.sha})
    station.releases.news = RefusedError("release 1 selects a revoked model", reason=ReportReason.REVOKED)
    before = len(station.reports)
    for _ in range(3):
        station.updater.check()
    assert (station.running, len(station.reports) - before) == (None, 2)


def test_a_damaged_installed_release_falls_back(station: Station) -> None:
    station.take(1, GOOD)
    station.take(2, BETTER)
    station.updater.stop()
    station.releases.blobs.held[BETTER.manifest.head.blob.sha256] = b"flipped"
    station.restart()
    assert station.running == 1
    assert (station.last.state, station.last.reason) == (UpdateState.ROLLED_BACK, ReportReason.TAMPERED)
    station.updater.check()  # it was not the release's fault: fetched again
    assert station.running == 2


def test_old_releases_are_removed_but_never_current_or_previous(station: Station) -> None:
    for number, release in enumerate((GOOD, BETTER, tiny_release(9, seed=9)), start=1):
        station.take(number, release)
    held = station.releases.blobs.held
    assert GOOD.sha not in held
    assert {BETTER.sha, tiny_release(9, seed=9).sha, tiny_base().sha} <= set(held)


def test_a_damaged_slots_file_is_set_aside(station: Station) -> None:
    station.take(1, GOOD)
    (station.folder / "slots.json").write_text('{"v": 1, "current": 5}')
    station.restart()
    assert station.running is None
    assert json.loads((station.folder / "slots.damaged").read_text())["current"] == 5
    station.updater.check()
    assert station.running == 1


class Failing(RealFs):
    """Crashes before the n-th durable write, as a power cut would."""

    def __init__(self) -> None:
        self.left: int | None = None

    def write_new(self, path: Path, data: bytes) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise PowerCut
        super().write_new(path, data)


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("step", range(9))
def test_a_power_cut_at_any_write_leaves_a_model_that_loads(tmp_path: Path, step: int) -> None:
    fs = Failing()
    station = Station(tmp_path, fs=fs)
    station.take(1, GOOD)
    fs.left = step
    try:
        station.take(2, BETTER)
        fs.left = None
    except PowerCut:
        fs.left = None
        station.restart()
    assert station.running in (1, 2)
    assert station.store.now.current.release == station.running
    station.releases.offer(3, tiny_release(9, seed=9))
    station.updater.check()
    station.see(3)
    station.updater.conclude()
    station.updater.check()
    station.see(3)
    station.updater.conclude()
    assert station.running == 3
