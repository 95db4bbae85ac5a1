"""The spool's accounts in SQLite: which sequence number is in which state, and the outbox of records.

WAL with ``synchronous=FULL``: a commit that returned survives a power cut (sqlite.org/wal.html, "synchronous=FULL").
Blobs are the truth for content, this is the truth for accounting. It knows SQL and faults, no policy; the lock that
serialises its callers is the spool's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE samples (
    n INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('writing', 'ready', 'acked', 'lost')),
    sid TEXT UNIQUE,
    prio TEXT,
    bytes INTEGER NOT NULL DEFAULT 0,
    crowd TEXT NOT NULL DEFAULT '',
    score REAL NOT NULL DEFAULT 0.5,
    survive REAL NOT NULL DEFAULT 1.0 CHECK (survive > 0 AND survive <= 1),
    reason TEXT,
    policy TEXT,
    loss_id TEXT,
    stored_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    UNIQUE (epoch, seq)
);
CREATE INDEX ready ON samples (prio, n) WHERE state = 'ready';
CREATE INDEX open_numbers ON samples (epoch, seq) WHERE state IN ('writing', 'ready');
CREATE INDEX undeclared ON samples (epoch, seq) WHERE state = 'lost' AND loss_id IS NULL;
CREATE INDEX final ON samples (changed_at) WHERE state IN ('acked', 'lost');
CREATE TABLE records (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('loss', 'agg', 'flag', 'report')),
    payload BLOB NOT NULL,
    refused TEXT
);
CREATE TABLE lost (reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class IndexFault(Exception):
    """The index could not be read or committed; nothing of the transaction holds. `full` says for want of space."""

    def __init__(self, text: str, *, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


class CorruptIndex(Exception):
    """Not a healthy index of this version: set it aside and rebuild."""


class NewerIndex(Exception):
    """Written by a newer program: refuse to touch it."""


class Index:
    """One connection to ``index.db``.

    Args:
        make_room: called when a commit finds the disk full; True means space was freed and one retry is worth it.
    """

    def __init__(self, path: Path, *, make_room: Callable[[], bool]) -> None:
        self.path = path
        self._make_room = make_room
        self._db = self._connect()

    @classmethod
    def create(cls, path: Path, *, epoch: str, make_room: Callable[[], bool]) -> Index:
        """A new index, complete or absent: schema and epoch are one transaction."""
        index = cls(path, make_room=make_room)

        def work(db: sqlite3.Connection) -> None:
            for statement in _SCHEMA.split(";"):
                if statement.strip():
                    db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('epoch', ?)", (epoch,))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

        index.write(work)
        return index

    @classmethod
    def open(cls, path: Path, *, make_room: Callable[[], bool]) -> Index:
        """An existing index, probed.

        Raises:
            CorruptIndex: damaged, not ours, or not finished.
            NewerIndex: of a later version.
        """
        try:
            index = cls(path, make_room=make_room)
        except IndexFault as fault:
            raise CorruptIndex(str(fault)) from fault
        try:
            version = int(index._db.execute("PRAGMA user_version").fetchone()[0])
            verdict = str(index._db.execute("PRAGMA quick_check(1)").fetchone()[0])
            epoch = index._db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone() if version else None
        except sqlite3.Error as fault:
            index.close()
            raise CorruptIndex(str(fault)) from fault
        if version > SCHEMA_VERSION:
            index.close()
            raise NewerIndex(f"{path} has format {version}, this program reads {SCHEMA_VERSION}: update the agent")
        if version != SCHEMA_VERSION or verdict != "ok" or epoch is None:
            index.close()
            raise CorruptIndex(f"format {version}, check {verdict!r}")
        return index

    def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction and commit it durably; retried once if room could be made.

        Raises:
            IndexFault: nothing of it holds.
        """
        try:
            return self._transact(work)
        except IndexFault as fault:
            if not (fault.full and self._make_room()):
                raise
        return self._transact(work)

    def read(self, work: Work[T]) -> T:
        """Run a query.

        Raises:
            IndexFault: it failed.
        """
        try:
            return work(self._db)
        except sqlite3.Error as fault:
            raise self._fault(fault) from fault

    def close(self) -> None:
        self._db.close()

    def _transact(self, work: Work[T]) -> T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = work(self._db)
            self._db.execute("COMMIT")
        except sqlite3.Error as fault:
            self._roll_back()
            raise self._fault(fault) from fault
        except BaseException:
            self._roll_back()
            raise
        return result

    def _roll_back(self) -> None:
        # A connection that cannot even roll back is replaced by `_fault`; closing it rolls back as well.
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                self._db.close()

    def _fault(self, fault: sqlite3.Error) -> IndexFault:
        full = getattr(fault, "sqlite_errorname", "") == "SQLITE_FULL"
        if not full:
            # After a failed fsync the kernel may have dropped the dirty pages: that descriptor is not tried again.
            self._db.close()
            try:
                self._db = self._connect()
            except IndexFault as again:
                return again
        return IndexFault(f"{self.path}: {fault}", full=full)

    def _connect(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except sqlite3.Error as fault:
            raise IndexFault(f"{self.path}: {fault}") from fault
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as fault:
            db.close()
            raise IndexFault(f"{self.path}: {fault}") from fault
        return db
