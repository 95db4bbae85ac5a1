"""Offers and chunks of one sample after another: what to answer, what to stage, when it is complete.

The bitmap lies in the staging row, the bytes in a file; whatever of both is lost is sent again. A sample of one chunk
is never staged: it goes from the message to the archive. When the object store is down a new offer hears `later`
without the store being asked, until its pause is over.
"""

from __future__ import annotations

from collections import Counter

import structlog
from sqlalchemy.orm import Session

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Staging
from cloud.ingest import repository
from cloud.ingest.archive import Archive, Upload, WrongDigest, conflict, known
from cloud.ingest.rules import Credits, ReadOffer, Refusal, check_item, later
from cloud.ingest.staging import StagingFiles
from cloud.objects import StoreUnavailable
from cloud.settings import IngestSection
from models.contracts.chunk import Chunk, chunk_count
from models.contracts.uplink import Ack, AckItem, OfferItem, Result, bitmap_encode, bitmap_missing

MAX_WRONG_DIGESTS = 3
UNKNOWN_EDGE_RETRY_S = 60
log = structlog.get_logger(__name__)


class Uploads:
    """See the module. One thread calls it."""

    def __init__(
        self, *, begin: Begin, archive: Archive, files: StagingFiles, now: NowUs, limits: IngestSection
    ) -> None:
        self._begin, self._archive, self._files = begin, archive, files
        self._now, self._limits = now, limits
        self._store_pause_until = 0
        self.counts: Counter[str] = Counter()
        self.credits = Credits(limits.edge_credit_bytes, limits.staging_bytes, limits.chunk_bytes)

    def offer(self, offer: ReadOffer) -> Ack:
        """Answer every item of an offer, finishing those whose bytes are already complete here."""
        answers, complete = list(offer.refused), []
        with self._begin() as session:
            edge = repository.edge_row(session, offer.edge)
            if edge is None:
                return self._unknown_edge(offer)
            edge.epoch = offer.epoch
            for item in offer.items:
                answer = self._decide(session, offer, item, line=edge.line)
                complete.append(answer) if isinstance(answer, Upload) else answers.append(answer)
        answers += [self._finish(upload, self._bytes_of(upload)) for upload in complete]
        for answer in answers:
            self._ended(answer)
        return self._ack(offer.edge, offer.epoch, answers)

    def chunk(self, edge: str, chunk: Chunk) -> Ack | None:
        """Place one chunk. An answer when the sample ended, or when the edge needs more credit."""
        self.counts["chunks"] += 1
        low = self.credits.spend(edge, len(chunk.data))
        upload = answer = None
        with self._begin() as session:
            row = session.get(Staging, chunk.sid)
            if row is None or row.edge != edge:
                return self._stray(session, edge, chunk)
            upload = _upload(row)
            if not self._fits(row, upload.item, chunk):
                self.counts["chunks_dropped"] += 1
                return None
            if chunk.count > 1:
                self._files.write(chunk.sid, chunk.offset, chunk.data)
                row.held = _with(row.held, chunk)
                if bitmap_missing(row.held, chunk.count):
                    return self._ack(edge, row.epoch, []) if low else None
        data = chunk.data if chunk.count == 1 else self._bytes_of(upload)
        answer = self._finish(upload, data)
        self._ended(answer)
        return self._ack(edge, upload.epoch, [answer])

    def later(self, edge: str, epoch: str, sids: list[str], *, code: str, detail: str) -> Ack:
        """Everything asked for must wait; no data meanwhile."""
        items = [later(sid, self._limits.retry_after_s, code, detail) for sid in sids]
        return Ack(edge=edge, epoch=epoch, items=items, credit_bytes=0)

    def restore(self) -> None:
        """After a start: uploads under way keep their room; bytes without a row are forgotten."""
        with self._begin() as session:
            rows = {row.sid: int(row.offer["item"]["size"]) for row in session.query(Staging)}
        self.credits.reserved = rows
        for sid in set(self._files.sids()) - rows.keys():
            self._files.drop(sid)

    def forget(self, sid: str) -> None:
        """An upload nobody continues gives its room back."""
        self._files.drop(sid)
        self.credits.release(sid)

    @property
    def store_paused(self) -> bool:
        """Whether the object store failed a moment ago and is left alone."""
        return self._now() < self._store_pause_until

    def _decide(  # noqa: PLR0911 - one guard per rule
        self, session: Session, offer: ReadOffer, item: OfferItem, *, line: str
    ) -> AckItem | Upload:
        now = self._now()
        answer = known(session, edge=offer.edge, epoch=offer.epoch, item=item, at=now)
        if answer is not None:
            return answer
        checked = check_item(
            item, edge=offer.edge, epoch=offer.epoch, line=line, sample_bytes=self._limits.sample_bytes
        )
        if isinstance(checked, Refusal):
            return checked.answer(item.sid)
        row = session.get(Staging, item.sid)
        if row is not None and row.edge != offer.edge:
            detail = f"edge {row.edge!r} is uploading a sample with this id"
            return conflict(session, edge=offer.edge, item=item, at=now, detail=detail)
        if self.store_paused:
            return later(item.sid, self._limits.retry_after_s, "store_down", "the object store is not available")
        if row is None and repository.open_uploads(session, offer.edge) >= self._limits.open_uploads:
            return later(item.sid, self._limits.retry_after_s, "busy", "too many uploads of this edge are under way")
        if not self.credits.admit(item.sid, item.size):
            return later(item.sid, self._limits.retry_after_s, "busy", "the staging area is full")
        return self._want(session, row, offer, item)

    def _want(self, session: Session, row: Staging | None, offer: ReadOffer, item: OfferItem) -> AckItem | Upload:
        size = min(self._limits.chunk_bytes, item.max_chunk or self._limits.chunk_bytes)
        document = {"item": item.model_dump(mode="json"), "wrong": 0}
        if row is None:
            row = Staging(
                sid=item.sid, edge=offer.edge, epoch=offer.epoch, offer=document, chunk=size, held="",
                offered_at=self._now(),
            )  # fmt: skip
            session.add(row)
        elif row.chunk != size or row.offer["item"]["sha256"] != item.sha256 or row.epoch != offer.epoch:
            row.chunk, row.held, row.offer, row.epoch = size, "", document, offer.epoch
        else:
            row.offer = {**document, "wrong": row.offer["wrong"]}
        row.offered_at = self._now()
        count = chunk_count(item.size, size)
        if (row.held and not bitmap_missing(row.held, count)) or self._archive.landed(item.sha256) is not None:
            return _upload(row)
        held = row.held or bitmap_encode(set(), count)
        return AckItem(sid=item.sid, result=Result.WANT, chunks=held, chunk=size)

    def _bytes_of(self, upload: Upload) -> bytes:
        staged = self._files.read(upload.item.sid)
        if staged is None or len(staged) != upload.item.size:
            staged = self._archive.landed(upload.item.sha256) or staged
        return staged or b""

    def _finish(self, upload: Upload, data: bytes) -> AckItem:
        """Store a complete upload; every failure that may pass is `later`."""
        sid, retry = upload.item.sid, self._limits.retry_after_s
        try:
            answer = self._archive.store(upload, data)
        except WrongDigest as fault:
            return self._wrong_digest(upload, str(fault))
        except StoreUnavailable as fault:
            self.counts["store_unavailable"] += 1
            self._store_pause_until = self._now() + retry * 1_000_000
            log.warning("store_unavailable", sid=sid, error=str(fault))
            return later(sid, retry, "store_down", "the object store is not available")
        except OSError:
            self.counts["disk_error"] += 1
            log.exception("landing_failed", sid=sid)
            return later(sid, retry, "disk", "the cloud cannot write its landing copy")
        self._files.drop(sid)
        return answer

    def _wrong_digest(self, upload: Upload, detail: str) -> AckItem:
        """Start over with an empty bitmap; what is wrong again and again is refused."""
        self.counts["wrong_digest"] += 1
        self._files.drop(upload.item.sid)
        with self._begin() as session:
            row = session.get(Staging, upload.item.sid)
            if row is None:
                return later(upload.item.sid, self._limits.retry_after_s, "again", "offer it again")
            row.held = ""
            row.offer = {**row.offer, "wrong": row.offer["wrong"] + 1}
            if row.offer["wrong"] < MAX_WRONG_DIGESTS:
                count = chunk_count(upload.item.size, row.chunk)
                empty = bitmap_encode(set(), count)
                return AckItem(sid=row.sid, result=Result.WANT, chunks=empty, chunk=row.chunk)
            session.delete(row)
        log.error("digest_refused", sid=upload.item.sid, edge=upload.edge, detail=detail)
        return Refusal("digest", f"{MAX_WRONG_DIGESTS} uploads did not have the offered digest").answer(upload.item.sid)

    def _fits(self, row: Staging, item: OfferItem, chunk: Chunk) -> bool:
        """Whether the chunk belongs to what was asked for. A sample sent unasked is one chunk of its own size."""
        alone = chunk.count == 1 and chunk.index == 0 and len(chunk.data) == item.size
        if alone:
            return True
        last = item.size - (chunk.count - 1) * chunk.size
        expected = last if chunk.index == chunk.count - 1 else chunk.size
        return (
            chunk.size == row.chunk
            and chunk.count == chunk_count(item.size, chunk.size)
            and len(chunk.data) == expected
        )

    def _stray(self, session: Session, edge: str, chunk: Chunk) -> Ack | None:
        """A chunk nobody asked for: the receipt again if the sample is stored (its ack was lost), else counted."""
        sample = repository.stored(session, chunk.sid)
        if sample is not None and sample.edge == edge:
            self.counts["duplicates"] += 1
            return self._ack(edge, sample.epoch, [AckItem(sid=chunk.sid, result=Result.HAVE)])
        self.counts["chunks_without_offer"] += 1
        return None

    def _unknown_edge(self, offer: ReadOffer) -> Ack:
        """Not for ever: the operator may enrol the box in a minute, and nothing of it may be lost until then."""
        self.counts["unknown_edge"] += 1
        detail = f"this cloud does not know the edge {offer.edge!r}: enrol it with `edgeloop cloud edge add`"
        items = [later(item.sid, UNKNOWN_EDGE_RETRY_S, "unknown_edge", detail) for item in offer.items]
        return Ack(edge=offer.edge, epoch=offer.epoch, items=[*offer.refused, *items], credit_bytes=0)

    def _ended(self, answer: AckItem) -> None:
        self.counts[answer.result.value] += 1
        if answer.result in (Result.STORED, Result.HAVE, Result.NO):
            self.credits.release(answer.sid)

    def _ack(self, edge: str, epoch: str, items: list[AckItem]) -> Ack:
        granted = 0 if self.store_paused else self.credits.grant(edge)
        return Ack(edge=edge, epoch=epoch, items=items, credit_bytes=granted)


def _upload(row: Staging) -> Upload:
    item = OfferItem.model_validate(row.offer["item"])
    return Upload(edge=row.edge, epoch=row.epoch, item=item, offered_at=row.offered_at)


def _with(held: str, chunk: Chunk) -> str:
    missing = set(bitmap_missing(held, chunk.count))
    missing.discard(chunk.index)
    return bitmap_encode(set(range(chunk.count)) - missing, chunk.count)
