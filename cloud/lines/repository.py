"""Queries about lines and their reference images."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud.db.tables import Line, Reference
from cloud.lines.schemas import LineView, Purpose, ReferenceImage


def view(row: Line) -> LineView:
    """The row as answered to people and programs."""
    return LineView.model_validate(
        {
            "name": row.name,
            "title": row.title,
            "classes": row.classes,
            "escape_cost": row.escape_cost,
            "overkill_cost": row.overkill_cost,
            "currency": row.currency,
            "cameras": row.cameras,
            "hour_s": row.hour_s,
            "created_at": row.created_at,
        }
    )


def get(session: Session, name: str) -> Line | None:
    """The line's row."""
    return session.get(Line, name)


def every(session: Session) -> list[Line]:
    """All lines by name."""
    return list(session.scalars(select(Line).order_by(Line.name)))


def references(session: Session, line: str, purpose: Purpose, as_of: int) -> list[ReferenceImage]:
    """The set as it is at `as_of`, in import order."""
    rows = session.scalars(
        select(Reference)
        .where(Reference.line == line, Reference.purpose == purpose, Reference.active_from <= as_of)
        .order_by(Reference.id)
    )
    return [ReferenceImage(row.sha256, row.label, row.domain, row.group, row.must_catch) for row in rows]


def known_digests(session: Session, line: str) -> dict[str, Reference]:
    """Every imported image of the line by digest, whatever its purpose."""
    return {row.sha256: row for row in session.scalars(select(Reference).where(Reference.line == line))}


def groups_elsewhere(session: Session, line: str, purpose: Purpose, groups: Iterable[str]) -> set[str]:
    """Those of `groups` that already lie in the line's other set."""
    taken = session.scalars(
        select(Reference.group).where(
            Reference.line == line, Reference.purpose != purpose, Reference.group.is_not(None)
        )
    )
    return set(groups) & {group for group in taken if group is not None}
