"""Queries of ingest. Every function works in the caller's transaction."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud.clock import to_us
from cloud.db.tables import Edge, Line, Sample, Staging, Task
from cloud.ingest.coin import RECENT
from cloud.ingest.rules import Placing, period
from models.contracts.sample import SampleMeta
from models.contracts.uplink import OfferItem


def edge_row(session: Session, name: str) -> Edge | None:
    """The enrolled box, or None."""
    return session.get(Edge, name)


def stored(session: Session, sid: str) -> Sample | None:
    """The row of a stored sample."""
    return session.get(Sample, sid)


def at_sequence(session: Session, edge: str, epoch: str, seq: int) -> str | None:
    """The sid stored under (edge, epoch, seq)."""
    return session.scalars(
        select(Sample.sid).where(Sample.edge == edge, Sample.epoch == epoch, Sample.seq == seq)
    ).first()


def open_uploads(session: Session, edge: str) -> int:
    """Uploads of `edge` under way."""
    return session.scalars(select(func.count()).select_from(Staging).where(Staging.edge == edge)).one()


def recent_inclusions(session: Session, line: str) -> list[float]:
    """``pi_select * pi_survive`` of the line's newest stored samples."""
    newest = select(Sample.pi_select * Sample.pi_survive).where(Sample.line == line)
    return list(session.scalars(newest.order_by(Sample.stored_at.desc(), Sample.sid.desc()).limit(RECENT)))


def add_sample(
    session: Session,
    *,
    item: OfferItem,
    meta: SampleMeta,
    line: Line,
    offered_at: int,
    stored_at: int,
    media: tuple[str, int | None, int | None],
    landed: bool,
) -> None:
    """Insert the row; `media` is type, width and height as found in the bytes."""
    captured = to_us(meta.captured_at)
    decision = meta.decision
    session.add(
        Sample(
            sid=item.sid,
            edge=meta.edge,
            epoch=meta.epoch,
            seq=item.seq,
            line=meta.line,
            camera=meta.camera,
            serial=meta.part.serial,
            lot=meta.part.lot,
            product=meta.part.product,
            captured_at=captured,
            clock_ok=item.clock_ok and meta.clock.ok,
            received_at=offered_at,
            stored_at=stored_at,
            sha256=item.sha256,
            size=item.size,
            type=media[0],
            width=media[1],
            height=media[2],
            verdict=decision.verdict.value,
            predicted=decision.predicted,
            confidence=decision.confidence,
            defect_score=decision.defect_score,
            stratum=meta.selection.stratum.value,
            pi_select=meta.selection.pi_select,
            pi_survive=item.pi_survive,
            release=meta.model.release,
            period=period(captured, line.hour_s),
            meta=item.meta,
            meta_sha=item.meta_sha,
            landed=landed,
        )
    )
    session.flush()


def add_task(session: Session, *, sid: str, line: str, placing: Placing, now: int) -> None:
    """One open task per sample, in the transaction that stores it."""
    session.add(
        Task(sid=sid, line=line, queue=placing.queue, pi_label=placing.pi_label, value=placing.value, created_at=now)
    )
