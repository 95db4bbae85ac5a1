"""The rows of a line's releases, changed inside the caller's transaction and always together with an audit entry.

Decides which release may take another's place, what a new one contains, and where a stopped one goes back to. Signs
nothing: that follows the commit.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.tables import Candidate, Release
from cloud.http import Problem, not_found
from cloud.registry.schemas import manifest_of as adapter_of
from cloud.registry.service import RegistryService
from cloud.rollout import planner, releases, repository
from cloud.rollout.channel import Publisher, manifest_of
from cloud.rollout.planner import Abort, Complete, NewCanaries, OpenWave, Rollout, Standing, Wait
from cloud.rollout.settings import RolloutDefaults
from models.contracts.release_manifest import RolloutPlan, TargetRef
from ota.errors import NotPublished

SYSTEM = "rollout"
Refs = tuple[TargetRef, TargetRef]


class ReleaseBook:
    """See the module."""

    def __init__(
        self, *, now: NowUs, registry: RegistryService, publisher: Publisher, defaults: RolloutDefaults
    ) -> None:
        self._now, self._registry, self._publisher, self._defaults = now, registry, publisher, defaults

    def refs(self, candidate: Candidate) -> Refs:
        """Where base and adapter are in the repository.

        Raises:
            Problem: 409, they are not signed.
        """
        base = self._registry.base(candidate.base_sha).manifest
        try:
            at = self._publisher.base_ref(base.family, base.version)
            return at, self._publisher.adapter_ref(candidate.line, candidate.release)
        except NotPublished as fault:
            text = f"Adapter release {candidate.release} of line {candidate.line!r} is not signed: {fault}."
            raise Problem(409, "not_signed", text) from fault

    def make_room(self, session: Session, newest: Release | None, adapter_release: int) -> None:
        """End the rollout under way, if a newer release may take its place.

        Raises:
            Problem: 409 with code runs_already, paused or rollout_in_flight.
        """
        if newest is None:
            return
        if newest.adapter_release == adapter_release and newest.state in ("running", "complete"):
            text = f"Release {newest.number} runs adapter release {adapter_release} already."
            raise Problem(409, "runs_already", text)
        if newest.state != "running":
            return
        plan = manifest_of(newest).plan
        if plan.state == "paused":
            raise Problem(409, "paused", f"Release {newest.number} is paused: resume or abort it first.")
        if not planner.may_supersede(plan, self.standings(session, newest, self._now())):
            raise Problem(409, "rollout_in_flight", f"Release {newest.number} is on its way to all boxes; wait for it.")
        self.end(session, newest, "superseded", SYSTEM, f"adapter release {adapter_release} is newer")

    def add(
        self, session: Session, candidate: Candidate, refs: Refs, newest: Release | None, *, actor: str,
        reason: str | None, rollback_of: int | None,
    ) -> Release:  # fmt: skip
        """The line's next release.

        Raises:
            Problem: 409, the adapter is revoked or was not accepted.
        """
        number, now = (0 if newest is None else newest.number) + 1, self._now()
        before = None if newest is None else manifest_of(newest)
        if before is not None and candidate.manifest_sha in before.revoked:
            raise Problem(409, "revoked", f"Adapter release {candidate.release} is revoked and cannot be released.")
        self._registry.publish(session, candidate.line, candidate.release)
        manifest = releases.channel_manifest(
            candidate, adapter_of(candidate), number=number, channel=self._defaults.channel, refs=refs,
            plan=self._plan(session, candidate.line, number, rollback_of), probe=self._defaults.probe, actor=actor,
            reason=reason, rollback_of=rollback_of, before=before, at=releases.moment(now),
        )  # fmt: skip
        made = releases.row(manifest, adapter_release=candidate.release, now=now)
        session.add(made)
        session.flush()
        action = "release.started" if rollback_of is None else "release.rolled_back"
        evidence = {"adapter_release": candidate.release, "adapter": made.adapter_sha, "rollback_of": rollback_of}
        self.record(session, made, action, actor, reason, **evidence)
        return made

    def is_due(self, session: Session, row: Release, now: int) -> bool:
        """Whether `step` would change anything; for a reading session."""
        found = self.standings(session, row, now)
        if _live_at(row, found, now) is not None:
            return True
        return row.state == "running" and not isinstance(planner.decide(self.rollout(row), found, now=now), Wait)

    def step(self, session: Session, row: Release, now: int) -> bool:
        """Let the rollout take its next step; True when something changed."""
        found = self.standings(session, row, now)
        changed = self._mark_live(session, row, found, now)
        if row.state != "running":
            return changed
        match planner.decide(self.rollout(row), found, now=now):
            case OpenWave(wave=wave, reason=reason):
                row.wave, row.wave_opened_at = wave, now
                releases.replan(row, wave=wave)
                self.record(session, row, "release.wave_opened", SYSTEM, reason, wave=wave)
            case NewCanaries(reason=reason):
                return self._replace_canaries(session, row, reason, now) or changed
            case Complete(reason=reason):
                self.end(session, row, "complete", SYSTEM, reason)
            case Abort(reason=reason, security=security):
                self.abort(session, row, SYSTEM, reason, security=security)
            case _:
                return changed
        return True

    def abort(self, session: Session, row: Release, actor: str, reason: str, *, security: bool = False) -> None:
        """Stop the release, and make the newer one that goes back where there is something to go back to."""
        releases.replan(row, state="aborted")
        self.end(session, row, "aborted", actor, reason, security=security)
        back = None if row.rollback_of is not None else self.last_good(session, row)
        if back is None:
            self.record(session, row, "release.no_way_back", actor, "boxes keep what they run; a person must look")
            return
        try:
            candidate = self._registry.by_release(row.line, back.adapter_release)
            words = f"release {row.number} was aborted: {reason}"
            refs = self.refs(candidate)
            self.add(session, candidate, refs, row, actor=actor, reason=words, rollback_of=row.number)
        except Problem as problem:
            self.record(session, row, "release.no_way_back", actor, problem.detail)

    def last_good(self, session: Session, row: Release) -> Release | None:
        """The newest earlier release that completed with another adapter, none revoked."""
        revoked = frozenset(manifest_of(row).revoked)
        return repository.last_good(session, row.line, before=row.number, but=row.adapter_sha, revoked=revoked)

    def end(self, session: Session, row: Release, state: str, actor: str, reason: str, **evidence: Any) -> None:
        """Running is over."""
        row.state, row.finished_at = state, self._now()
        session.flush()
        self.record(session, row, f"release.{state}", actor, reason, **evidence)

    def standings(self, session: Session, row: Release, now: int) -> list[Standing]:
        """Where every box of the line is with the release."""
        boxes, reports = repository.boxes(session, row.line, row.number), repository.reports(session, row)
        return planner.standings(self.rollout(row), boxes, reports, now=now)

    def rollout(self, row: Release) -> Rollout:
        """The release as the planner takes it."""
        return Rollout(
            number=row.number,
            adapter_sha=row.adapter_sha,
            plan=manifest_of(row).plan,
            wave_opened_at=row.wave_opened_at,
            exclude_after_s=self._defaults.exclude_after_s,
            rollback=row.rollback_of is not None,
        )

    def record(
        self, session: Session, row: Release, action: str, actor: str, reason: str | None, **evidence: Any
    ) -> None:
        """One audit entry about the release."""
        audit.record(
            session, at=self._now(), actor=actor, action=action, subject=f"{row.line} release {row.number}",
            reason=reason, evidence=evidence,
        )  # fmt: skip

    @staticmethod
    def named(session: Session, line: str, number: int) -> Release:
        """The release of that number. Raises: Problem 404."""
        row = repository.release(session, line, number)
        if row is None:
            raise not_found("release", f"{line} {number}")
        return row

    def _plan(self, session: Session, line: str, number: int, rollback_of: int | None) -> RolloutPlan:
        salt = f"{line}-{number}"
        if rollback_of is not None:
            return self._defaults.rollback_plan(salt=salt)
        return self._defaults.plan(salt=salt, canaries=self._canaries(session, line, number, salt))

    def _canaries(self, session: Session, line: str, number: int, salt: str) -> list[str]:
        """Named ones the line has; else from the boxes online, shuffled by the salt so that all take their turn."""
        boxes = repository.boxes(session, line, number)
        names = {box.edge for box in boxes}
        if chosen := [name for name in self._defaults.canary_edges if name in names]:
            return chosen
        shuffled = self._defaults.plan(salt=salt, canaries=[])
        ready = sorted(boxes, key=lambda box: (not box.online, shuffled.bucket(box.edge)))
        return sorted(box.edge for box in ready[: self._defaults.canaries])

    def _replace_canaries(self, session: Session, row: Release, reason: str, now: int) -> bool:
        plan = manifest_of(row).plan
        boxes = [box for box in repository.boxes(session, row.line, row.number) if box.online]
        fresh = [box.edge for box in boxes if box.edge not in plan.canaries]
        if not fresh:
            return False
        chosen = sorted(fresh, key=plan.bucket)[: max(self._defaults.canaries, 1)]
        row.wave_opened_at = now
        releases.replan(row, canaries=sorted([*plan.canaries, *chosen]))
        self.record(session, row, "release.canaries_added", SYSTEM, reason, canaries=chosen)
        return True

    def _mark_live(self, session: Session, row: Release, found: list[Standing], now: int) -> bool:
        if (at := _live_at(row, found, now)) is None:
            return False
        row.live_at = at
        self.record(session, row, "release.live", SYSTEM, "every box that is online runs it")
        return True


def _live_at(row: Release, found: list[Standing], now: int) -> int | None:
    """When the last of the boxes that are online committed; None while one has not, or when it is known already."""
    states = [standing.state for standing in found if standing.state not in ("offline", "excluded")]
    if row.live_at is not None or row.state == "aborted" or not states or any(state != "ok" for state in states):
        return None
    return max(standing.since or now for standing in found if standing.state == "ok")
