"""When a line's adapter role is signed again: once less than half its life is left and no new adapter has renewed it.

A box refuses every release of a line whose adapter role has expired, so a line that learns nothing new for a week must
still be signed. Two keys do it: the trainer proposes the role unchanged ("propose"), the gate checks and signs it
("renew"); the next timestamp makes it visible. Both follow one version of the role, so a line renews only while it
neither learns nor is judged, and learns only while it does not renew. A renewal that failed is tried again in the next
hour.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from sqlalchemy import select

from cloud.clock import NowUs, from_us
from cloud.db.session import Begin
from cloud.db.tables import Line
from cloud.jobs.hourly import BUSY, PROPOSE
from cloud.jobs.service import JobService
from models.contracts.tuf_layout import adapter_role
from ota.publish.roles import half_spent

AGAIN_S = 3600


class Expiring(Protocol):
    """What the renewal needs of `ota.repository.ReleaseRepository`."""

    def expiries(self) -> dict[str, datetime]: ...


class RenewalTrigger:
    """Ticks are cheap and may come from several processes: the job's key makes one of many."""

    def __init__(
        self, *, begin: Begin, reads: Begin, now: NowUs, jobs: JobService, repository: Expiring
    ) -> None:  # fmt: skip
        self._begin, self._reads, self._now = begin, reads, now
        self._jobs, self._repository = jobs, repository

    def tick(self) -> list[str]:
        """Ask for a renewal of every line that needs one; returns the keys of the jobs that were enqueued.

        Raises:
            ota.errors.OtaError: the repository cannot be read.
        """
        with self._reads() as session:
            lines = list(session.scalars(select(Line.name).order_by(Line.name)))
        if not lines:
            return []
        expiries, now = self._repository.expiries(), from_us(self._now())
        due = [
            line
            for line in lines
            if (expires := expiries.get(adapter_role(line))) and half_spent(adapter_role(line), expires, now)
        ]
        return [key for line in due if (key := self._ask(line))]

    def _ask(self, line: str) -> str | None:
        key = f"{PROPOSE}/{line}/{self._now() // (AGAIN_S * 1_000_000)}"
        with self._begin() as session:
            if self._jobs.in_flight(session, line, BUSY):
                return None
            return key if self._jobs.enqueue(session, PROPOSE, key, {"line": line}) else None
