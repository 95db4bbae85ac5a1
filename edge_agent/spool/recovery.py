"""What happens when the spool opens: take the lock, check the index, and settle every number that was in between.

    writing, valid blob with its number   -> ready (the put had finished all but its last commit)
    writing, no valid blob                -> lost: crash_before_accept
    ready, no blob or wrong length        -> lost: corrupt
    blob without a row                    -> adopted; at worst the cloud answers `have`
    blob of an acked or lost number       -> deleted, the unlink had not reached the disk
    index gone or damaged                 -> set aside; a new epoch; the old one's numbers that are not in the blobs are
                                             declared accounting_ended, up to the bound kept in the `epoch` file

A second damaged index within an hour starts empty: content that breaks the accounts must not keep a line's box down.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_agent.spool.blobs import Blob, BlobFolder, CorruptBlob
from edge_agent.spool.books import count_lost, gaps, insert_record, lose, loss_records
from edge_agent.spool.index import CorruptIndex, Index
from edge_agent.spool.sample import State
from models.contracts.sample import SampleMeta
from models.contracts.uplink import LossRange, LossReason
from models.disk import Fs, write_atomic

log = logging.getLogger(__name__)

RESERVE = 4096
"""Numbers the `epoch` file promises ahead; a lost index then still knows how far its epoch can have come."""


class SpoolBusy(RuntimeError):
    """Another process owns the spool."""


@dataclass(frozen=True, slots=True)
class EpochFile:
    """`bound`: no sequence number above it was ever given out in `epoch`."""

    epoch: str
    bound: int

    def save(self, folder: Path, *, fs: Fs) -> None:
        write_atomic(folder / "epoch", json.dumps({"epoch": self.epoch, "bound": self.bound}).encode(), fs=fs)

    @staticmethod
    def load(folder: Path) -> EpochFile | None:
        """None when it is missing or damaged; the index then says which epoch this is."""
        try:
            document = json.loads((folder / "epoch").read_bytes())
            return EpochFile(epoch=f"{int(document['epoch'], 16):016x}", bound=int(document["bound"]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, OSError) as fault:
            log.warning("the spool's epoch file is damaged and will be rewritten: %s", fault)
            return None


def save_survivors(folder: Path, survivors: Mapping[str, float], *, fs: Fs) -> None:
    """Survival probabilities by sid, kept beside the index in case that must be rebuilt."""
    write_atomic(folder / "survivors", json.dumps(survivors).encode(), fs=fs)


def load_survivors(folder: Path) -> dict[str, float]:
    """What `save_survivors` wrote; empty when it is missing or damaged, which a rebuild says loudly."""
    try:
        document = json.loads((folder / "survivors").read_bytes())
        return {str(sid): float(p) for sid, p in document.items() if 0 < float(p) <= 1}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, OSError):
        log.exception("survival probabilities are damaged: rebuilt samples count as never thinned")
        return {}


def lock(folder: Path) -> int:
    """Descriptor that holds the spool for this process; the kernel releases it with the process.

    Raises:
        SpoolBusy: somebody else has it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        os.close(descriptor)
        raise SpoolBusy(f"another process owns the spool {folder}; stop it or give this agent its own state_dir") from (
            fault
        )
    return descriptor


@dataclass(frozen=True, slots=True)
class Opened:
    """What a start found."""

    index: Index
    epoch: EpochFile
    rebuilt: bool


class Recovery:
    """One start of one spool."""

    def __init__(
        self,
        folder: Path,
        *,
        edge: str,
        blobs: BlobFolder,
        fs: Fs,
        now: Callable[[], datetime],
        rng: random.Random,
        make_room: Callable[[], bool],
    ) -> None:
        self._folder, self._edge, self._blobs, self._fs = folder, edge, blobs, fs
        self._now, self._rng, self._make_room = now, rng, make_room

    def run(self) -> Opened:
        """The healthy index and its epoch; every number settled."""
        path, note = self._folder / "index.db", EpochFile.load(self._folder)
        rebuilt = False
        try:
            index = Index.open(path, make_room=self._make_room) if path.exists() else None
        except CorruptIndex:
            log.exception("spool index damaged, rebuilding from the blobs under a new epoch")
            index = None
        if index is None:
            rebuilt = note is not None or path.exists() or any(True for _ in self._blobs.files())
            index = self._rebuild(path, note) if rebuilt else self._create(path)
        self._settle(index)
        epoch = str(index.read(lambda db: db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]))
        if note is None or note.epoch != epoch:
            top = index.read(lambda db: _top(db, epoch))
            note = EpochFile(epoch=epoch, bound=top + RESERVE)
            note.save(self._folder, fs=self._fs)
        return Opened(index=index, epoch=note, rebuilt=rebuilt)

    def _create(self, path: Path) -> Index:
        index = Index.create(path, epoch=f"{self._rng.getrandbits(64):016x}", make_room=self._make_room)
        self._fs.sync_folder(self._folder)
        return index

    def _rebuild(self, path: Path, note: EpochFile | None) -> Index:
        stamp = int(self._now().timestamp())
        # A missing index is a rebuild that a power cut interrupted, not a second damage.
        empty = path.exists() and self._recent_rebuild(stamp)
        known = {} if note is None else {note.epoch: note.bound}
        held: dict[str, set[int]] = {}
        for file in self._blobs.files():
            blob = self._load(file)
            if blob is None:
                continue
            known[blob.meta.epoch] = max(known.get(blob.meta.epoch, 0), blob.meta.seq)
            if empty:
                self._blobs.set_aside(file)
            else:
                held.setdefault(blob.meta.epoch, set()).add(blob.meta.seq)
        if empty:
            log.critical("spool index damaged twice within an hour: starting empty, blobs are in quarantine/")
        for suffix in ("", "-wal", "-shm"):
            damaged = path.with_name(path.name + suffix)
            if damaged.exists():
                self._fs.rename(damaged, self._folder / "quarantine" / f"index-{stamp}.db{suffix}")
        for suffix in ("", "-wal", "-shm"):
            self._fs.unlink(path.with_name("index.new" + suffix))
        index = Index.create(
            path.with_name("index.new"), epoch=f"{self._rng.getrandbits(64):016x}", make_room=self._make_room
        )
        index.write(lambda db: self._end_accounts(db, known, held))
        index.close()
        # Closing checkpointed the WAL into the one file; it takes its name only when it is complete.
        path.with_name("index.new").replace(path)
        self._fs.sync_folder(self._folder)
        return Index.open(path, make_room=self._make_room)

    def _recent_rebuild(self, stamp: int) -> bool:
        stamps = [p.stem.partition("-")[2] for p in (self._folder / "quarantine").glob("index-*.db")]
        return any(text.isdigit() and 0 <= stamp - int(text) < 3600 for text in stamps)

    def _end_accounts(self, db: sqlite3.Connection, known: dict[str, int], held: dict[str, set[int]]) -> None:
        for epoch, bound in known.items():
            parts = [
                LossRange(first=first, last=last, reason=LossReason.ACCOUNTING_ENDED, policy="index_rebuilt")
                for first, last in gaps(held.get(epoch, set()), bound)
            ]
            for loss in loss_records(parts, edge=self._edge, epoch=epoch, now=self._now(), rng=self._rng):
                insert_record(db, loss.id, "loss", loss.encode())
            count_lost(db, LossReason.ACCOUNTING_ENDED, sum(part.last - part.first + 1 for part in parts))

    def _settle(self, index: Index) -> None:
        known = index.read(lambda db: dict(db.execute("SELECT sid, state FROM samples WHERE sid IS NOT NULL")))
        strangers: list[tuple[Path, Blob]] = []
        present: dict[str, int] = {}
        for file in self._blobs.files():
            sid, state = file.stem, known.get(file.stem)
            if state in (State.ACKED, State.LOST):
                self._blobs.remove(sid)
            elif state == State.READY:
                present[sid] = file.stat().st_size
            elif (blob := self._load(file)) is not None:
                strangers.append((file, blob))
        index.write(lambda db: self._adopt(db, strangers))
        index.write(lambda db: self._declare(db, present | {f.stem: f.stat().st_size for f, _ in strangers}))

    def _load(self, file: Path) -> Blob | None:
        try:
            return self._blobs.read(file.stem)
        except CorruptBlob as fault:
            log.warning("blob %s is no sample, moved to quarantine/: %s", file.name, fault)
            self._blobs.set_aside(file)
            return None

    def _adopt(self, db: sqlite3.Connection, strangers: Sequence[tuple[Path, Blob]]) -> None:
        at = self._now().timestamp()
        survivors = load_survivors(self._folder) if strangers else {}
        for file, blob in strangers:
            meta, size = blob.meta, file.stat().st_size
            columns = (meta.sid, blob.prio, size, crowd(meta), score(meta), at)
            row = db.execute(
                "SELECT n, state FROM samples WHERE epoch = ? AND seq = ?", (meta.epoch, meta.seq)
            ).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO samples (sid, prio, bytes, crowd, score, changed_at, epoch, seq, stored_at, survive,"
                    " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'ready')",
                    (*columns, meta.epoch, meta.seq, at, survivors.get(meta.sid, 1.0)),
                )
            elif row[1] == State.WRITING:
                db.execute(
                    "UPDATE samples SET sid = ?, prio = ?, bytes = ?, crowd = ?, score = ?, changed_at = ?,"
                    " state = 'ready' WHERE n = ?",
                    (*columns, row[0]),
                )
            else:
                # The number is settled under another sid or as lost: what failed half way is not sent as well.
                self._blobs.remove(meta.sid)

    def _declare(self, db: sqlite3.Connection, present: dict[str, int]) -> None:
        at = self._now().timestamp()
        rows = db.execute("SELECT n, sid, state, bytes FROM samples WHERE state IN ('writing', 'ready')").fetchall()
        for n, sid, state, size in rows:
            if state == State.WRITING:
                lose(db, n, LossReason.CRASH_BEFORE_ACCEPT, "recovery", at)
            elif present.get(sid) != size:
                lose(db, n, LossReason.CORRUPT, "recovery", at)
                self._blobs.set_aside(self._blobs.path(sid))


def crowd(meta: SampleMeta) -> str:
    """Predicted class and hour: samples alike in both are the redundant ones."""
    return f"{meta.decision.predicted or '-'}|{meta.captured_at:%Y%m%d%H}"


def score(meta: SampleMeta) -> float:
    """How hard the selector found it; 1 when nothing could be judged, 0.5 when it did not say."""
    if meta.decision.cannot_judge is not None:
        return 1.0
    return 0.5 if meta.selection.parts.u is None else meta.selection.parts.u


def _top(db: sqlite3.Connection, epoch: str) -> int:
    return int(db.execute("SELECT COALESCE(MAX(seq), 0) FROM samples WHERE epoch = ?", (epoch,)).fetchone()[0])
