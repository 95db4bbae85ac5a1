"""The last steps of an upload: digest, landing copy, object durable, row and task committed; then the caller answers.

A crash between any two steps leaves at most an unreferenced object or landing copy; doing it all again is harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Line, Staging
from cloud.ingest import repository
from cloud.ingest.coin import label_probability
from cloud.ingest.rules import Placing, Refusal, place
from cloud.ingest.staging import Landing
from cloud.objects import DigestConflict, ObjectStore, StoreUnavailable, sample_key
from cloud.settings import ReviewSection
from models.contracts.base import parse_as, sha256_hex
from models.contracts.sample import SampleMeta
from models.contracts.uplink import AckItem, OfferItem, Result
from models.runtime.image import Unreadable, read_header

OCTETS = "application/octet-stream"
log = structlog.get_logger(__name__)


class WrongDigest(Exception):
    """The assembled bytes are not those of the offer: they are dropped and asked for again."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete upload: what was offered, by whom and when."""

    edge: str
    epoch: str
    item: OfferItem
    offered_at: int


def media_of(data: bytes) -> tuple[str, int | None, int | None]:
    """Type, width and height from the bytes. An unreadable image is kept too (the edge could not judge it), as octets,
    so that no browser guesses at it."""
    try:
        header = read_header(data)
    except Unreadable:
        return OCTETS, None, None
    return header.type, header.width, header.height


def known(session: Session, *, edge: str, epoch: str, item: OfferItem, at: int) -> AckItem | None:
    """HAVE for a stored sample, a refusal for one that contradicts what is stored, None for a new one."""
    row = repository.stored(session, item.sid)
    if row is not None:
        if (row.edge, row.epoch, row.seq, row.sha256, row.meta_sha) == (
            edge, epoch, item.seq, item.sha256, item.meta_sha,
        ):  # fmt: skip
            return AckItem(sid=item.sid, result=Result.HAVE)
        return conflict(session, edge=edge, item=item, at=at, detail="this sample id is stored with other content")
    other = repository.at_sequence(session, edge, epoch, item.seq)
    if other is not None:
        detail = f"sequence number {item.seq} of this epoch is stored as {other}: a cloned or restored box?"
        return conflict(session, edge=edge, item=item, at=at, detail=detail)
    return None


def conflict(session: Session, *, edge: str, item: OfferItem, at: int, detail: str) -> AckItem:
    """Refuse for ever and leave a trace: two truths under one identity are a security event."""
    audit.record(
        session, at=at, actor=f"edge:{edge}", action="sample_conflict", subject=item.sid, reason=detail,
        evidence={"edge": edge, "seq": item.seq, "sha256": item.sha256, "meta_sha": item.meta_sha},
    )  # fmt: skip
    return Refusal("conflict", detail).answer(item.sid)


class Archive:
    """Makes a complete upload durable and answers STORED, HAVE, or NO with ``conflict``."""

    def __init__(
        self,
        *,
        begin: Begin,
        objects: ObjectStore,
        now: NowUs,
        landing: Landing | None,
        review: ReviewSection,
        checkpoint: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._begin, self._objects, self._now = begin, objects, now
        self._landing, self._review, self._checkpoint = landing, review, checkpoint

    def landed(self, sha256: str) -> bytes | None:
        """The bytes of an upload that was complete but not stored, if they are still here."""
        return self._landing.read(sha256) if self._landing is not None else None

    def store(self, upload: Upload, data: bytes) -> AckItem:
        """Object, then row, then the answer.

        Raises:
            WrongDigest: `data` is not what was offered.
            StoreUnavailable, OSError, sqlalchemy.exc.OperationalError: try again later; nothing was acknowledged.
        """
        item = upload.item
        if len(data) != item.size or sha256_hex(data) != item.sha256:
            raise WrongDigest(f"sample {item.sid}: {len(data)} bytes do not have the offered digest")
        media = media_of(data)
        if self._landing is not None:
            self._landing.put(item.sha256, data)
        self._checkpoint("landed")
        self._put(item.sha256, data, media[0])
        self._checkpoint("object")
        try:
            answer = self._row(upload, media)
        except IntegrityError:
            answer = self._row(upload, media)  # another ingest was faster: this time it answers HAVE or conflict
        self._checkpoint("row")
        return answer

    def _put(self, sha256: str, data: bytes, content_type: str) -> None:
        key = sample_key(sha256)
        try:
            self._objects.put_once(key, data, sha256=sha256, content_type=content_type)
        except DigestConflict as fault:
            # The key is the digest and `data` has it, so what lies there is a torn write: replace it.
            log.warning("object_repaired", key=key, found=str(fault))
            self._objects.delete(key)
            try:
                self._objects.put_once(key, data, sha256=sha256, content_type=content_type)
            except DigestConflict as again:
                raise StoreUnavailable(f"the object store keeps damaging {key!r}: {again}") from again

    def _row(self, upload: Upload, media: tuple[str, int | None, int | None]) -> AckItem:
        item, now = upload.item, self._now()
        meta = parse_as(SampleMeta, item.meta)
        with self._begin() as session:
            answer = known(session, edge=upload.edge, epoch=upload.epoch, item=item, at=now)
            if answer is None:
                line = session.get_one(Line, meta.line)
                placing = self._place(session, meta, pi_survive=item.pi_survive)
                repository.add_sample(
                    session, item=item, meta=meta, line=line, offered_at=upload.offered_at, stored_at=now,
                    media=media, landed=self._landing is not None,
                )  # fmt: skip
                repository.add_task(session, sid=item.sid, line=meta.line, placing=placing, now=now)
                answer = AckItem(sid=item.sid, result=Result.STORED)
            staged = session.get(Staging, item.sid)
            if staged is not None:
                session.delete(staged)
        return answer

    def _place(self, session: Session, meta: SampleMeta, *, pi_survive: float) -> Placing:
        """The coin's probability from the samples stored before this one, then the toss."""
        pi_label = label_probability(
            meta.selection.pi_select * pi_survive,
            repository.recent_inclusions(session, meta.line),
            share=self._review.estimate_share,
        )
        return place(meta, pi_label=pi_label, seed=self._review.seed)
