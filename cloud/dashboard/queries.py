"""Plain rows for the pages, read-only. What is estimated or decided comes from the services, never from here.

Every query is bounded: the newest periods, one page of a list. Image bytes are in no table, so no query meets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, cast, func, select
from sqlalchemy.orm import Session, aliased, defer

from cloud.db.tables import (
    AggregateRow,
    Audit,
    Candidate,
    DeviceReportRow,
    Edge,
    Label,
    Line,
    LossRow,
    Release,
    Sample,
    Task,
)
from models.contracts.base import sha256_hex

PERIODS = 48
PAGE = 50


@dataclass(frozen=True)
class PeriodParts:
    """What a line did in one period, from the aggregates over all parts. Times in microseconds since 1970."""

    period: int
    starts_at: int
    ends_at: int
    parts: int
    selected: int
    passed: int
    rejected: int
    unsure: int


@dataclass(frozen=True)
class LineState:
    """A line's counters as they are now."""

    stored_at: int | None
    open_tasks: int
    boxes: int
    boxes_online: int
    uploaded: int
    labelled: int


def lines(session: Session) -> Sequence[Line]:
    return session.scalars(select(Line).order_by(Line.title, Line.name)).all()


def _verdict(name: str) -> ColumnElement[int]:
    return func.coalesce(func.sum(cast(AggregateRow.verdicts[name].as_string(), Integer)), 0)


def parts_by_period(session: Session, line: str, *, limit: int = PERIODS) -> list[PeriodParts]:
    """The newest `limit` periods that have aggregates, oldest first."""
    rows = session.execute(
        select(
            AggregateRow.period,
            func.min(AggregateRow.period_start),
            func.max(AggregateRow.period_end),
            func.sum(AggregateRow.n),
            func.sum(AggregateRow.n_selected),
            _verdict("pass"),
            _verdict("reject"),
            _verdict("unsure"),
        )
        .where(AggregateRow.line == line)
        .group_by(AggregateRow.period)
        .order_by(AggregateRow.period.desc())
        .limit(limit)
    )
    return [PeriodParts(*(int(value) for value in row)) for row in rows][::-1]


def _standing_labels(line: str) -> Select[Any]:
    """Ids of samples with a judgement that was not taken back. A skip has no name and judges nothing."""
    undo = aliased(Label)
    return (
        select(Label.sid)
        .outerjoin(undo, undo.undoes == Label.id)
        .where(Label.line == line, Label.name.is_not(None), Label.undoes.is_(None), undo.id.is_(None))
        .distinct()
    )


def labelled_by_period(session: Session, line: str, *, since: int) -> dict[int, int]:
    """Labelled samples per period, from period `since` on."""
    standing = _standing_labels(line).subquery()
    rows = session.execute(
        select(Sample.period, func.count())
        .join(standing, standing.c.sid == Sample.sid)
        .where(Sample.period >= since)
        .group_by(Sample.period)
    )
    return {int(period): int(count) for period, count in rows}


def uploaded_by_period(session: Session, line: str, *, since: int) -> dict[int, int]:
    """Stored samples per period, from period `since` on."""
    rows = session.execute(
        select(Sample.period, func.count()).where(Sample.line == line, Sample.period >= since).group_by(Sample.period)
    )
    return {int(period): int(count) for period, count in rows}


def open_tasks(session: Session) -> dict[str, int]:
    """Samples waiting for a label, per line."""
    rows = session.execute(select(Task.line, func.count()).where(Task.state == "open").group_by(Task.line))
    return {name: int(count) for name, count in rows}


def line_state(session: Session, line: str) -> LineState:
    boxes = session.execute(
        select(func.count(), func.coalesce(func.sum(cast(Edge.online, Integer)), 0)).where(Edge.line == line)
    ).one()
    standing = _standing_labels(line).subquery()
    return LineState(
        stored_at=session.scalar(select(func.max(Sample.stored_at)).where(Sample.line == line)),
        open_tasks=open_tasks(session).get(line, 0),
        boxes=int(boxes[0]),
        boxes_online=int(boxes[1]),
        uploaded=int(session.scalar(select(func.count()).select_from(Sample).where(Sample.line == line)) or 0),
        labelled=int(session.scalar(select(func.count()).select_from(standing)) or 0),
    )


def releases(session: Session, line: str, *, limit: int = PAGE) -> Sequence[Release]:
    """The line's releases, newest first."""
    query = select(Release).where(Release.line == line).order_by(Release.number.desc()).limit(limit)
    return session.scalars(query).all()


def candidates(session: Session, line: str, *, limit: int = PAGE) -> Sequence[Candidate]:
    """Adapter releases with the gate's word, newest first."""
    query = (
        select(Candidate)
        .options(defer(Candidate.proposal))
        .where(Candidate.line == line)
        .order_by(Candidate.release.desc())
        .limit(limit)
    )
    return session.scalars(query).all()


def boxes(session: Session, line: str | None = None) -> Sequence[Edge]:
    query = select(Edge).options(defer(Edge.certificate)).order_by(Edge.line, Edge.name)
    return session.scalars(query if line is None else query.where(Edge.line == line)).all()


def losses(session: Session) -> dict[str, dict[str, int]]:
    """Declared losses: box -> reason -> samples."""
    rows = session.execute(
        select(LossRow.edge, LossRow.reason, func.sum(LossRow.last - LossRow.first + 1)).group_by(
            LossRow.edge, LossRow.reason
        )
    )
    found: dict[str, dict[str, int]] = {}
    for edge, reason, count in rows:
        found.setdefault(edge, {})[reason] = int(count)
    return found


def newest_reports(session: Session, line: str, release: int) -> dict[str, DeviceReportRow]:
    """The newest verified report of each box on a release of the line."""
    newest = (
        select(DeviceReportRow.edge, func.max(DeviceReportRow.counter).label("counter"))
        .where(DeviceReportRow.line == line)
        .where((DeviceReportRow.attempted == release) | (DeviceReportRow.release == release))
        .group_by(DeviceReportRow.edge)
        .subquery()
    )
    on = and_(DeviceReportRow.edge == newest.c.edge, DeviceReportRow.counter == newest.c.counter)
    return {row.edge: row for row in session.scalars(select(DeviceReportRow).join(newest, on))}


def audit_page(
    session: Session, *, before: int | None = None, subject: str | None = None, limit: int = PAGE
) -> tuple[Sequence[Audit], bool]:
    """One page, newest first, and whether there are older entries. `before` is the id that follows the page."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Audit.id < before)
    if subject:
        query = query.where(Audit.subject.startswith(subject, autoescape=True))
    rows = session.scalars(query).all()
    return rows[:limit], len(rows) > limit


def pulse(session: Session) -> str:
    """A digest that changes when anything the pages show has changed. Cheap: newest keys, not contents."""
    marks: list[object] = [
        session.scalar(select(func.max(Label.id))),
        session.scalar(select(func.max(AggregateRow.id))),
        session.scalar(select(func.max(Audit.id))),
        session.scalar(select(func.max(DeviceReportRow.id))),
        session.scalar(select(func.max(LossRow.id))),
        tuple(session.execute(select(func.count(), func.max(Candidate.decided_at)).select_from(Candidate)).one()),
        [tuple(row) for row in session.execute(select(Edge.name, Edge.seen_at, Edge.online, Edge.update_state))],
        tuple(
            session.execute(
                select(
                    func.count(),
                    func.sum(Release.wave),
                    func.max(Release.finished_at),
                    func.max(Release.live_at),
                    func.max(Release.wave_opened_at),
                ).select_from(Release)
            ).one()
        ),
        [session.scalar(select(func.max(Sample.stored_at)).where(Sample.line == line.name)) for line in lines(session)],
        sorted(open_tasks(session).items()),
    ]
    return sha256_hex(repr(marks).encode())[:16]
