"""The questions the spool asks its index. Each takes the connection it is given and decides nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from edge_agent.spool.books import ranges
from edge_agent.spool.thinning import Candidate
from models.contracts.uplink import Priority

MAX_RANGES = 64
"""As many as a heartbeat carries."""


def heads(db: sqlite3.Connection, limit: int, busy: Collection[str]) -> dict[Priority, dict[str, float]]:
    """The oldest free samples of every stream: sid and survival probability."""
    statement = "SELECT sid, survive FROM samples WHERE state = 'ready' AND prio = ? ORDER BY n LIMIT ?"
    return {
        prio: {sid: p for sid, p in db.execute(statement, (prio, limit + len(busy))) if sid not in busy}
        for prio in Priority
    }


def candidates(db: sqlite3.Connection, leased: Collection[str]) -> list[Candidate]:
    """Every sample that may be thinned."""
    rows = db.execute(
        "SELECT sid, bytes, prio, crowd, score, survive FROM samples WHERE state = 'ready' ORDER BY n"
    ).fetchall()
    return [Candidate(row[0], row[1], Priority(row[2]), *row[3:]) for row in rows if row[0] not in leased]


def survivors(db: sqlite3.Connection) -> dict[str, float]:
    """Samples that outlived a round of thinning, with the probability of that."""
    return dict(db.execute("SELECT sid, survive FROM samples WHERE state = 'ready' AND survive < 1"))


def pending(db: sqlite3.Connection) -> tuple[int, int, float | None]:
    """Number, bytes and oldest wall time of everything not settled, all epochs."""
    n, size, oldest = db.execute(
        "SELECT COUNT(*), COALESCE(SUM(bytes), 0), MIN(stored_at) FROM samples WHERE state IN ('writing', 'ready')"
    ).fetchone()
    return int(n), int(size), oldest


def pending_ranges(db: sqlite3.Connection, epoch: str) -> tuple[list[tuple[int, int]], bool]:
    """Runs of numbers of `epoch` that are not settled, the lowest first, and whether these are all."""
    numbers = db.execute(
        "SELECT seq FROM samples WHERE epoch = ? AND state IN ('writing', 'ready') ORDER BY seq", (epoch,)
    )
    parts: list[tuple[int, int]] = []
    for part in ranges(row[0] for row in numbers):
        if len(parts) == MAX_RANGES:
            return parts, False
        parts.append(part)
    return parts, True


def purge(db: sqlite3.Connection, limit: float, epoch: str, top: int) -> None:
    """Drop final rows older than `limit`, but never the newest number, from which the next one follows, and no loss
    that the cloud has not acknowledged."""
    db.execute(
        "DELETE FROM samples WHERE changed_at < ? AND NOT (epoch = ? AND seq = ?) AND (state = 'acked' OR"
        " (state = 'lost' AND loss_id IS NOT NULL AND loss_id NOT IN (SELECT id FROM records)))",
        (limit, epoch, top),
    )
