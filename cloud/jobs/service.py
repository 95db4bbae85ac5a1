"""The leased job table: at least once, one holder at a time, nothing forgotten when a worker dies.

A job is named by its key, `<kind>/<line>/<rest>`: enqueueing it twice is enqueueing it once. A lease that ran out may
be taken by anybody; the old holder finds out at its next word. Faults are retried with exponential backoff and full
jitter until `max_attempts`. Handlers must be idempotent: a crash between their effect and `finish` runs them again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Job
from cloud.jobs.schemas import IN_FLIGHT, JobView, LeasedJob, LeaseLost

MAX_ERROR = 2000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` runs in all; before run n+1 a uniform wait of up to ``min(base_s * 2**(n-1), cap_s)`` seconds."""

    max_attempts: int = 5
    base_s: float = 2.0
    cap_s: float = 300.0

    def delay_s(self, attempt: int, draw: float) -> float:
        """Seconds to wait after the failure of run `attempt` (1 is the first); `draw` is uniform in 0..1."""
        return draw * min(self.base_s * 2.0 ** (attempt - 1), self.cap_s)


def _due(now: int) -> ColumnElement[bool]:
    return or_(
        (Job.state == "ready") & (Job.not_before <= now),
        (Job.state == "leased") & (Job.lease_until < now),
    )


def view(row: Job) -> JobView:
    """The row as answered."""
    return JobView.model_validate(row, from_attributes=True)


class JobService:
    """See the module."""

    def __init__(
        self, *, begin: Begin, reads: Begin, now: NowUs, draw: random.Random | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:  # fmt: skip
        self._begin, self._reads, self._now = begin, reads, now
        self._draw, self._retry = draw or random.Random(), retry or RetryPolicy()

    def enqueue(self, session: Session, kind: str, key: str, payload: dict[str, Any], not_before: int = 0) -> bool:
        """Put a job in the caller's transaction; False when a job of that key is there already.

        Args:
            key: `<kind>/<line>/<rest>`.
            not_before: microseconds since 1970; the job is not leased earlier.

        Raises:
            ValueError: the key does not start with the kind.
        """
        if not key.startswith(f"{kind}/"):
            raise ValueError(f"job key {key!r} must start with {kind!r} and a slash")
        if session.scalars(select(Job.id).where(Job.key == key)).first() is not None:
            return False
        session.add(Job(kind=kind, key=key, payload=payload, not_before=not_before, created_at=self._now()))
        session.flush()
        return True

    def in_flight(self, session: Session, line: str, kinds: Sequence[str]) -> list[str]:
        """Keys of the line's jobs of these kinds that are ready or leased."""
        prefixes = [Job.key.startswith(f"{kind}/{line}/", autoescape=True) for kind in kinds]
        return list(session.scalars(select(Job.key).where(Job.state.in_(IN_FLIGHT), or_(*prefixes)).order_by(Job.id)))

    def is_due(self, kinds: Sequence[str]) -> bool:
        """Whether a job of these kinds could be leased now."""
        with self._reads() as session:
            query = select(Job.id).where(Job.kind.in_(kinds), _due(self._now())).limit(1)
            return session.scalars(query).first() is not None

    def lease(self, kinds: Sequence[str], owner: str, lease_s: float) -> LeasedJob | None:
        """The oldest job that is due, now held by `owner`; also one whose holder's lease ran out."""
        if not self.is_due(kinds):  # idle workers poll: they must not take SQLite's one write lock for it
            return None
        now = self._now()
        query = select(Job).where(Job.kind.in_(kinds), _due(now)).order_by(Job.not_before, Job.id)
        with self._begin() as session:
            for row in session.scalars(query.with_for_update(skip_locked=True)):
                if row.attempts >= self._retry.max_attempts:
                    self._end(row, "failed", error=f"{row.error or 'its worker died'} (run {row.attempts} times)")
                    continue
                row.state, row.owner, row.attempts = "leased", owner, row.attempts + 1
                row.lease_until = now + round(lease_s * 1e6)
                return LeasedJob(row.id, row.kind, row.key, dict(row.payload), row.attempts, owner, row.lease_until)
        return None

    def renew(self, job: LeasedJob, lease_s: float, progress: float | None = None) -> int:
        """Hold the job longer; returns the new end of the lease.

        Raises:
            LeaseLost: somebody else holds it, or it is over.
        """
        with self._begin() as session:
            row = self._held(session, job)
            row.lease_until = self._now() + round(lease_s * 1e6)
            if progress is not None:
                row.progress = min(max(progress, 0.0), 1.0)
            return row.lease_until

    def finish(self, job: LeasedJob, result: dict[str, Any] | None = None) -> None:
        """The job is done.

        Raises:
            LeaseLost: somebody else holds it, or it is over.
        """
        with self._begin() as session:
            row = self._held(session, job)
            row.progress, row.result = 1.0, result or {}
            self._end(row, "done", error=None)

    def fail(self, job: LeasedJob, error: str, *, retry: bool = True) -> bool:
        """The run failed; True when it will be tried again.

        Raises:
            LeaseLost: somebody else holds it, or it is over.
        """
        with self._begin() as session:
            row = self._held(session, job)
            if not retry or row.attempts >= self._retry.max_attempts:
                self._end(row, "failed", error=error)
                return False
            self._again(row, self._retry.delay_s(row.attempts, self._draw.random()), error)
            return True

    def put_back(self, job: LeasedJob, reason: str | None = None, *, delay_s: float = 0.0) -> None:
        """Ready again after `delay_s`, and the run does not count: a graceful stop, or not yet possible.

        Raises:
            LeaseLost: somebody else holds it, or it is over.
        """
        with self._begin() as session:
            row = self._held(session, job)
            row.attempts -= 1
            self._again(row, delay_s, reason)

    def of_line(self, line: str, *, limit: int = 100) -> list[JobView]:
        """The line's jobs, newest first."""
        with self._reads() as session:
            mine = Job.key.like(Job.kind + f"/{line}/%")
            return [view(row) for row in session.scalars(select(Job).where(mine).order_by(Job.id.desc()).limit(limit))]

    def by_key(self, key: str) -> JobView | None:
        """The job of that key."""
        with self._reads() as session:
            row = session.scalars(select(Job).where(Job.key == key)).first()
            return None if row is None else view(row)

    @staticmethod
    def _held(session: Session, job: LeasedJob) -> Job:
        row = session.get(Job, job.id, with_for_update=True)
        if row is None or (row.state, row.owner, row.attempts) != ("leased", job.owner, job.attempt):
            raise LeaseLost(f"job {job.key} is no longer held by {job.owner}")
        return row

    def _again(self, row: Job, delay_s: float, error: str | None) -> None:
        row.state, row.owner, row.lease_until = "ready", None, None
        row.not_before = self._now() + round(delay_s * 1e6)
        row.error = None if error is None else error[:MAX_ERROR]

    def _end(self, row: Job, state: str, *, error: str | None) -> None:
        row.state, row.owner, row.lease_until = state, None, None
        row.finished_at = self._now()
        row.error = None if error is None else error[:MAX_ERROR]
