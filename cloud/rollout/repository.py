"""Queries of the rollout: releases, the line's boxes, what they reported."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud.db.tables import AggregateRow, DeviceReportRow, Edge, Line, Release
from cloud.rollout.planner import Box, Report
from models.contracts.control import ReportReason, UpdateState


def lines(session: Session) -> list[str]:
    """Every line that has a release."""
    return list(session.scalars(select(Release.line).distinct().order_by(Release.line)))


def line(session: Session, name: str) -> Line | None:
    """The line's row."""
    return session.get(Line, name)


def release(session: Session, line: str, number: int) -> Release | None:
    """The release of that number."""
    return session.scalars(select(Release).where(Release.line == line, Release.number == number)).first()


def newest(session: Session, line: str) -> Release | None:
    """The line's newest release, whatever became of it."""
    return session.scalars(select(Release).where(Release.line == line).order_by(Release.number.desc()).limit(1)).first()


def every(session: Session, line: str, limit: int) -> list[Release]:
    """The line's releases, newest first."""
    return list(
        session.scalars(select(Release).where(Release.line == line).order_by(Release.number.desc()).limit(limit))
    )


def last_good(session: Session, line: str, *, before: int, but: str, revoked: frozenset[str]) -> Release | None:
    """The newest completed release below number `before` that ran another adapter than `but` and none revoked."""
    rows = session.scalars(
        select(Release)
        .where(Release.line == line, Release.number < before, Release.state == "complete", Release.adapter_sha != but)
        .order_by(Release.number.desc())
    )
    return next((row for row in rows if row.adapter_sha not in revoked), None)


def boxes(session: Session, line: str, number: int) -> list[Box]:
    """The line's boxes, with the parts each inspected with release `number` as far as its hourly sums tell."""
    counted = select(AggregateRow.edge, func.sum(AggregateRow.n)).where(
        AggregateRow.line == line, AggregateRow.release == number
    )
    parts = {edge: int(n) for edge, n in session.execute(counted.group_by(AggregateRow.edge))}
    rows = session.scalars(select(Edge).where(Edge.line == line).order_by(Edge.name))
    return [Box(row.name, row.online, row.seen_at, parts.get(row.name, 0)) for row in rows]


def reports(session: Session, release: Release) -> list[Report]:
    """What the line's boxes reported since the release was made."""
    rows = session.scalars(
        select(DeviceReportRow)
        .where(DeviceReportRow.line == release.line, DeviceReportRow.received_at >= release.created_at)
        .order_by(DeviceReportRow.edge, DeviceReportRow.counter)
    )
    return [
        Report(
            edge=row.edge,
            counter=row.counter,
            state=UpdateState(row.state),
            release=row.release,
            attempted=row.attempted,
            loaded=row.loaded,
            reason=None if row.reason is None else ReportReason(row.reason),
            received_at=row.received_at,
            parts=int(row.report.get("parts_in_probation") or 0),
        )
        for row in rows
    ]
