"""What a rollout does next: a pure function of its plan, the boxes, what they reported, and the clock.

Success is one thing only: a box says COMMITTED, after probation, with the digest of this release's adapter loaded. A
box that commits and later falls back has failed. A silent box is no success and no failure: it is waited for, and after
a deadline it is excluded, still listed. Every box is in exactly one of ok, failed, pending, offline, excluded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from models.contracts.control import SECURITY_REASONS, ReportReason, UpdateState
from models.contracts.release_manifest import RolloutPlan, Wave

BoxState = Literal["ok", "failed", "pending", "offline", "excluded"]
BOX_STATES: tuple[BoxState, ...] = ("ok", "failed", "pending", "offline", "excluded")
_ENDED = frozenset({UpdateState.ROLLED_BACK, UpdateState.REFUSED})


@dataclass(frozen=True, slots=True)
class Report:
    """A verified report, as far as a rollout needs it. Times are microseconds since 1970."""

    edge: str
    counter: int
    state: UpdateState
    release: int
    attempted: int | None
    loaded: str | None
    reason: ReportReason | None
    received_at: int
    parts: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """A box of the line. `parts` it inspected with this release, as far as is known."""

    edge: str
    online: bool
    seen_at: int | None
    parts: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one box is with the release. `since` is when it got there, for `ok` and `failed`."""

    edge: str
    state: BoxState
    wave: int
    reason: ReportReason | None = None
    since: int | None = None
    parts: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now; `reason` says what is waited for."""

    reason: str


@dataclass(frozen=True, slots=True)
class OpenWave:
    """The next wave may take the release."""

    wave: int
    reason: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Every box that can be reached has it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop it. `security` means somebody may be lying: a person must look."""

    reason: str
    security: bool = False


@dataclass(frozen=True, slots=True)
class NewCanaries:
    """No canary can be reached any more: others must go first."""

    reason: str


Action = Wait | OpenWave | Complete | Abort | NewCanaries


@dataclass(frozen=True, slots=True)
class Rollout:
    """The release under way. `adapter_sha` is the digest its boxes must report as loaded.

    A `rollback` is not stopped by failures: its content ran before, and stopping it would leave boxes on what was
    taken back.
    """

    number: int
    adapter_sha: str
    plan: RolloutPlan
    wave_opened_at: int
    exclude_after_s: float
    rollback: bool = False


def standings(rollout: Rollout, boxes: Sequence[Box], reports: Sequence[Report], *, now: int) -> list[Standing]:
    """Where every box of the line is, by name.

    Args:
        reports: what the boxes reported since the release was made; in any order.
    """
    by_edge: dict[str, list[Report]] = {box.edge: [] for box in boxes}
    for report in sorted(reports, key=lambda r: r.counter):
        if report.edge in by_edge:
            by_edge[report.edge].append(report)
    return [_standing(rollout, box, by_edge[box.edge], now) for box in sorted(boxes, key=lambda b: b.edge)]


def _standing(rollout: Rollout, box: Box, reports: Sequence[Report], now: int) -> Standing:
    wave = rollout.plan.wave_of(box.edge)
    verdict = _verdict(rollout, reports)
    if verdict is not None:
        state, report = verdict
        parts = max([box.parts, *(r.parts for r in reports if r.release == rollout.number)])
        return Standing(box.edge, state, wave, report.reason, report.received_at, parts)
    quiet_since = max(box.seen_at or 0, rollout.wave_opened_at)
    if not box.online:
        state = "excluded" if now - quiet_since > rollout.exclude_after_s * 1e6 else "offline"
    else:
        stuck = wave <= rollout.plan.wave and now - rollout.wave_opened_at > rollout.exclude_after_s * 1e6
        state = "excluded" if stuck else "pending"
    return Standing(box.edge, state, wave)


def _verdict(rollout: Rollout, reports: Sequence[Report]) -> tuple[BoxState, Report] | None:
    """The last word of a box on this release, if it has one. A failure stands until the box commits."""
    verdict: tuple[BoxState, Report] | None = None
    for report in reports:
        word = _word(rollout, report, committed=verdict is not None and verdict[0] == "ok")
        if word is not None and (verdict is None or verdict[0] != word):
            verdict = (word, report)
    return verdict


def _word(rollout: Rollout, report: Report, *, committed: bool) -> Literal["ok", "failed"] | None:
    if report.state is UpdateState.COMMITTED and report.release == rollout.number:
        return "ok" if report.loaded == rollout.adapter_sha else "failed"
    about_this = report.attempted in (None, rollout.number)
    if about_this and report.reason in SECURITY_REASONS:
        return "failed"
    if report.attempted == rollout.number and report.state in _ENDED:
        return "failed"
    return "failed" if committed and report.release < rollout.number else None


def totals(found: Sequence[Standing]) -> dict[BoxState, int]:
    """Boxes per state; the values add up to the number of boxes."""
    counts: Mapping[BoxState, int] = Counter(standing.state for standing in found)
    return {state: counts.get(state, 0) for state in BOX_STATES}


def decide(rollout: Rollout, found: Sequence[Standing], *, now: int) -> Action:
    """The next act, from where the boxes are."""
    plan = rollout.plan
    if plan.state == "aborted":
        return Wait("the release is aborted")
    if not rollout.rollback and (alarm := _alarm(plan, found)) is not None:
        return alarm
    cohort = [standing for standing in found if standing.wave <= plan.wave]
    reachable = [standing for standing in cohort if standing.state in ("ok", "failed", "pending")]
    last = plan.wave == len(plan.waves) - 1
    action = _last_wave(rollout, found, reachable) if last else _early_wave(rollout, cohort, reachable, now)
    held = plan.state == "paused" and not isinstance(action, Abort)
    return Wait("paused: resume or abort it") if held else action


def _alarm(plan: RolloutPlan, found: Sequence[Standing]) -> Abort | None:
    failed = [standing for standing in found if standing.state == "failed"]
    for standing in failed:
        if standing.reason in SECURITY_REASONS:
            return Abort(f"box {standing.edge} reports {standing.reason}: somebody may be lying", security=True)
    attempted = len(failed) + sum(standing.state == "ok" for standing in found)
    allowed = max(plan.max_failures.count, math.ceil(plan.max_failures.percent * attempted / 100))
    if attempted >= plan.max_failures.min_sample and len(failed) >= allowed:
        return Abort(f"{len(failed)} of {attempted} boxes failed ({_reasons(failed)}); {allowed} stop a rollout")
    return None


def _reasons(failed: Sequence[Standing]) -> str:
    counts = Counter(str(standing.reason or "fell back") for standing in failed)
    return ", ".join(f"{n} x {reason}" for reason, n in sorted(counts.items()))


def _last_wave(rollout: Rollout, found: Sequence[Standing], reachable: Sequence[Standing]) -> Action:
    pending = sum(standing.state == "pending" for standing in reachable)
    if pending:
        return Wait(f"{pending} boxes of the last wave have not reported yet")
    if reachable and not rollout.rollback and all(standing.state == "failed" for standing in reachable):
        return Abort(f"every box that tried failed ({_reasons(reachable)})")
    if not reachable and found:
        return Wait("no box can be reached")
    counts = totals(found)
    return Complete(", ".join(f"{counts[state]} {state}" for state in BOX_STATES))


def _early_wave(rollout: Rollout, cohort: Sequence[Standing], reachable: Sequence[Standing], now: int) -> Action:
    plan, spec = rollout.plan, rollout.plan.waves[rollout.plan.wave]
    ok = [standing for standing in reachable if standing.state == "ok"]
    failed = [standing for standing in reachable if standing.state == "failed"]
    pending = len(reachable) - len(ok) - len(failed)
    if cohort and all(standing.state == "excluded" for standing in cohort):
        return NewCanaries(f"all {len(cohort)} boxes of wave {plan.wave + 1} are silent")
    if len(failed) * 100 > (100 - plan.success_percent) * len(reachable):
        return Abort(
            f"{len(failed)} of {len(reachable)} boxes of wave {plan.wave + 1} failed ({_reasons(failed)}): "
            f"{plan.success_percent:g} % cannot be reached"
        )
    if pending and len(ok) * 100 < plan.success_percent * len(reachable):
        return Wait(f"{pending} boxes of wave {plan.wave + 1} have not committed yet")
    waiting = _unripe(rollout, ok, spec, now)
    return waiting or OpenWave(plan.wave + 1, f"{len(ok)} of {len(cohort)} boxes of wave {plan.wave + 1} committed")


def _unripe(rollout: Rollout, ok: Sequence[Standing], spec: Wave, now: int) -> Wait | None:
    """What the open wave still lacks before the next may open: boxes, parts, time."""
    wave = rollout.plan.wave + 1  # people count from 1, as on the pages and in the console
    if len(ok) < max(spec.min_devices, 1):
        return Wait(f"{len(ok)} boxes of wave {wave} committed, {max(spec.min_devices, 1)} needed")
    slow = [standing.edge for standing in ok if standing.parts < spec.min_parts]
    if slow:
        return Wait(f"{slow[0]} has inspected fewer than {spec.min_parts} parts with it")
    baked_at = max([rollout.wave_opened_at, *(standing.since or 0 for standing in ok)]) + spec.bake_s * 1_000_000
    return Wait(f"wave {wave} bakes for another {math.ceil((baked_at - now) / 1e6)} s") if now < baked_at else None


def may_supersede(plan: RolloutPlan, found: Sequence[Standing]) -> bool:
    """Whether a newer release may take this one's place now: nobody holds it, and it has not left its canary or
    nobody can be reached who would finish it.
    """
    if plan.state != "running":
        return False
    early = plan.wave == 0 and len(plan.waves) > 1
    return early or not any(standing.state in ("ok", "failed", "pending") for standing in found)
