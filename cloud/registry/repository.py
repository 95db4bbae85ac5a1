"""Queries about bases and candidates."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud.db.tables import BaseRow, Candidate, Release


def candidate(session: Session, line: str, release: int) -> Candidate | None:
    """The adapter release of that number."""
    return session.scalars(select(Candidate).where(Candidate.line == line, Candidate.release == release)).first()


def candidates(session: Session, line: str, limit: int) -> list[Candidate]:
    """The line's candidates, newest first."""
    return list(
        session.scalars(select(Candidate).where(Candidate.line == line).order_by(Candidate.release.desc()).limit(limit))
    )


def highest_release(session: Session, line: str) -> int:
    """The highest adapter release number given away, 0 before the first."""
    return session.scalars(select(func.max(Candidate.release)).where(Candidate.line == line)).first() or 0


def incumbent(session: Session, line: str) -> Candidate | None:
    """What the line runs or is on its way to run: the adapter of its newest release that was not aborted."""
    newest = session.scalars(
        select(Release).where(Release.line == line, Release.state != "aborted").order_by(Release.number.desc()).limit(1)
    ).first()
    return None if newest is None else candidate(session, line, newest.adapter_release)


def newest_base(session: Session) -> BaseRow | None:
    """The base that was added last."""
    return session.scalars(select(BaseRow).order_by(BaseRow.created_at.desc(), BaseRow.version.desc()).limit(1)).first()


def newest_candidate(session: Session, line: str) -> Candidate | None:
    """The line's candidate of the highest number that was not refused."""
    return session.scalars(
        select(Candidate)
        .where(Candidate.line == line, Candidate.state != "refused")
        .order_by(Candidate.release.desc())
        .limit(1)
    ).first()
