"""Releases of a line: start, watch, widen, stop, take back.

The newest release row of a line is what its boxes shall run. Every act changes rows in one transaction with its audit
entry (`book`); signing follows (`channel`). One rollout is under way per line and the latest wins: a newer release
takes the place of one that has not left its canary, waits for one that has, and never overrides a person's pause.
Whatever stops a release sends the line back to its last good adapter as a new, higher release.
"""

from __future__ import annotations

from typing import Any

import structlog

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.http import Problem, not_found
from cloud.jobs.service import JobService
from cloud.jobs.worker import Worker
from cloud.registry.service import RegistryService
from cloud.rollout import planner, releases, repository
from cloud.rollout.accepted import RELEASE, AcceptedReleases
from cloud.rollout.book import ReleaseBook
from cloud.rollout.channel import Channel, Publisher
from cloud.rollout.reports import ReportDesk, Taken
from cloud.rollout.schemas import ReleaseView, RolloutStatus
from cloud.rollout.settings import RolloutDefaults
from cloud.rollout.views import release_view, status_view
from models.contracts.control import SignedReport
from ota.errors import OtaError

log = structlog.get_logger(__name__)


class RolloutService:
    """See the module. Runs in the cloud process: it holds the channel, snapshot and timestamp keys."""

    def __init__(
        self, *, begin: Begin, reads: Begin, now: NowUs, registry: RegistryService, jobs: JobService,
        publisher: Publisher, signers: Any, defaults: RolloutDefaults | None = None, owner: str = "cloud",
    ) -> None:  # fmt: skip
        """Args: `publisher` is the ReleaseRepository, `signers` its OnlineSigners."""
        self._begin, self._reads, self._now, self._registry = begin, reads, now, registry
        self.defaults = defaults or RolloutDefaults()
        self._book = ReleaseBook(now=now, registry=registry, publisher=publisher, defaults=self.defaults)
        self._channel = Channel(begin=begin, reads=reads, now=now, publisher=publisher, signers=signers)
        self._desk = ReportDesk(begin=begin, now=now)
        accepted = AcceptedReleases(reads=reads, jobs=jobs, start=self.start)
        self._worker = Worker(jobs=jobs, handlers={RELEASE: accepted.handle}, owner=owner)
        self.faults: dict[str, str] = {}

    def start(
        self, line: str, adapter_release: int, actor: str, reason: str | None, rollback_of: int | None = None
    ) -> ReleaseView:
        """Release an accepted adapter release to the line; returns the new release.

        Raises:
            Problem: 404 without such an adapter release; 409 when it was not accepted, is not signed, runs already, or
                another rollout is under way that may not be replaced (`code` rollout_in_flight or paused).
        """
        candidate = self._registry.by_release(line, adapter_release)
        refs = self._book.refs(candidate)
        with self._begin() as session:
            newest = repository.newest(session, line)
            if rollback_of is None:
                self._book.make_room(session, newest, adapter_release)
            elif newest is not None and newest.state == "running":
                self._book.end(session, newest, "superseded", actor, reason or "rolled back")
            made = self._book.add(session, candidate, refs, newest, actor=actor, reason=reason, rollback_of=rollback_of)
            shown = release_view(made)
        self._sync(line)
        return shown

    def rollback(self, line: str, to: int | None, actor: str, reason: str) -> ReleaseView:
        """Send the line back to an adapter release it ran before, as a new release.

        Args:
            to: the adapter release; None takes the last good one.

        Raises:
            Problem: 404 without such an adapter release; 409 when it was never released, runs already or none is left.
        """
        with self._reads() as session:
            newest = repository.newest(session, line)
            if newest is None:
                raise Problem(409, "no_release", f"Line {line!r} has no release yet.")
            back = self._book.last_good(session, newest) if to is None else None
        target = to if back is None else back.adapter_release
        if target is None:
            raise Problem(409, "no_good_release", f"Line {line!r} completed no other release; name one with to.")
        if target == newest.adapter_release and newest.state != "aborted":
            raise Problem(409, "runs_already", f"Release {newest.number} runs adapter release {target} already.")
        if self._registry.by_release(line, target).state != "published":
            raise Problem(409, "never_released", f"Adapter release {target} was never released on line {line!r}.")
        return self.start(line, target, actor, reason, rollback_of=newest.number)

    def pause(self, line: str, number: int, actor: str, reason: str) -> ReleaseView:
        """Hold a release: no further box takes it. Raises: Problem 404, 409."""
        return self._switch(line, number, actor, reason, act="pause", state="paused")

    def resume(self, line: str, number: int, actor: str, reason: str) -> ReleaseView:
        """Let a held release go on. Raises: Problem 404, 409."""
        return self._switch(line, number, actor, reason, act="resume", state="running")

    def abort(self, line: str, number: int, actor: str, reason: str) -> ReleaseView:
        """Stop a release and send the line back to its last good adapter. Raises: Problem 404, 409."""
        with self._begin() as session:
            row = self._book.named(session, line, number)
            releases.require_running(row, act="abort")
            self._book.abort(session, row, actor, reason)
            shown = release_view(row)
        self._sync(line)
        return shown

    def status(self, line: str, number: int) -> RolloutStatus:
        """A release with every box of the line. Raises: Problem 404."""
        now = self._now()
        with self._reads() as session:
            row = self._book.named(session, line, number)
            found = self._book.standings(session, row, now)
            if line in self.faults:
                waiting = f"cannot sign: {self.faults[line]}"
            elif row.state == "running":
                waiting = planner.decide(self._book.rollout(row), found, now=now).reason
            else:
                waiting = f"nothing: it is {row.state}"
            return status_view(row, found, waiting)

    def history(self, line: str, *, limit: int = 100) -> list[ReleaseView]:
        """The line's releases, newest first. Raises: Problem 404."""
        with self._reads() as session:
            if repository.line(session, line) is None:
                raise not_found("line", line)
            return [release_view(row) for row in repository.every(session, line, limit)]

    def on_report(self, report: SignedReport) -> bool:
        """Keep a box's signed report; False when it is not its word or was played before."""
        return self._desk.take(report) in (Taken.STORED, Taken.DUPLICATE)

    def advance(self, now: int | None = None) -> int:
        """One tick: start what the gate accepted, let every line's rollout take its next step, sign what changed.

        Args:
            now: microseconds since 1970; the service's own clock when left out.

        Returns:
            How many lines changed.
        """
        moment = self._now() if now is None else now
        while self._worker.run_one():
            pass
        with self._reads() as session:
            lines = repository.lines(session)
        return sum(self._advance_line(line, moment) for line in lines)

    def renew_timestamp(self) -> int:
        """Sign a fresh timestamp, so that boxes know the silence is no freeze."""
        return self._channel.renew()

    def _advance_line(self, line: str, now: int) -> bool:
        with self._reads() as session:  # most ticks find nothing to do: they must not take SQLite's one write lock
            row = repository.newest(session, line)
            changed = row is not None and self._book.is_due(session, row, now)
        if changed:
            with self._begin() as session:
                row = repository.newest(session, line)
                changed = row is not None and self._book.step(session, row, now)
        return self._sync(line) or changed

    def _switch(self, line: str, number: int, actor: str, reason: str, *, act: str, state: str) -> ReleaseView:
        with self._begin() as session:
            row = self._book.named(session, line, number)
            plan = releases.require_running(row, act=act)
            if plan.state == state:
                raise Problem(409, "wrong_state", f"Release {number} is {plan.state}; there is nothing to {act}.")
            releases.replan(row, state=state)
            self._book.record(session, row, f"release.{act}d", actor, reason)
            shown = release_view(row)
        self._sync(line)
        return shown

    def _sync(self, line: str) -> bool:
        """Sign and announce. What cannot be signed now is tried again by the next tick, and shown until then."""
        try:
            changed = self._channel.sync(line)
        except (OtaError, OSError) as fault:
            log.exception("release_not_signed", line=line)
            self.faults[line] = str(fault)
            return False
        self.faults.pop(line, None)
        return changed
