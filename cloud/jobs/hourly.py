"""When a line learns: once in each of its hours, if enough labels arrived since it last did.

Decided at the first tick of a period: one job `train/<line>/<period>`, or a skipped one that says why. A line never has
two trainings under way, nor a training beside a candidate still at the gate: the second would be made from a parent
that is no longer the newest; nor beside a renewal of its adapter role. Such a period waits for the first to end
instead of being lost.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Job, Label, Line, Snapshot
from cloud.jobs.service import JobService

TRAIN = "train"
GATE = "gate"
PROPOSE = "propose"
RENEW = "renew"
BUSY = (TRAIN, GATE, PROPOSE, RENEW)
"""Each ends in the next version of the line's adapter role: two under way at once, and the second is in vain."""
Skip = Literal["too_few_labels", "in_flight"]


class TrainingTrigger:
    """Ticks are cheap and may come from several processes: the job's key makes one of many."""

    def __init__(self, *, begin: Begin, reads: Begin, now: NowUs, jobs: JobService, min_labels: int = 8) -> None:
        self._begin, self._reads, self._now, self._jobs = begin, reads, now, jobs
        self._min_labels = min_labels

    def tick(self) -> list[str]:
        """Decide for every line whose period is undecided; returns the keys of the jobs that were enqueued."""
        with self._reads() as session:
            lines = {line.name: line.hour_s for line in session.scalars(select(Line).order_by(Line.name))}
            due = [(name, key) for name, hour_s in lines.items() if self._open(session, key := self._key(name, hour_s))]
        return [key for name, key in due if self._decide(name, key)]

    def request(self, line: str, *, actor: str) -> str | None:
        """Train now because a person asks; None when the line is learning already."""
        with self._begin() as session:
            if self._jobs.in_flight(session, line, BUSY):
                return None
            key = f"{TRAIN}/{line}/asked-{self._now()}"
            self._jobs.enqueue(session, TRAIN, key, {"line": line, "actor": actor})
            return key

    def _key(self, line: str, hour_s: float) -> str:
        return f"{TRAIN}/{line}/{math.floor(self._now() / 1e6 / hour_s)}"

    @staticmethod
    def _open(session: Session, key: str) -> bool:
        row = session.scalars(select(Job).where(Job.key == key)).first()
        return row is None or (row.state == "skipped" and row.result.get("reason") == "in_flight")

    def _decide(self, line: str, key: str) -> bool:
        with self._begin() as session:
            if not self._open(session, key):
                return False
            labels = new_labels(session, line)
            payload = {"line": line, "period": int(key.rsplit("/", 1)[1]), "new_labels": labels}
            if self._jobs.in_flight(session, line, BUSY):
                self._skip(session, key, payload, "in_flight")
                return False
            if labels < self._min_labels:
                self._skip(session, key, payload, "too_few_labels")
                return False
            self._take(session, key, payload)
            return True

    def _take(self, session: Session, key: str, payload: dict[str, Any]) -> None:
        row = session.scalars(select(Job).where(Job.key == key)).first()
        if row is None:
            self._jobs.enqueue(session, TRAIN, key, payload)
            return
        row.state, row.payload, row.result, row.finished_at = "ready", payload, {}, None

    def _skip(self, session: Session, key: str, payload: dict[str, Any], reason: Skip) -> None:
        row = session.scalars(select(Job).where(Job.key == key)).first()
        now = self._now()
        if row is None:
            row = Job(kind=TRAIN, key=key, state="skipped", created_at=now, payload=payload)
            session.add(row)
        elif row.result.get("reason") == reason:
            return
        row.payload, row.finished_at = payload, now
        row.result = {"reason": reason, "new_labels": payload["new_labels"], "needed": self._min_labels}


def new_labels(session: Session, line: str) -> int:
    """Samples of the line that got a label, or a corrected one, after the newest snapshot was taken."""
    since = session.scalars(select(func.max(Snapshot.as_of)).where(Snapshot.line == line)).first() or 0
    query = select(func.count(func.distinct(Label.sid))).where(
        Label.line == line, Label.labelled_at > since, Label.name.is_not(None), Label.undoes.is_(None)
    )
    return session.scalars(query).one()
