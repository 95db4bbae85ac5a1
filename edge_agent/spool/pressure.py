"""What the spool does when space runs out: the ballast for its accounts, rounds of thinning for everything else.

`thinning` has the rules and the coin; this class measures, records a round in one commit and only then deletes.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from edge_agent.spool import queries
from edge_agent.spool.blobs import BlobFolder
from edge_agent.spool.books import lose
from edge_agent.spool.index import Index, IndexFault
from edge_agent.spool.recovery import save_survivors
from edge_agent.spool.sample import Limits
from edge_agent.spool.thinning import Candidate, Verdicts, thin
from models.contracts.uplink import Priority
from models.disk import Fs

log = logging.getLogger(__name__)

MAX_ROUNDS = 16
HUMANS = (Priority.FLAGGED, Priority.ALERT)


class Ballast:
    """A file that is given up when a commit finds the disk full, so that losses can still be written down."""

    def __init__(self, folder: Path, *, fs: Fs, limits: Limits) -> None:
        self._path, self._fs, self._limits = folder / "ballast", fs, limits

    def drop(self) -> bool:
        """Give it up. True: there is room now."""
        if not self._path.exists():
            return False
        try:
            self._fs.unlink(self._path)
        except OSError:
            log.exception("the ballast cannot be given up")
            return False
        log.warning("disk full: gave up the ballast so that the accounts can be written")
        return True

    def restore(self) -> None:
        """Have it again, if there is room to spare."""
        size = self._limits.ballast_bytes
        if not size or self._path.exists():
            return
        try:
            if self._fs.free_bytes(self._path.parent) > self._limits.min_free_bytes + 2 * size:
                self._fs.write_new(self._path, bytes(size))
        except OSError as fault:
            self.drop()
            log.warning("no ballast for now: %s", fault)


class Pressure:
    """Keeps the blobs within the limits. `bytes` is what they take; the spool holds its lock around every call."""

    def __init__(
        self,
        folder: Path,
        *,
        index: Index,
        blobs: BlobFolder,
        fs: Fs,
        limits: Limits,
        epoch: str,
        now: Callable[[], datetime],
    ) -> None:
        self._folder, self._index, self._blobs, self._fs = folder, index, blobs, fs
        self._limits, self._epoch, self._now = limits, epoch, now
        self.bytes, self._round = index.read(_measure)
        self._full = False

    @property
    def full(self) -> bool:
        """Whether samples had to be given up and there is not clearly room again."""
        limits = self._limits
        self._full = self._full and self.bytes > (2 * limits.low - limits.high) * limits.max_bytes
        return self._full

    def relieve(self, coming: int, leased: Mapping[str, Priority]) -> None:
        """Thin, if `coming` bytes ask for it.

        Raises:
            IndexFault: a round could not be recorded, and nothing of it was done.
            OSError: the disk does not even say how full it is.
        """
        limits = self._limits
        short = max(0, limits.min_free_bytes + coming - self._fs.free_bytes(self._folder))
        if self.bytes + coming < limits.high * limits.max_bytes and not short:
            return
        self._full = True
        goal = min(int(limits.low * limits.max_bytes) - coming, self.bytes - short)
        for _ in range(MAX_ROUNDS):
            if self.bytes <= goal or not self._thin(self.bytes - goal, leased):
                break

    def fits(self, coming: int) -> bool:
        return self.bytes + coming <= self._limits.max_bytes

    def _thin(self, excess: int, leased: Mapping[str, Priority]) -> bool:
        candidates = self._candidates(leased)
        number = self._round + 1
        verdicts = thin(candidates, excess=excess, epoch=self._epoch, number=number)
        if not verdicts.gone and not verdicts.survived:
            return False
        sizes = {candidate.sid: candidate.bytes for candidate in candidates}
        self._index.write(lambda db: self._record(db, verdicts, number))
        self._round = number
        self.bytes -= sum(sizes[sid] for sid, _, _ in verdicts.gone)
        counts = (number, len(verdicts.gone), len(verdicts.survived))
        log.warning("spool full: round %d gave up %d samples; %d stay with a lower survival probability", *counts)
        for sid, _, _ in verdicts.gone:
            self._blobs.discard(sid)
        self._copy_survivors()
        return True

    def _candidates(self, leased: Mapping[str, Priority]) -> list[Candidate]:
        free = self._index.read(lambda db: queries.candidates(db, leased))
        if any(prio not in HUMANS for prio in leased.values()):
            # Others are on their way out, so flagged samples are not yet the only ones left.
            return [candidate for candidate in free if candidate.prio not in HUMANS]
        return free

    def _record(self, db: sqlite3.Connection, verdicts: Verdicts, number: int) -> None:
        at = self._now().timestamp()
        for sid, reason, policy in verdicts.gone:
            lose(db, db.execute("SELECT n FROM samples WHERE sid = ?", (sid,)).fetchone()[0], reason, policy, at)
        db.executemany("UPDATE samples SET survive = ? WHERE sid = ?", [(p, sid) for sid, p in verdicts.survived])
        db.execute("INSERT OR REPLACE INTO meta VALUES ('round', ?)", (str(number),))

    def _copy_survivors(self) -> None:
        """Survival probabilities beside the index: a rebuilt one must not forget them."""
        try:
            save_survivors(self._folder, self._index.read(queries.survivors), fs=self._fs)
        except (IndexFault, OSError) as fault:
            log.warning("survival probabilities are in the index only: %s", fault)


def _measure(db: sqlite3.Connection) -> tuple[int, int]:
    used = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM samples WHERE state = 'ready'").fetchone()[0]
    number = db.execute("SELECT COALESCE(MAX(CAST(value AS INTEGER)), 0) FROM meta WHERE key = 'round'").fetchone()[0]
    return int(used), int(number)
