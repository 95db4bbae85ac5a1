"""Messages that could not be taken, kept so that a person can look: bounded in size, number and rate.

A sender that floods fills its minute and is only counted from then on, so it cannot push out what others left.
"""

from __future__ import annotations

from collections import Counter

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import DeadLetter

MAX_PAYLOAD = 64 << 10
PER_MINUTE = 30
log = structlog.get_logger(__name__)


class DeadLetters:
    """Keeps the newest `keep` of them."""

    def __init__(self, *, begin: Begin, now: NowUs, keep: int) -> None:
        self._begin, self._now, self._keep = begin, now, keep
        self._minute, self._seen = -1, Counter[str]()
        self.counts: Counter[str] = Counter()

    def add(self, *, topic: str, edge: str | None, code: str, detail: str, payload: bytes) -> None:
        """Count, log and keep. A database that is down costs the copy, never the caller."""
        self.counts[code] += 1
        if not self._within_rate(edge or ""):
            return
        log.warning("dead_letter", topic=topic[:256], edge=edge, code=code, detail=detail[:300], bytes=len(payload))
        letter = DeadLetter(
            at=self._now(), topic=topic[:256], edge=edge, code=code, detail=detail[:2000], payload=payload[:MAX_PAYLOAD]
        )
        try:
            with self._begin() as session:
                session.add(letter)
                session.flush()
                session.execute(delete(DeadLetter).where(DeadLetter.id.in_(self._surplus())))
        except SQLAlchemyError:
            log.exception("dead_letter_not_kept", code=code, edge=edge)

    def _surplus(self):
        newest = select(DeadLetter.id).order_by(DeadLetter.id.desc()).limit(self._keep)
        return select(DeadLetter.id).where(DeadLetter.id.not_in(newest))

    def _within_rate(self, edge: str) -> bool:
        minute = self._now() // 60_000_000
        if minute != self._minute:
            self._minute, self._seen = minute, Counter()
        self._seen[edge] += 1
        return self._seen[edge] <= PER_MINUTE
