"""Arithmetic of the accounts: ranges of numbers, loss declarations, counters. Each writes inside its caller's
transaction and none decides anything."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from edge_agent.spool.sample import RecordKind
from models.contracts.ids import uuid7
from models.contracts.uplink import Loss, LossRange, LossReason

RANGES_PER_LOSS = 128
"""So that a declaration stays well below the 32 KiB its topic allows."""
MAX_POLICY = 64


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Inclusive runs of ascending numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last


def gaps(held: Iterable[int], bound: int) -> Iterator[tuple[int, int]]:
    """Inclusive runs of 1..`bound` that `held` leaves out."""
    expected = 1
    for number in sorted(held):
        if number > expected:
            yield expected, number - 1
        expected = number + 1
    if expected <= bound:
        yield expected, bound


def mint(now: datetime, rng: random.Random) -> str:
    """A fresh UUIDv7."""
    return str(uuid7(int(now.timestamp() * 1000), rng.getrandbits(80).to_bytes(10, "big")))


def loss_records(
    parts: Sequence[LossRange], *, edge: str, epoch: str, now: datetime, rng: random.Random
) -> Iterator[Loss]:
    """Declarations of at most `RANGES_PER_LOSS` ranges each."""
    for start in range(0, len(parts), RANGES_PER_LOSS):
        yield Loss(
            id=mint(now, rng),
            edge=edge,
            epoch=epoch,
            ranges=list(parts[start : start + RANGES_PER_LOSS]),
            declared_at=now,
        )


def insert_record(db: sqlite3.Connection, key: str, kind: RecordKind, payload: bytes) -> None:
    """Into the outbox; a record that is there already stays as it is."""
    db.execute("INSERT OR IGNORE INTO records (id, kind, payload) VALUES (?, ?, ?)", (key, kind, payload))


def count_lost(db: sqlite3.Connection, reason: LossReason, n: int) -> None:
    """Add to the counter that survives the purge of rows."""
    db.execute(
        "INSERT INTO lost (reason, n) VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET n = n + excluded.n", (reason, n)
    )


def lose(db: sqlite3.Connection, n: int, reason: LossReason, policy: str, at: float) -> None:
    """Tombstone for row `n`: from this commit on the number is declared lost."""
    db.execute(
        "UPDATE samples SET state = 'lost', reason = ?, policy = ?, changed_at = ? WHERE n = ?",
        (reason, policy[:MAX_POLICY], at, n),
    )
    count_lost(db, reason, 1)


def declare(db: sqlite3.Connection, *, edge: str, now: datetime, rng: random.Random) -> int:
    """Turn tombstones that no record names yet into loss records, one batch for each epoch. Returns how many records.

    While a declaration of an epoch is unanswered its next tombstones wait, so a long outage makes few large records
    instead of many small ones.
    """
    made = 0
    rows = db.execute(
        "SELECT epoch, seq, reason, policy FROM samples WHERE state = 'lost' AND loss_id IS NULL"
        " ORDER BY epoch, seq LIMIT 8192"
    ).fetchall()
    for epoch in sorted({row[0] for row in rows}):
        parts = _merge([row[1:] for row in rows if row[0] == epoch])[:RANGES_PER_LOSS]
        for loss in loss_records(parts, edge=edge, epoch=epoch, now=now, rng=rng):
            insert_record(db, loss.id, "loss", loss.encode())
            for part in loss.ranges:
                db.execute(
                    "UPDATE samples SET loss_id = ? WHERE epoch = ? AND seq BETWEEN ? AND ? AND state = 'lost'"
                    " AND loss_id IS NULL",
                    (loss.id, epoch, part.first, part.last),
                )
            made += 1
    return made


def _merge(rows: Sequence[tuple[int, str, str]]) -> list[LossRange]:
    merged: list[LossRange] = []
    for seq, reason, policy in rows:
        last = merged[-1] if merged else None
        if last is not None and (last.last + 1, last.reason, last.policy) == (seq, reason, policy):
            merged[-1] = last.model_copy(update={"last": seq})
        else:
            merged.append(LossRange(first=seq, last=seq, reason=LossReason(reason), policy=policy))
    return merged
