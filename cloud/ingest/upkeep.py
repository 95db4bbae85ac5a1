"""Ingest's housekeeping, called by the scheduler: landing copies past their age, uploads nobody continues.

A landing copy goes only after the object store has been asked again and has the object; if the store lost it (a power
cut before it synced), it is put back from the copy and the audit log tells.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Sample, Staging
from cloud.ingest.staging import Landing
from cloud.objects import DigestConflict, ObjectStore, StoreUnavailable, sample_key
from cloud.settings import IngestSection

BATCH = 100
ORPHAN_S = 86_400.0
log = structlog.get_logger(__name__)


class Upkeep:
    """See the module. `forget` drops an upload's bytes and room."""

    def __init__(
        self,
        *,
        begin: Begin,
        reads: Begin,
        now: NowUs,
        objects: ObjectStore,
        landing: Landing | None,
        limits: IngestSection,
        forget: Callable[[str], None],
    ) -> None:
        self._begin, self._reads, self._now, self._objects = begin, reads, now, objects
        self._landing, self._limits, self._forget = landing, limits, forget

    def tick(self) -> None:
        """One round. An unreachable store ends it; the next one goes on."""
        self.drop_stale_uploads()
        try:
            self.release_landing()
        except StoreUnavailable as fault:
            log.warning("store_unavailable", error=str(fault))

    def drop_stale_uploads(self) -> int:
        """Forget uploads not offered again for `staging_keep_s`: the edge starts them over."""
        before = self._now() - int(self._limits.staging_keep_s * 1e6)
        with self._begin() as session:
            rows = list(session.scalars(select(Staging).where(Staging.offered_at < before).limit(BATCH)))
            for row in rows:
                session.delete(row)
        for row in rows:
            self._forget(row.sid)
        return len(rows)

    def release_landing(self) -> int:
        """Drop landing copies past `landing_keep_s` whose object the store still has; returns how many."""
        if self._landing is None:
            return 0
        before = self._now() - int(self._limits.landing_keep_s * 1e6)
        with self._reads() as session:
            query = select(Sample).where(Sample.landed, Sample.stored_at < before).order_by(Sample.stored_at)
            samples = list(session.scalars(query.limit(BATCH)))
        for sample in samples:
            self._settle(sample.sha256, sample.size, sample.type, self._landing)
        self._drop_orphans(self._landing)
        return len(samples)

    def _settle(self, sha256: str, size: int, content_type: str, landing: Landing) -> None:
        if (landing.written_at(sha256) or 0.0) > self._now() / 1e6 - self._limits.landing_keep_s:
            return  # put back a while ago: it ages like a new one
        found = self._objects.stat(sample_key(sha256))
        if found is None or found.size != size:
            self._restore(sha256, content_type, landing)
            return
        with self._begin() as session:
            session.execute(update(Sample).where(Sample.sha256 == sha256).values(landed=False))
        landing.drop(sha256)

    def _restore(self, sha256: str, content_type: str, landing: Landing) -> None:
        data = landing.read(sha256)
        key = sample_key(sha256)
        if data is None:
            log.error("object_lost", key=key, hint="the store lost it and no landing copy is left")
            self._note(sha256, "object_lost", landed=False)
            return
        self._objects.delete(key)
        try:
            self._objects.put_once(key, data, sha256=sha256, content_type=content_type)
        except DigestConflict:
            log.exception("object_not_restored", key=key)
            return
        landing.touch(sha256, self._now() / 1e6)
        log.error("object_restored", key=key)
        self._note(sha256, "object_restored", landed=True)

    def _note(self, sha256: str, action: str, *, landed: bool) -> None:
        with self._begin() as session:
            session.execute(update(Sample).where(Sample.sha256 == sha256).values(landed=landed))
            audit.record(session, at=self._now(), actor="ingest", action=action, subject=sha256)

    def _drop_orphans(self, landing: Landing) -> None:
        """Copies of uploads that never became a row: their edge will send them again."""
        keep = max(ORPHAN_S, self._limits.landing_keep_s)
        for sha256 in list(landing.older_than(self._now() / 1e6 - keep))[:BATCH]:
            with self._reads() as session:
                used = _is_landed(session, sha256)
            if not used:
                landing.drop(sha256)


def _is_landed(session: Session, sha256: str) -> bool:
    query = select(Sample.sid).where(Sample.sha256 == sha256, Sample.landed).limit(1)
    return session.scalars(query).first() is not None
