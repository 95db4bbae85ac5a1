"""The spool: `put` returns `Accepted` only for what survives a power cut, and every number given out is accounted for.

    1 commit the number (writing) -> 2 file synced, renamed, folder synced -> 3 commit (ready): accepted
    acknowledged: commit (acked) -> unlink.   lost: commit a tombstone -> unlink, or quarantine when refused

Nothing here raises into the caller for a full or failing disk: the sample is not accepted, its number is declared lost,
health becomes degraded and the line goes on. Threads may put while the uplink reads; step 2 runs outside the lock.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType

from edge_agent.spool import queries
from edge_agent.spool.blobs import MAX_META_BYTES, Blob, BlobFolder, CorruptBlob, encode_blob
from edge_agent.spool.books import lose
from edge_agent.spool.index import IndexFault
from edge_agent.spool.outbox import Outbox
from edge_agent.spool.pressure import Ballast, Pressure
from edge_agent.spool.queue import FairQueue
from edge_agent.spool.recovery import RESERVE, EpochFile, Recovery, crowd, lock, score
from edge_agent.spool.sample import Accepted, Account, Health, Limits, NotAccepted, Record, RecordKind, Sample
from models.contracts.base import sha256_hex
from models.contracts.sample import SampleMeta
from models.contracts.uplink import MAX_SAMPLE_BYTES, LossReason, Priority
from models.disk import REAL_FS, Fs

log = logging.getLogger(__name__)

Build = Callable[[str, int], SampleMeta]
GONE = frozenset({errno.ENOENT, errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EISDIR})
"""Faults of reading after which a sample is lost."""


class Spool:
    """See the module.

    Args:
        edge: this box's name, for loss declarations.
        rng: mints epochs and ids: ``random.SystemRandom()`` in a plant, seeded in tests. A seeded one on a real box
            would mint the same epoch again after a re-image, and the cloud would take it for a clone.

    Raises:
        SpoolBusy: another process owns the folder.
        OSError: the folder cannot be used at all.
        IndexFault: no index can be made, for instance on a full disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        edge: str,
        now: Callable[[], datetime],
        mono: Callable[[], float],
        rng: random.Random,
        fs: Fs = REAL_FS,
        limits: Limits | None = None,
    ) -> None:
        self._folder, self._edge, self._fs, self._limits = folder, edge, fs, limits or Limits()
        self._now, self._mono, self._rng = now, mono, rng
        self._lock = threading.RLock()
        self._blobs = BlobFolder(folder, fs=fs)
        self._ballast = Ballast(folder, fs=fs, limits=self._limits)
        folder.mkdir(parents=True, exist_ok=True)
        self._owner: int | None = lock(folder)
        try:
            self._blobs.prepare()
            opened = Recovery(
                folder, edge=edge, blobs=self._blobs, fs=fs, now=now, rng=rng, make_room=self._ballast.drop
            ).run()
        except BaseException:
            os.close(self._owner)
            raise
        self._index, self._note, self.rebuilt = opened.index, opened.epoch, opened.rebuilt
        self._outbox = Outbox(self._index, edge=edge, now=now, rng=rng)
        self._top = self._query("SELECT COALESCE(MAX(seq), 0) FROM samples WHERE epoch = ?", self.epoch)
        self._pressure = Pressure(
            folder, index=self._index, blobs=self._blobs, fs=fs, limits=self._limits, epoch=self.epoch, now=now
        )
        self._leased: dict[str, Priority] = {}
        self._queue = FairQueue()
        self._unsettled: list[tuple[int, LossReason, str]] = []
        self._unnumbered = 0
        self._degraded = False
        self._pruned_at = mono()
        self._ballast.restore()

    @property
    def epoch(self) -> str:
        """Minted with the index; with `seq` it names a sample for ever."""
        return self._note.epoch

    @property
    def health(self) -> Health:
        """degraded: the disk failed at the last sample. full: samples are being given up."""
        return "degraded" if self._degraded else "full" if self._pressure.full else "ok"

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free for another process. Nothing needs saving: everything accepted is durable already."""
        with self._lock:
            if self._owner is not None:
                self._index.close()
                os.close(self._owner)
                self._owner = None

    # -- putting ---------------------------------------------------------------------------------------------------

    def put(self, build: Build, image: bytes, prio: Priority) -> Accepted | NotAccepted:
        """Make one sample durable.

        Args:
            build: makes the envelope for the epoch and number it is given. What it raises is raised here, and the
                number is declared lost.
            image: the bytes as taken, at most 32 MiB.
        """
        try:
            with self._lock:
                self._pressure.relieve(len(image), self._leased)
                room = self._pressure.fits(len(image))
                seq = self._reserve()
        except (IndexFault, OSError) as fault:
            return self._failed(None, fault)
        if not room:
            return self._refuse(seq, LossReason.EVICTED, "no_room")
        try:
            meta = build(self.epoch, seq)
        except BaseException:
            self._refuse(seq, LossReason.IO_ERROR, "envelope_failed")
            raise
        return self._store(seq, meta, image, prio)

    def _store(self, seq: int, meta: SampleMeta, image: bytes, prio: Priority) -> Accepted | NotAccepted:
        meta_bytes, digest = meta.encode(), sha256_hex(image)
        wrong = self._wrong_envelope(seq, meta, digest)
        if wrong is not None:
            self._refuse(seq, LossReason.IO_ERROR, "envelope_failed")
            raise ValueError(wrong)
        if len(meta_bytes) > MAX_META_BYTES or not 0 < len(image) <= MAX_SAMPLE_BYTES:
            return self._refuse(seq, LossReason.REFUSED, f"size: image {len(image)}, envelope {len(meta_bytes)} bytes")
        data = encode_blob(meta_bytes, image, digest, prio)
        try:
            self._blobs.write(meta.sid, data)
        except OSError as fault:
            return self._failed(seq, fault)
        try:
            with self._lock:
                self._index.write(lambda db: self._accept(db, seq, meta, len(data), prio))
                self._pressure.bytes += len(data)
                self._degraded = False
        except (IndexFault, sqlite3.IntegrityError) as fault:
            self._blobs.discard(meta.sid)
            return self._failed(seq, fault)
        return Accepted(sid=meta.sid, epoch=self.epoch, seq=seq)

    def _wrong_envelope(self, seq: int, meta: SampleMeta, digest: str) -> str | None:
        if (meta.epoch, meta.seq, meta.edge) != (self.epoch, seq, self._edge):
            return f"the envelope of {meta.sid} must carry edge {self._edge}, epoch {self.epoch}, seq {seq}"
        if meta.image.sha256 != digest:
            return f"the envelope of {meta.sid} describes another image"
        if self._blobs.size(meta.sid) is not None:
            return f"sid {meta.sid} is in the spool already: mint a new one for every sample"
        return None

    def _accept(self, db: sqlite3.Connection, seq: int, meta: SampleMeta, size: int, prio: Priority) -> None:
        at = self._now().timestamp()
        db.execute(
            "UPDATE samples SET state = 'ready', sid = ?, prio = ?, bytes = ?, crowd = ?, score = ?, stored_at = ?,"
            " changed_at = ? WHERE epoch = ? AND seq = ?",
            (meta.sid, prio, size, crowd(meta), score(meta), at, at, self.epoch, seq),
        )

    def _reserve(self) -> int:
        """Step 1: the next number, durable before it is used."""
        self._settle()
        seq = self._top + 1
        if seq > self._note.bound:
            note = EpochFile(epoch=self.epoch, bound=seq + RESERVE)
            note.save(self._folder, fs=self._fs)
            self._note = note
        at = self._now().timestamp()
        self._index.write(
            lambda db: db.execute(
                "INSERT INTO samples (epoch, seq, state, stored_at, changed_at) VALUES (?, ?, 'writing', ?, ?)",
                (self.epoch, seq, at, at),
            )
        )
        self._top = seq
        return seq

    def _failed(self, seq: int | None, fault: Exception) -> NotAccepted:
        log.error("the spool could not store a sample, the line goes on: %s", fault)
        if seq is None:
            with self._lock:
                self._degraded, self._unnumbered = True, self._unnumbered + 1
            return NotAccepted(reason=LossReason.IO_ERROR, detail=str(fault))
        answer = self._refuse(seq, LossReason.IO_ERROR, type(fault).__name__)
        with self._lock:
            self._degraded = True
        return NotAccepted(reason=answer.reason, seq=seq, detail=str(fault))

    def _refuse(self, seq: int, reason: LossReason, policy: str) -> NotAccepted:
        with self._lock:
            self._unsettled.append((seq, reason, policy))
            try:
                self._settle()
            except IndexFault as fault:
                # It stays in memory for the next call; a restart finds the row `writing` and declares it as well.
                log.warning("the loss of number %d is not on disk yet: %s", seq, fault)
        return NotAccepted(reason=reason, seq=seq, detail=policy)

    def _settle(self) -> None:
        if not self._unsettled:
            return
        owed, at = list(self._unsettled), self._now().timestamp()

        def work(db: sqlite3.Connection) -> None:
            for seq, reason, policy in owed:
                row = db.execute(
                    "SELECT n FROM samples WHERE epoch = ? AND seq = ? AND state = 'writing'", (self.epoch, seq)
                ).fetchone()
                if row is not None:
                    lose(db, row[0], reason, policy, at)

        self._index.write(work)
        self._unsettled.clear()

    # -- reading ---------------------------------------------------------------------------------------------------

    def next_batch(self, limit: int, *, weights: Mapping[Priority, int], exclude: Collection[str] = ()) -> list[Sample]:
        """Up to `limit` samples to offer next, leased to the caller: never thinned until `release`, `acked` or
        `refused`. Alert and flagged come first, debug last; the others share by `weights`.
        """
        with self._lock:
            busy = {*self._leased, *exclude}
            try:
                heads = self._index.read(lambda db: queries.heads(db, limit, busy))
            except IndexFault:
                log.exception("the spool's index cannot be read")
                return []
            chosen = self._queue.choose({p: list(rows) for p, rows in heads.items()}, limit=limit, weights=weights)
            survive = {sid: p for rows in heads.values() for sid, p in rows.items()}
            samples = [sample for sid in chosen if (sample := self._load(sid, survive[sid])) is not None]
            self._leased.update((sample.sid, sample.prio) for sample in samples)
            return samples

    def _load(self, sid: str, survive: float) -> Sample | None:
        blob = self._read(sid)
        if blob is None:
            return None
        meta = blob.meta
        return Sample(
            sid=sid,
            epoch=meta.epoch,
            seq=meta.seq,
            sha256=meta.image.sha256,
            size=len(blob.image),
            type=meta.image.type,
            meta_sha=sha256_hex(blob.meta_bytes),
            meta=json.loads(blob.meta_bytes),  # not the model: fields of a newer program are under the digest too
            prio=blob.prio,
            pi_survive=survive,
            captured_at=meta.captured_at,
            clock_ok=meta.clock.ok,
        )

    def image(self, sid: str) -> bytes | None:
        """The image, checked to the last bit; None when it is spoiled, which is declared here."""
        blob = self._read(sid)
        return None if blob is None else blob.image

    def _read(self, sid: str) -> Blob | None:
        try:
            return self._blobs.read(sid)
        except CorruptBlob as fault:
            self._spoiled(sid, fault)
        except OSError as fault:
            if fault.errno in GONE:
                self._spoiled(sid, fault)
            else:
                # Too many open files, no memory: the sample is as good as before and is read again later.
                log.warning("sample %s cannot be read now: %s", sid, fault)
        return None

    def _spoiled(self, sid: str, fault: Exception) -> None:
        log.error("sample %s is spoiled on disk, declared lost: %s", sid, fault)
        self._finish(sid, None, reason=LossReason.CORRUPT, policy=type(fault).__name__)

    def release(self, sid: str) -> None:
        """The caller no longer works on it: it may be thinned, and offered again."""
        with self._lock:
            self._leased.pop(sid, None)

    # -- the cloud's answers ---------------------------------------------------------------------------------------

    def acked(self, sid: str, epoch: str) -> bool:
        """The cloud has it, durably: forget it. False when it is not pending here, or in another epoch."""
        return self._finish(sid, epoch)

    def refused(self, sid: str, epoch: str, code: str) -> bool:
        """The cloud will never take it: quarantine it and declare it lost."""
        return self._finish(sid, epoch, reason=LossReason.REFUSED, policy=code)

    def _finish(self, sid: str, epoch: str | None, *, reason: LossReason | None = None, policy: str = "") -> bool:
        at = self._now().timestamp()

        def work(db: sqlite3.Connection) -> int | None:
            row = db.execute(
                "SELECT n, bytes FROM samples WHERE sid = ? AND state = 'ready' AND (? IS NULL OR epoch = ?)",
                (sid, epoch, epoch),
            ).fetchone()
            if row is None:
                return None
            if reason is None:
                db.execute("UPDATE samples SET state = 'acked', changed_at = ? WHERE n = ?", (at, row[0]))
            else:
                lose(db, row[0], reason, policy, at)
            return int(row[1])

        with self._lock:
            try:
                size = self._index.write(work)
            except IndexFault:
                # The answer is lost; the sample is offered again and the cloud repeats it.
                log.exception("an answer for %s could not be recorded", sid)
                self._degraded = True
                return False
            if size is None:
                return False
            self._pressure.bytes -= size
            self._leased.pop(sid, None)
        self._clear(sid, keep=reason is not None)
        return True

    def _clear(self, sid: str, *, keep: bool) -> None:
        try:
            if keep:
                self._blobs.set_aside(self._blobs.path(sid))
            else:
                self._blobs.remove(sid)
        except OSError as fault:
            # Its row is final, so the next start deletes it.
            log.warning("file of %s remains until the next start: %s", sid, fault)

    # -- records ---------------------------------------------------------------------------------------------------

    def record(self, kind: RecordKind, key: str, payload: bytes) -> None:
        """Keep a document until the cloud acknowledges `key`. Durable on return; the same key again changes nothing.

        Raises:
            ValueError: larger than its topic allows.
            IndexFault: it could not be stored; keep it and try again.
        """
        with self._lock:
            self._outbox.add(kind, key, payload)

    def records_due(self, limit: int, *, exclude: Collection[str] = ()) -> list[Record]:
        """Records that wait for their receipt, losses first, else oldest first. New losses are declared here."""
        with self._lock:
            try:
                self._settle()
            except IndexFault as fault:
                log.warning("losses of a failing disk are not declared yet: %s", fault)
            return self._outbox.due(limit, exclude)

    def record_acked(self, key: str) -> bool:
        """The cloud has the record: forget it."""
        with self._lock:
            return self._outbox.acked(key)

    def record_refused(self, key: str, code: str) -> bool:
        """The cloud will never take the record: keep it for a person, send it no more."""
        with self._lock:
            return self._outbox.refused(key, code)

    # -- looking ---------------------------------------------------------------------------------------------------

    def account(self) -> Account:
        """The books at one instant.

        Raises:
            IndexFault: they cannot be read.
        """
        with self._lock:
            return self._index.read(self._account)

    def _account(self, db: sqlite3.Connection) -> Account:
        n, size, oldest = queries.pending(db)
        parts, complete = queries.pending_ranges(db, self.epoch)
        lost = dict(db.execute("SELECT reason, n FROM lost"))
        if self._unnumbered:
            lost["unnumbered"] = self._unnumbered
        return Account(
            epoch=self.epoch,
            max_seq=self._top,
            pending=n,
            pending_bytes=size,
            oldest_age_s=0.0 if oldest is None else max(0.0, self._now().timestamp() - oldest),
            ranges=parts,
            complete=complete,
            health=self.health,
            lost=lost,
            records=int(db.execute("SELECT COUNT(*) FROM records WHERE refused IS NULL").fetchone()[0]),
        )

    def tend(self) -> None:
        """Housekeeping, called now and then by the uplink: ballast, rows beyond their age, old quarantine files."""
        with self._lock:
            if self._mono() - self._pruned_at < 600:
                return
            self._pruned_at = self._mono()
            self._ballast.restore()
            limit = self._now().timestamp() - self._limits.keep_s
            try:
                self._index.write(lambda db: queries.purge(db, limit, self.epoch, self._top))
                self._blobs.thin_quarantine()
            except (IndexFault, OSError) as fault:
                log.warning("old rows and files stay for now: %s", fault)

    def _query(self, statement: str, *values: str) -> int:
        return int(self._index.read(lambda db: db.execute(statement, values).fetchone()[0]))
