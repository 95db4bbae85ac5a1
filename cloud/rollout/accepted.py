"""From the gate's word to a rollout: takes "release" jobs in the cloud process, which holds the channel key.

An adapter release is started by itself once and never again, whatever became of it: going back to one is a person's or
the rollback's act. The latest wins: what waited while a newer one was accepted is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from cloud.db.session import Begin
from cloud.db.tables import Release
from cloud.http import Problem
from cloud.jobs.schemas import LeasedJob, NotYet, PermanentFailure
from cloud.jobs.service import JobService
from cloud.jobs.worker import Beat
from cloud.rollout.schemas import ReleaseView

RELEASE = "release"
RETRY_S = 2.0
WAITS = frozenset({"rollout_in_flight", "paused"})


class AcceptedReleases:
    """Handler of "release" jobs; the payload is ``{"line", "adapter_release", "reason"}``."""

    def __init__(self, *, reads: Begin, jobs: JobService, start: Callable[[str, int, str, str | None], ReleaseView]):
        self._reads, self._jobs, self._start = reads, jobs, start

    def handle(self, job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        """Start the rollout.

        Raises:
            NotYet: another rollout is under way; tried again in seconds.
            PermanentFailure: the adapter release cannot be released.
        """
        line, wanted = str(job.payload["line"]), int(job.payload["adapter_release"])
        if (newer := self._newer(line, wanted)) is not None:
            return {"skipped": newer}
        try:
            made = self._start(line, wanted, "gate", job.payload.get("reason"))
        except Problem as problem:
            if problem.code in WAITS:
                raise NotYet(problem.detail, delay_s=RETRY_S) from problem
            raise PermanentFailure(problem.detail) from problem
        return {"release": made.number}

    def _newer(self, line: str, wanted: int) -> str | None:
        """Why this adapter release is not started, or None."""
        with self._reads() as session:
            highest = session.scalars(select(func.max(Release.adapter_release)).where(Release.line == line)).first()
            waiting = self._jobs.in_flight(session, line, (RELEASE,))
        if highest is not None and highest >= wanted:
            return f"adapter release {highest} was started already"
        later = max((int(key.rsplit("/", 1)[1]) for key in waiting), default=wanted)
        return f"adapter release {later} is waiting too" if later > wanted else None
