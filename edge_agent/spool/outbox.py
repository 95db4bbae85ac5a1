"""Records that are resent until the cloud acknowledges them by id; tombstones become loss records here."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection
from datetime import datetime

from edge_agent.spool.books import declare, insert_record
from edge_agent.spool.index import Index, IndexFault
from edge_agent.spool.sample import Record, RecordKind
from models.contracts.topics import UP_LIMIT

log = logging.getLogger(__name__)


class Outbox:
    """The records of one index. The spool holds its lock around every call."""

    def __init__(self, index: Index, *, edge: str, now: Callable[[], datetime], rng: random.Random) -> None:
        self._index, self._edge, self._now, self._rng = index, edge, now, rng

    def add(self, kind: RecordKind, key: str, payload: bytes) -> None:
        """Durable on return; a known key changes nothing. Raises as `Spool.record` says."""
        if len(payload) > UP_LIMIT[kind]:
            raise ValueError(f"a {kind} of {len(payload)} bytes; its topic takes {UP_LIMIT[kind]}")
        self._index.write(lambda db: insert_record(db, key, kind, payload))

    def due(self, limit: int, exclude: Collection[str]) -> list[Record]:
        """Losses first, else oldest first. New tombstones are declared once no loss waits for its receipt."""
        try:
            if self._must_declare():
                self._index.write(lambda db: declare(db, edge=self._edge, now=self._now(), rng=self._rng))
            rows = self._index.read(
                lambda db: db.execute(
                    "SELECT id, kind, payload FROM records WHERE refused IS NULL ORDER BY kind <> 'loss', n LIMIT ?",
                    (limit + len(exclude),),
                ).fetchall()
            )
        except IndexFault:
            log.exception("the spool's records cannot be read")
            return []
        return [Record(*row) for row in rows if row[0] not in exclude][:limit]

    def acked(self, key: str) -> bool:
        return self._change("DELETE FROM records WHERE id = ?", key)

    def refused(self, key: str, code: str) -> bool:
        log.error("the cloud refused record %s: %s", key, code)
        return self._change("UPDATE records SET refused = ? WHERE id = ?", code, key)

    def _must_declare(self) -> bool:
        return bool(
            self._index.read(
                lambda db: db.execute(
                    "SELECT EXISTS (SELECT 1 FROM samples WHERE state = 'lost' AND loss_id IS NULL)"
                    " AND NOT EXISTS (SELECT 1 FROM records WHERE kind = 'loss' AND refused IS NULL)"
                ).fetchone()[0]
            )
        )

    def _change(self, statement: str, *values: str) -> bool:
        try:
            return self._index.write(lambda db: db.execute(statement, values).rowcount > 0)
        except IndexFault:
            log.exception("a receipt could not be recorded, the record is sent again")
            return False
