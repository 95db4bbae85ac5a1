from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.rollout.planner import (
    BOX_STATES,
    Abort,
    Box,
    Complete,
    NewCanaries,
    OpenWave,
    Report,
    Rollout,
    Standing,
    Wait,
    decide,
    may_supersede,
    standings,
    totals,
)
from models.contracts.control import SECURITY_REASONS, ReportReason, UpdateState
from models.contracts.release_manifest import Failures, RolloutPlan, Wave

SHA, OTHER = "a" * 64, "b" * 64
NOW = 10_000_000_000
CANARY, REST = "box-0", [f"box-{i}" for i in range(1, 5)]
PLAN = RolloutPlan(
    salt="s", canaries=[CANARY], waves=[Wave(percent=0, min_devices=1, bake_s=60, min_parts=10), Wave(percent=100)]
)
ROLLOUT = Rollout(number=5, adapter_sha=SHA, plan=PLAN, wave_opened_at=NOW, exclude_after_s=600)
WIDE = replace(ROLLOUT, plan=PLAN.model_copy(update={"wave": 1}))
BOXES = [Box(name, online=True, seen_at=NOW) for name in (CANARY, *REST)]


def said(edge: str, state: UpdateState = UpdateState.COMMITTED, counter: int = 1, **fields: object) -> Report:
    values: dict[str, object] = {
        "release": 5 if state is UpdateState.COMMITTED else 4, "attempted": 5, "reason": None, "received_at": NOW,
        "loaded": SHA if state is UpdateState.COMMITTED else None, "parts": 20, **fields,
    }  # fmt: skip
    return Report(edge=edge, counter=counter, state=state, **values)  # type: ignore[arg-type]


def rolled_back(edge: str, reason: ReportReason = ReportReason.PROBE_FAILED, counter: int = 1) -> Report:
    return said(edge, UpdateState.ROLLED_BACK, counter, reason=reason)


def look(rollout: Rollout, reports: list[Report], boxes: list[Box] = BOXES, now: int = NOW) -> list[Standing]:
    return standings(rollout, boxes, reports, now=now)


def act(rollout: Rollout, reports: list[Report], boxes: list[Box] = BOXES, now: int = NOW) -> object:
    return decide(rollout, look(rollout, reports, boxes, now), now=now)


def state_of(reports: list[Report], rollout: Rollout = ROLLOUT) -> str:
    return next(s.state for s in look(rollout, reports) if s.edge == CANARY)


def test_nothing_reported_waits_for_the_canary() -> None:
    assert act(ROLLOUT, []) == Wait("1 boxes of wave 1 have not committed yet")


def test_the_canary_bakes_and_inspects_before_the_next_wave() -> None:
    assert act(ROLLOUT, [said(CANARY)]) == Wait("wave 1 bakes for another 60 s")
    assert isinstance(act(ROLLOUT, [said(CANARY)], now=NOW + 60_000_000), OpenWave)
    few = act(ROLLOUT, [said(CANARY, parts=3)], now=NOW + 60_000_000)
    assert few == Wait("box-0 has inspected fewer than 10 parts with it")


def test_hourly_sums_count_as_parts_too() -> None:
    boxes = [replace(BOXES[0], parts=30), *BOXES[1:]]
    assert isinstance(act(ROLLOUT, [said(CANARY, parts=0)], boxes, NOW + 60_000_000), OpenWave)


def test_only_a_commit_with_the_right_digest_is_success() -> None:
    assert state_of([said(CANARY)]) == "ok"
    assert state_of([said(CANARY, loaded=OTHER)]) == "failed"
    assert state_of([said(CANARY, loaded=None)]) == "failed"
    for state in (UpdateState.DOWNLOADING, UpdateState.VERIFIED, UpdateState.PROBATION, UpdateState.BLOCKED):
        assert state_of([said(CANARY, state)]) == "pending"
    assert state_of([said(CANARY, release=4)]) == "pending"


def test_a_commit_later_undone_is_a_failure() -> None:
    assert state_of([said(CANARY), rolled_back(CANARY, counter=2)]) == "failed"
    assert state_of([said(CANARY), said(CANARY, UpdateState.IDLE, 2, attempted=None)]) == "failed"
    assert state_of([said(CANARY), said(CANARY, UpdateState.IDLE, 2, release=6, attempted=6)]) == "ok"


def test_reports_count_by_counter_not_by_arrival() -> None:
    assert state_of([said(CANARY, counter=3), rolled_back(CANARY, counter=2)]) == "ok"


def test_a_failure_stands_until_a_commit() -> None:
    assert state_of([rolled_back(CANARY), said(CANARY, UpdateState.DOWNLOADING, 2)]) == "failed"
    assert state_of([rolled_back(CANARY), said(CANARY, counter=2)]) == "ok"


def test_a_failed_canary_stops_the_release_in_wave_0() -> None:
    found = act(ROLLOUT, [rolled_back(CANARY)])
    assert isinstance(found, Abort)
    assert "probe_failed" in found.reason
    assert not found.security


@pytest.mark.parametrize("reason", sorted(SECURITY_REASONS))
def test_one_security_reason_stops_everything(reason: ReportReason) -> None:
    reports = [said(name) for name in (CANARY, *REST[1:])]
    found = act(WIDE, [*reports, said(REST[0], UpdateState.REFUSED, reason=reason, attempted=None)])
    assert isinstance(found, Abort)
    assert found.security


def test_one_failure_of_many_does_not_stop_the_last_wave_two_do() -> None:
    reports = [said(name) for name in (CANARY, *REST[1:])]
    assert act(WIDE, [*reports, rolled_back(REST[0])]) == Complete("4 ok, 1 failed, 0 pending, 0 offline, 0 excluded")
    assert isinstance(act(WIDE, [*reports[:-1], rolled_back(REST[0]), rolled_back(REST[3])]), Abort)


def test_a_percentage_takes_over_in_a_large_fleet() -> None:
    plan = WIDE.plan.model_copy(update={"max_failures": Failures(count=2, percent=10, min_sample=1)})
    boxes = [Box(f"b-{i}", online=True, seen_at=NOW) for i in range(100)]
    reports = [rolled_back(box.edge) if i < 9 else said(box.edge) for i, box in enumerate(boxes)]
    assert isinstance(act(replace(WIDE, plan=plan), reports, boxes), Complete)
    reports[9] = rolled_back("b-9")
    assert isinstance(act(replace(WIDE, plan=plan), reports, boxes), Abort)


def test_silent_boxes_are_waited_for_then_excluded_and_never_success() -> None:
    reports = [said(name) for name in (CANARY, *REST[:3])]
    assert isinstance(act(WIDE, reports), Wait)
    found = look(WIDE, reports, now=NOW + 601_000_000)
    assert totals(found) == {"ok": 4, "failed": 0, "pending": 0, "offline": 0, "excluded": 1}
    assert isinstance(decide(WIDE, found, now=NOW + 601_000_000), Complete)


def test_an_offline_box_does_not_hold_the_rest_up() -> None:
    boxes = [*BOXES[:-1], replace(BOXES[-1], online=False)]
    reports = [said(name) for name in (CANARY, *REST[:3])]
    assert act(WIDE, reports, boxes) == Complete("4 ok, 0 failed, 0 pending, 1 offline, 0 excluded")


def test_canaries_that_vanish_are_replaced_not_waved_through() -> None:
    boxes = [replace(BOXES[0], online=False), *BOXES[1:]]
    assert isinstance(act(ROLLOUT, [], boxes), Wait)
    assert isinstance(act(ROLLOUT, [], boxes, NOW + 601_000_000), NewCanaries)


def test_a_line_without_boxes_is_done_at_once() -> None:
    plan = RolloutPlan(salt="s", waves=[Wave(percent=100)])
    assert isinstance(act(replace(ROLLOUT, plan=plan), [], []), Complete)


def test_everybody_away_is_no_success() -> None:
    boxes = [replace(box, online=False) for box in BOXES]
    assert act(WIDE, [], boxes) == Wait("no box can be reached")


@pytest.mark.parametrize("state", ["paused", "aborted"])
def test_held_and_stopped_releases_open_nothing(state: str) -> None:
    held = replace(ROLLOUT, plan=PLAN.model_copy(update={"state": state}))
    assert isinstance(act(held, [said(CANARY)], now=NOW + 60_000_000), Wait)


def test_a_paused_release_still_stops_on_failure() -> None:
    held = replace(ROLLOUT, plan=PLAN.model_copy(update={"state": "paused"}))
    assert isinstance(act(held, [rolled_back(CANARY)]), Abort)


def test_a_rollback_is_not_stopped_by_failures() -> None:
    plan = RolloutPlan(salt="s", waves=[Wave(percent=100)], success_percent=0)
    back = replace(ROLLOUT, plan=plan, rollback=True)
    assert isinstance(act(back, [rolled_back(name) for name in (CANARY, *REST[:2])]), Wait)
    assert isinstance(act(back, [rolled_back(name) for name in (CANARY, *REST)]), Complete)


def test_who_may_be_superseded() -> None:
    assert may_supersede(PLAN, look(ROLLOUT, []))
    assert not may_supersede(WIDE.plan, look(WIDE, []))
    assert not may_supersede(PLAN.model_copy(update={"state": "paused"}), look(ROLLOUT, []))
    away = [replace(box, online=False) for box in BOXES]
    assert may_supersede(WIDE.plan, look(WIDE, [], away))


REPORTS = st.builds(
    Report,
    edge=st.sampled_from([CANARY, *REST, "stranger"]),
    counter=st.integers(1, 50),
    state=st.sampled_from(list(UpdateState)),
    release=st.integers(0, 7),
    attempted=st.none() | st.integers(0, 7),
    loaded=st.sampled_from([None, SHA, OTHER]),
    reason=st.none() | st.sampled_from(list(ReportReason)),
    received_at=st.integers(NOW, NOW + 10**9),
    parts=st.integers(0, 30),
)
FLEET = st.lists(
    st.builds(
        Box, edge=st.sampled_from([CANARY, *REST]), online=st.booleans(), seen_at=st.none() | st.integers(0, NOW)
    ),
    unique_by=lambda box: box.edge,
)


@settings(max_examples=300, deadline=None)
@given(
    boxes=FLEET,
    reports=st.lists(REPORTS, max_size=20),
    wave=st.integers(0, 1),
    rollback=st.booleans(),
    later=st.integers(0, 2 * 10**9),
)
def test_totals_always_sum_and_a_wave_opens_only_on_real_commits(
    boxes: list[Box], reports: list[Report], wave: int, rollback: bool, later: int
) -> None:
    rollout = replace(ROLLOUT, plan=PLAN.model_copy(update={"wave": wave}), rollback=rollback)
    found = standings(rollout, boxes, reports, now=NOW + later)
    counts = totals(found)
    assert tuple(counts) == BOX_STATES
    assert sum(counts.values()) == len(boxes) == len(found)
    ok = {s.edge for s in found if s.state == "ok"}
    assert ok <= {r.edge for r in reports if r.loaded == SHA and r.release == 5 and r.state is UpdateState.COMMITTED}
    action = decide(rollout, found, now=NOW + later)
    if isinstance(action, OpenWave):
        assert CANARY in ok
        assert wave == 0
    if any(s.reason in SECURITY_REASONS for s in found if s.state == "failed") and not rollback:
        assert isinstance(action, Abort)
    if isinstance(action, Complete):
        assert wave == 1
        assert counts["pending"] == 0
